// What device_talk.cc holds between two commands: the openers by name, and the words of a command.
#pragma once

#include <map>
#include <sstream>

#include "json_line.h"
#include "v4l2_device.h"

struct Opener {
  int fd = -1;
  std::map<uint32_t, std::vector<MappedBuffer>> mapped;  // by buffer type
};

// A command that cannot be carried out as it stands: the text is the answer's "message".
struct BadCommand {
  std::string message;
};

// The words of one command line, taken from the left.
class Words {
 public:
  explicit Words(const std::string& line) {
    std::istringstream stream(line);
    for (std::string word; stream >> word;) words_.push_back(word);
  }

  bool empty() const { return next_ >= words_.size(); }

  std::string take(const char* what) {
    if (empty()) throw BadCommand{std::string(what) + " is missing"};
    return words_[next_++];
  }

  std::string take_or(const std::string& otherwise) {
    return empty() ? otherwise : words_[next_++];
  }

  int64_t number(const char* what) { return parsed(what, take(what)); }

  int64_t number_or(const char* what, int64_t otherwise) {
    return empty() ? otherwise : parsed(what, take(what));
  }

  // capture, output, or the number of a buffer type.
  uint32_t type() {
    const std::string word = take("type");
    if (word == "capture") return V4L2_BUF_TYPE_VIDEO_CAPTURE;
    if (word == "output") return V4L2_BUF_TYPE_VIDEO_OUTPUT;
    return static_cast<uint32_t>(parsed("type", word));
  }

  // mmap, userptr, dmabuf, or a number; mmap when nothing is said.
  uint32_t memory() {
    const std::string word = take_or("mmap");
    if (word == "mmap") return V4L2_MEMORY_MMAP;
    if (word == "userptr") return V4L2_MEMORY_USERPTR;
    if (word == "dmabuf") return V4L2_MEMORY_DMABUF;
    return static_cast<uint32_t>(parsed("memory", word));
  }

  void size(uint32_t* width, uint32_t* height) {
    const std::string word = take("WxH");
    if (!parse_size(word, width, height)) throw BadCommand{word + ": WxH is wanted"};
  }

  static int64_t parsed(const char* what, const std::string& word) {
    char* end = nullptr;
    const int64_t value = strtoll(word.c_str(), &end, 0);
    if (word.empty() || *end != '\0') throw BadCommand{word + ": " + what + " must be a number"};
    return value;
  }

 private:
  std::vector<std::string> words_;
  size_t next_ = 0;
};

struct Session {
  std::map<std::string, Opener> openers;
  int alarm_ms = 0;  // of the next call; 0: none

  Opener& opener(Words& words) {
    const std::string name = words.take("NAME");
    const auto found = openers.find(name);
    if (found == openers.end()) throw BadCommand{name + ": not open"};
    return found->second;
  }
};

// Carries a command out and adds what it learned to `answer`; 0, or the errno.
using Command = int (*)(Session&, Words&, JsonLine& answer);
using Commands = std::map<std::string, Command>;
