// Small helpers over a V4L2 file descriptor.
#pragma once

#include <errno.h>
#include <fcntl.h>
#include <linux/videodev2.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

// 0, or the errno.
inline int call_ioctl(int fd, unsigned long request, void* argument) {
  return ioctl(fd, request, argument) < 0 ? errno : 0;
}

inline uint32_t fourcc_of(const std::string& text) {
  uint32_t fourcc = 0;
  for (size_t i = 0; i < 4; ++i) {
    const auto character = static_cast<uint8_t>(i < text.size() ? text[i] : ' ');
    fourcc |= static_cast<uint32_t>(character) << (8 * i);
  }
  return fourcc;
}

inline std::string fourcc_text(uint32_t fourcc) {
  std::string text;
  for (int i = 0; i < 4; ++i) text += static_cast<char>(fourcc >> (8 * i) & 0xff);
  return text;
}

inline bool parse_size(const std::string& text, uint32_t* width, uint32_t* height) {
  return sscanf(text.c_str(), "%ux%u", width, height) == 2;
}

struct MappedBuffer {
  uint8_t* start = nullptr;
  size_t length = 0;
};

// Maps all buffers that `type` has; 0, or the errno.
inline int map_buffers(int fd, uint32_t type, int protection, std::vector<MappedBuffer>* mapped) {
  for (uint32_t index = static_cast<uint32_t>(mapped->size());; ++index) {
    v4l2_buffer buffer{};
    buffer.type = type;
    buffer.memory = V4L2_MEMORY_MMAP;
    buffer.index = index;
    if (const int error = call_ioctl(fd, VIDIOC_QUERYBUF, &buffer)) {
      return error == EINVAL && index > 0 ? 0 : error;
    }
    void* start = mmap(nullptr, buffer.length, protection, MAP_SHARED, fd, buffer.m.offset);
    if (start == MAP_FAILED) return errno;
    mapped->push_back({static_cast<uint8_t*>(start), buffer.length});
  }
}

// Waits until one of `events`, or an error event, is there; 0, or EINTR, ETIMEDOUT.
inline int wait_for(int fd, int16_t events, int timeout_ms, int16_t* revents) {
  pollfd watched{fd, events, 0};
  const int ready = poll(&watched, 1, timeout_ms);
  *revents = watched.revents;
  return ready < 0 ? errno : ready == 0 ? ETIMEDOUT : 0;
}

// What follows on a command line: `--name value` or a bare `--name`. Exits with a sentence for a
// name that is not in `known`, where "name=" takes a value and "name" takes none.
class Options {
 public:
  Options(int count, char** arguments, const std::vector<std::string>& known) {
    for (int i = 1; i < count; ++i) {
      const std::string argument = arguments[i];
      if (argument.rfind("--", 0) != 0) {
        positional_.push_back(argument);
        continue;
      }
      const std::string name = argument.substr(2);
      bool found = false;
      for (const std::string& candidate : known) {
        if (candidate == name) {
          values_.push_back({name, ""});
          found = true;
        } else if (candidate == name + "=" && i + 1 < count) {
          values_.push_back({name, arguments[++i]});
          found = true;
        }
        if (found) break;
      }
      if (!found) {
        fprintf(stderr, "%s: unknown option, or its value is missing\n", argument.c_str());
        exit(2);
      }
    }
    if (positional_.size() != 1) {
      fprintf(stderr, "exactly one DEVICE is wanted, got %zu\n", positional_.size());
      exit(2);
    }
  }

  const std::string& device() const { return positional_[0]; }

  bool has(const std::string& name) const {
    for (const auto& value : values_) {
      if (value.name == name) return true;
    }
    return false;
  }

  std::string text(const std::string& name, const std::string& otherwise) const {
    for (const auto& value : values_) {
      if (value.name == name) return value.value;
    }
    return otherwise;
  }

  int64_t number(const std::string& name, int64_t otherwise) const {
    const std::string value = text(name, "");
    return value.empty() ? otherwise : strtoll(value.c_str(), nullptr, 0);
  }

  double real(const std::string& name, double otherwise) const {
    const std::string value = text(name, "");
    return value.empty() ? otherwise : strtod(value.c_str(), nullptr);
  }

 private:
  struct Value {
    std::string name;
    std::string value;
  };
  std::vector<Value> values_;
  std::vector<std::string> positional_;
};
