// The three texts that tell of a ring, read and taken apart. Whatever is not exactly as the
// contract says is a BadText.
#pragma once

#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <map>
#include <regex>
#include <sstream>
#include <string>
#include <vector>

#include "stop_signals.h"

struct BadText {
  std::string what;
};

// A text as one read(2) gave it, and when that began and ended.
struct Reading {
  std::string text;
  int64_t begin_ns = 0;
  int64_t end_ns = 0;
};

inline Reading read_once(const std::string& path) {
  static std::vector<char> room(1 << 20);
  Reading reading;
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) throw BadText{path + ": " + strerror(errno)};
  reading.begin_ns = now_ns();
  ssize_t count;
  while ((count = read(fd, room.data(), room.size())) < 0 && errno == EINTR) {
  }
  reading.end_ns = now_ns();
  const int error = errno;
  close(fd);
  if (count < 0) throw BadText{path + ": " + strerror(error)};
  reading.text.assign(room.data(), static_cast<size_t>(count));
  if (reading.text.empty() || reading.text.back() != '\n') throw BadText{"no newline at the end"};
  return reading;
}

// 0, or the errno.
inline int write_once(const std::string& path, const std::string& value) {
  const int fd = open(path.c_str(), O_WRONLY | O_CLOEXEC);
  if (fd < 0) return errno;
  const int error = write(fd, value.data(), value.size()) < 0 ? errno : 0;
  close(fd);
  return error;
}

inline std::vector<std::string> split(const std::string& text, char at) {
  std::vector<std::string> parts;
  std::istringstream stream(text);
  for (std::string part; std::getline(stream, part, at);) parts.push_back(part);
  return parts;
}

inline uint64_t number_of(const std::string& text) {
  if (text.empty() || text.size() > 19 || text.find_first_not_of("0123456789") != text.npos)
    throw BadText{"\"" + text + "\" is no number"};
  return std::stoull(text);
}

struct Counters {
  Reading reading;
  std::map<std::string, uint64_t> values;
  uint64_t operator[](const char* name) const { return values.at(name); }
};

inline Counters parse_counters(Reading reading) {
  static const std::array kNames = {"size",
                                    "used",
                                    "resident",
                                    "held_frames",
                                    "published_frames",
                                    "published_bytes",
                                    "delivered_frames",
                                    "delivered_bytes",
                                    "dropped_frames",
                                    "dropped_bytes",
                                    "left_frames",
                                    "owed_frames",
                                    "aborted_frames",
                                    "expand_count",
                                    "expand_ns",
                                    "expand_ns_max",
                                    "shrink_count",
                                    "shrink_ns",
                                    "shrink_ns_max",
                                    "commit_ns",
                                    "release_ns",
                                    "producers",
                                    "consumers",
                                    "stalled_consumers",
                                    "uptime_ms"};
  Counters counters;
  const std::vector<std::string> lines = split(reading.text, '\n');
  if (lines.size() != kNames.size()) throw BadText{"not as many counters as there should be"};
  for (size_t i = 0; i < lines.size(); ++i) {
    const std::string name = std::string(kNames[i]) + " ";
    if (lines[i].rfind(name, 0) != 0) throw BadText{"\"" + lines[i] + "\" instead of " + name};
    counters.values[kNames[i]] = number_of(lines[i].substr(name.size()));
  }
  counters.reading = std::move(reading);
  return counters;
}

struct Row {
  std::string pid, command;
  uint64_t published, delivered, dropped, owed, left, owed_bytes, lag_ms;
};

struct Consumers {
  Reading reading;
  std::vector<Row> rows;
  Row total;
};

inline Consumers parse_consumers(Reading reading) {
  Consumers consumers;
  const std::vector<std::string> lines = split(reading.text, '\n');
  if (lines[0] != "pid\tcommand\tpublished\tdelivered\tdropped\towed\tleft\towed_bytes\tlag_ms")
    throw BadText{"another header: " + lines[0]};
  for (size_t i = 1; i < lines.size(); ++i) {
    const std::vector<std::string> cells = split(lines[i], '\t');
    if (cells.size() != 9) throw BadText{"\"" + lines[i] + "\" has not nine columns"};
    uint64_t values[7];
    for (size_t at = 0; at < 7; ++at) values[at] = number_of(cells[at + 2]);
    consumers.rows.push_back({cells[0], cells[1], values[0], values[1], values[2], values[3],
                              values[4], values[5], values[6]});
  }
  if (consumers.rows.empty() || consumers.rows.back().pid != "total")
    throw BadText{"the last row is not the total"};
  consumers.total = consumers.rows.back();
  consumers.rows.pop_back();
  consumers.reading = std::move(reading);
  return consumers;
}

struct Stats {
  Reading reading;
  bool active = false;
  std::string size, used, written_bytes, read_bytes, expand_average, shrink_average;
  uint64_t percent, read_offset, write_offset, uptime_s, written, read, dropped, expands, shrinks;
  bool last_expand, last_shrink;
};

inline Stats parse_stats(Reading reading) {
  static const std::regex kActive(
      "=== V4L2-Loopback Dynamic Buffer Statistics ===\n"
      "-- Current State --\n"
      "Buffer size:     (.+)\n"
      "Used:            (.+) \\((\\d+)%\\)\n"
      "Read offset:     (\\d+)\n"
      "Write offset:    (\\d+)\n"
      "Uptime:          (\\d+) seconds\n"
      "\n"
      "-- I/O Statistics --\n"
      "Frames written:  (\\d+)\n"
      "Frames read:     (\\d+)\n"
      "Frames dropped:  (\\d+)\n"
      "Total written:   (.+)\n"
      "Total read:      (.+)\n"
      "\n"
      "-- Resize Statistics --\n"
      "Expand count:    (\\d+) \\(avg time: (\\S+) µs\\)\n"
      "Shrink count:    (\\d+) \\(avg time: (\\S+) µs\\)\n"
      "(Last expand:     \\d+ seconds ago\n)?"
      "(Last shrink:     \\d+ seconds ago\n)?");
  Stats stats;
  stats.active = reading.text != "Dynamic buffering is not active\n";
  std::smatch found;
  if (stats.active && !std::regex_match(reading.text, found, kActive))
    throw BadText{"the statistics have another form:\n" + reading.text};
  if (stats.active) {
    const auto number = [&](size_t at) { return number_of(found[at]); };
    stats.size = found[1];
    stats.used = found[2];
    stats.percent = number(3);
    stats.read_offset = number(4);
    stats.write_offset = number(5);
    stats.uptime_s = number(6);
    stats.written = number(7);
    stats.read = number(8);
    stats.dropped = number(9);
    stats.written_bytes = found[10];
    stats.read_bytes = found[11];
    stats.expands = number(12);
    stats.expand_average = found[13];
    stats.shrinks = number(14);
    stats.shrink_average = found[15];
    stats.last_expand = found[16].matched;
    stats.last_shrink = found[17].matched;
  }
  stats.reading = std::move(reading);
  return stats;
}
