// What the attempts of device_intruder share.
#pragma once

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>

#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "json_line.h"
#include "stop_signals.h"
#include "v4l2_device.h"

constexpr uint32_t kCapture = V4L2_BUF_TYPE_VIDEO_CAPTURE;
constexpr uint32_t kOutput = V4L2_BUF_TYPE_VIDEO_OUTPUT;

[[noreturn]] inline void give_up(const char* what) {
  JsonLine().text("event", "failed").text("what", what).error(errno).print();
  _exit(1);
}

inline int open_device(const std::string& path, int flags = O_RDWR) {
  const int fd = open(path.c_str(), flags | O_CLOEXEC);
  if (fd < 0) give_up("open");
  return fd;
}

inline void must(int error, const char* what) {
  errno = error;
  if (error != 0) give_up(what);
}

inline int request_buffers(int fd, uint32_t type, uint32_t count) {
  v4l2_requestbuffers wanted{};
  wanted.count = count;
  wanted.type = type;
  wanted.memory = V4L2_MEMORY_MMAP;
  return call_ioctl(fd, VIDIOC_REQBUFS, &wanted);
}

inline int create_buffers(int fd, uint32_t type, uint32_t sizeimage) {
  v4l2_create_buffers wanted{};
  wanted.count = 2;
  wanted.memory = V4L2_MEMORY_MMAP;
  wanted.format.type = type;
  wanted.format.fmt.pix.sizeimage = sizeimage;
  return call_ioctl(fd, VIDIOC_CREATE_BUFS, &wanted);
}

inline v4l2_buffer mmap_buffer(uint32_t type, uint32_t index = 0) {
  v4l2_buffer buffer{};
  buffer.type = type;
  buffer.memory = V4L2_MEMORY_MMAP;
  buffer.index = index;
  buffer.field = V4L2_FIELD_NONE;
  return buffer;
}

inline int queue_buffer(int fd, uint32_t type, uint32_t index) {
  v4l2_buffer buffer = mmap_buffer(type, index);
  return call_ioctl(fd, VIDIOC_QBUF, &buffer);
}

inline int stream(int fd, uint32_t type, bool on) {
  return call_ioctl(fd, on ? VIDIOC_STREAMON : VIDIOC_STREAMOFF, &type);
}

// 0, or the errno; `size` gets the sizeimage.
inline int set_format(int fd, uint32_t width, uint32_t height, uint32_t fourcc, uint32_t* size) {
  v4l2_format format{};
  format.type = kOutput;
  format.fmt.pix.width = width;
  format.fmt.pix.height = height;
  format.fmt.pix.pixelformat = fourcc;
  const int error = call_ioctl(fd, VIDIOC_S_FMT, &format);
  *size = format.fmt.pix.sizeimage;
  return error;
}

// A call in a thread of its own, which may wait in it for long.
class Waiting {
 public:
  explicit Waiting(std::function<void()> call)
      : thread_([this, call = std::move(call)] {
          tid_ = static_cast<int>(syscall(SYS_gettid));
          call();
          done_ = true;
        }) {}
  ~Waiting() {
    while (!done_) {
      pthread_kill(thread_.native_handle(), SIGALRM);
      poll(nullptr, 0, 5);
    }
    thread_.join();
  }
  bool done() const { return done_; }
  // Until the thread sleeps in that system call, or has returned from it.
  void until_in(long number) const {
    while (!done_) {
      const std::string path = "/proc/self/task/" + std::to_string(tid_) + "/syscall";
      char text[32] = {0};
      const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
      if (fd >= 0 && read(fd, text, sizeof text - 1) > 0 && strtol(text, nullptr, 10) == number &&
          text[0] >= '0' && text[0] <= '9') {
        close(fd);
        return;
      }
      if (fd >= 0) close(fd);
      poll(nullptr, 0, 2);
    }
  }

 private:
  std::atomic<int> tid_{0};
  std::atomic<bool> done_{false};
  std::thread thread_;
};

// A reader of the device that takes nothing: a ring that may not lose a frame fills behind it.
inline int idle_reader(const std::string& path) {
  const int fd = open_device(path, O_RDWR | O_NONBLOCK);
  pollfd watched{fd, POLLIN, 0};
  poll(&watched, 1, 0);
  return fd;
}
