// device_talk: commands on the file: open, close, read, write, poll, fcntl, fork.
#pragma once

#include <signal.h>
#include <sys/wait.h>

#include <memory>

#include "talk_session.h"

inline int talk_open(Session& session, Words& words, JsonLine& answer) {
  const std::string name = words.take("NAME");
  const std::string path = words.take("PATH");
  int flags = O_RDWR;
  int more = O_CLOEXEC;
  while (!words.empty()) {
    const std::string word = words.take("flag");
    if (word == "r") {
      flags = O_RDONLY;
    } else if (word == "w") {
      flags = O_WRONLY;
    } else if (word == "rw") {
      flags = O_RDWR;
    } else if (word == "nonblock") {
      more |= O_NONBLOCK;
    } else if (word == "append") {
      more |= O_APPEND;
    } else if (word == "truncate") {
      more |= O_TRUNC;
    } else {
      throw BadCommand{word + ": r, w, rw, nonblock, append or truncate is wanted"};
    }
  }
  if (session.openers.count(name) != 0) throw BadCommand{name + ": already open"};
  const int fd = open(path.c_str(), flags | more);
  if (fd < 0) return errno;
  session.openers[name].fd = fd;
  answer.number("fd", fd);
  return 0;
}

inline int talk_unmap(Session& session, Words& words, JsonLine&) {
  Opener& opener = session.opener(words);
  const uint32_t type = words.type();
  for (const MappedBuffer& buffer : opener.mapped[type]) munmap(buffer.start, buffer.length);
  opener.mapped.erase(type);
  return 0;
}

inline int talk_close(Session& session, Words& words, JsonLine&) {
  const std::string name = words.take("NAME");
  const auto found = session.openers.find(name);
  if (found == session.openers.end()) throw BadCommand{name + ": not open"};
  for (const auto& [type, buffers] : found->second.mapped) {
    for (const MappedBuffer& buffer : buffers) munmap(buffer.start, buffer.length);
  }
  const int error = close(found->second.fd) < 0 ? errno : 0;
  session.openers.erase(found);
  return error;
}

inline int talk_dup(Session& session, Words& words, JsonLine& answer) {
  const int fd = fcntl(session.opener(words).fd, F_DUPFD_CLOEXEC, 0);
  if (fd < 0) return errno;
  session.openers[words.take("NEW NAME")].fd = fd;
  answer.number("fd", fd);
  return 0;
}

inline int read_into(int fd, size_t asked, JsonLine& answer) {
  const auto bytes = std::make_unique<uint8_t[]>(asked + 1);
  const ssize_t count = read(fd, bytes.get(), asked);
  if (count < 0) return errno;
  uint64_t hash = 0xcbf29ce484222325ULL;
  for (ssize_t i = 0; i < count; ++i) hash = (hash ^ bytes[i]) * 0x100000001b3ULL;
  char shown[24];
  snprintf(shown, sizeof shown, "%016llx", static_cast<unsigned long long>(hash));
  answer.number("count", count);
  if (count > 0) answer.number("first", bytes[0]).number("last", bytes[count - 1]);
  answer.text("fnv", shown);
  return 0;
}

inline int talk_read(Session& session, Words& words, JsonLine& answer) {
  Opener& opener = session.opener(words);
  return read_into(opener.fd, static_cast<size_t>(words.number("bytes")), answer);
}

// A child reads from the descriptor it inherited; its answer is passed on.
inline int talk_fork_read(Session& session, Words& words, JsonLine& answer) {
  Opener& opener = session.opener(words);
  const auto asked = static_cast<size_t>(words.number("bytes"));
  int ends[2];
  if (pipe(ends) < 0) return errno;
  const pid_t child = fork();
  if (child < 0) return errno;
  if (child == 0) {
    JsonLine found;
    const int error = read_into(opener.fd, asked, found);
    const std::string text = found.error(error).object();
    _exit(write(ends[1], text.data(), text.size()) < 0 ? 1 : 0);
  }
  close(ends[1]);
  char text[512];
  const ssize_t count = read(ends[0], text, sizeof text);
  const int error = count < 0 ? errno : 0;
  close(ends[0]);
  if (error == EINTR) kill(child, SIGKILL);
  waitpid(child, nullptr, 0);
  if (count > 0) answer.raw("child", std::string(text, static_cast<size_t>(count)));
  return error;
}

inline int talk_write(Session& session, Words& words, JsonLine& answer) {
  Opener& opener = session.opener(words);
  const auto asked = static_cast<size_t>(words.number("bytes"));
  const auto value = static_cast<uint8_t>(words.number_or("BYTE", 0));
  // One byte more than asked, so that no bytes have an address too.
  const std::vector<uint8_t> bytes(asked + 1, value);
  const ssize_t count = write(opener.fd, bytes.data(), asked);
  if (count < 0) return errno;
  answer.number("count", count);
  return 0;
}

inline int talk_poll(Session& session, Words& words, JsonLine& answer) {
  Opener& opener = session.opener(words);
  std::istringstream names(words.take("events"));
  int16_t events = 0;
  for (std::string name; std::getline(names, name, ',');) {
    if (name == "in") {
      events |= POLLIN;
    } else if (name == "out") {
      events |= POLLOUT;
    } else if (name == "pri") {
      events |= POLLPRI;
    } else if (name != "none") {
      throw BadCommand{name + ": in, out, pri or none is wanted"};
    }
  }
  pollfd watched{opener.fd, events, 0};
  const int ready = poll(&watched, 1, static_cast<int>(words.number("timeout_ms")));
  if (ready < 0) return errno;
  static const struct {
    int16_t bit;
    const char* name;
  } kNames[] = {{POLLIN, "in"},   {POLLOUT, "out"}, {POLLPRI, "pri"},
                {POLLERR, "err"}, {POLLHUP, "hup"}, {POLLNVAL, "nval"}};
  std::vector<std::string> found;
  for (const auto& known : kNames) {
    if ((watched.revents & known.bit) != 0) found.push_back(known.name);
  }
  answer.texts("revents", found);
  return 0;
}

inline int talk_fcntl(Session& session, Words& words, JsonLine&) {
  Opener& opener = session.opener(words);
  const std::string what = words.take("nonblock");
  const std::string state = words.take("on or off");
  if (what != "nonblock") throw BadCommand{what + ": nonblock is wanted"};
  const int flags = fcntl(opener.fd, F_GETFL);
  const int wanted = state == "on" ? flags | O_NONBLOCK : flags & ~O_NONBLOCK;
  return fcntl(opener.fd, F_SETFL, wanted) < 0 ? errno : 0;
}

inline int talk_alarm(Session& session, Words& words, JsonLine&) {
  session.alarm_ms = static_cast<int>(words.number("ms"));
  return 0;
}

inline void add_file_commands(Commands& commands) {
  commands["open"] = talk_open;
  commands["close"] = talk_close;
  commands["dup"] = talk_dup;
  commands["read"] = talk_read;
  commands["fork_read"] = talk_fork_read;
  commands["write"] = talk_write;
  commands["poll"] = talk_poll;
  commands["fcntl"] = talk_fcntl;
  commands["alarm"] = talk_alarm;
  commands["unmap"] = talk_unmap;
}
