// One JSON object on one line of standard output, written with a single write(2), so that a test
// sees it at once and lines of a forked child never mix with those of its parent.
#pragma once

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <string>
#include <string_view>
#include <vector>

class JsonLine {
 public:
  JsonLine& text(std::string_view key, std::string_view value) { return raw(key, quoted(value)); }
  JsonLine& number(std::string_view key, int64_t value) { return raw(key, std::to_string(value)); }
  JsonLine& count(std::string_view key, uint64_t value) { return raw(key, std::to_string(value)); }
  JsonLine& flag(std::string_view key, bool value) { return raw(key, value ? "true" : "false"); }

  JsonLine& seconds(std::string_view key, double value) {
    char shown[32];
    snprintf(shown, sizeof shown, "%.6f", value);
    return raw(key, shown);
  }

  JsonLine& texts(std::string_view key, const std::vector<std::string>& values) {
    std::string list = "[";
    for (const std::string& value : values) list += (list.size() > 1 ? "," : "") + quoted(value);
    return raw(key, list + "]");
  }

  // `error` is an errno value; 0 is shown as null.
  JsonLine& error(int error) {
    if (error == 0) return raw("errno", "null");
    const char* name = strerrorname_np(error);
    return text("errno", name != nullptr ? std::string(name) : std::to_string(error));
  }

  // `json` must be JSON already.
  JsonLine& raw(std::string_view key, std::string_view json) {
    if (!body_.empty()) body_ += ",";
    body_ += quoted(key) + ":";
    body_ += json;
    return *this;
  }

  JsonLine& members_of(const JsonLine& other) {
    if (!body_.empty() && !other.body_.empty()) body_ += ",";
    body_ += other.body_;
    return *this;
  }

  std::string object() const { return "{" + body_ + "}"; }

  void print() const {
    const std::string line = object() + "\n";
    size_t written = 0;
    while (written < line.size()) {
      const ssize_t step = write(STDOUT_FILENO, line.data() + written, line.size() - written);
      if (step < 0 && errno == EINTR) continue;
      if (step < 0) _exit(3);
      written += static_cast<size_t>(step);
    }
  }

 private:
  static std::string quoted(std::string_view value) {
    std::string shown = "\"";
    for (const char character : value) {
      const auto byte = static_cast<unsigned char>(character);
      if (character == '"' || character == '\\') {
        shown += '\\';
        shown += character;
      } else if (byte < 0x20 || byte >= 0x7f) {
        char escape[8];
        snprintf(escape, sizeof escape, "\\u%04x", byte);
        shown += escape;
      } else {
        shown += character;
      }
    }
    return shown + "\"";
  }

  std::string body_;
};
