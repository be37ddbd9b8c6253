// The user buffers that frames are sent from and received into: they walk over 64 MB, so that no
// transport is measured with a payload that happens to lie in a cache.
//
//   | frame | frame | frame | … | frame |      each begins on a page
//   └▶ next ─▶ next ─▶ …              ─▶ and again from the start
#pragma once

#include <sys/mman.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>

class Arena {
 public:
  static constexpr size_t kBytes = size_t{64} << 20;

  explicit Arena(size_t frame_bytes, size_t arena_bytes = kBytes)
      : step_((frame_bytes + kPage - 1) / kPage * kPage), count_(arena_bytes / step_) {
    if (count_ == 0) count_ = 1;
    const size_t bytes = count_ * step_;
    void* start = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (start == MAP_FAILED) {
      perror("an arena of 64 MB can't be had");
      exit(1);
    }
    start_ = static_cast<uint8_t*>(start);
    memset(start_, 1, bytes);
  }
  ~Arena() { munmap(start_, count_ * step_); }
  Arena(const Arena&) = delete;
  Arena& operator=(const Arena&) = delete;

  uint8_t* next() { return start_ + step_ * (at_++ % count_); }

 private:
  static constexpr size_t kPage = 4096;
  size_t step_;
  size_t count_;
  size_t at_ = 0;
  uint8_t* start_;
};
