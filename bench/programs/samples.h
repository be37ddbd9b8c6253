// Durations in nanoseconds, printed one by one: what they come to is computed in one place,
// bench/support/statistics.ts.
#pragma once

#include <time.h>

#include <cstdint>
#include <string>
#include <vector>

class Samples {
 public:
  explicit Samples(size_t expected) { all_.reserve(expected); }
  void add(int64_t nanoseconds) { all_.push_back(nanoseconds); }
  size_t size() const { return all_.size(); }

  std::string json() const {
    std::string list = "[";
    for (const int64_t each : all_) list += (list.size() > 1 ? "," : "") + std::to_string(each);
    return list + "]";
  }

 private:
  std::vector<int64_t> all_;
};

// What the process has used of the processors, all threads together.
inline int64_t cpu_ns() {
  timespec used;
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &used);
  return used.tv_sec * 1'000'000'000LL + used.tv_nsec;
}
