// What the rings of a process may still take of the memory, together: each may grow into what there
// is, but what one has been promised and not yet touched is no more there for another.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>

#include "memory_headroom.h"

namespace loopback {

class MemoryBudget {
 public:
  explicit MemoryBudget(std::function<Headroom()> headroom = memory_headroom);
  /// The process has one.
  static std::shared_ptr<MemoryBudget> shared();

  /// One ring's part, in bytes; its owner's lock guards it.
  struct Part {
    uint64_t promised = 0;  // What it may hold.
    uint64_t touched = 0;   // What it has made resident of that.
  };
  /// Tells what the part is now. A part that ends is set to 0.
  void set(Part* part, uint64_t promised, uint64_t touched);
  /// Promises up to `wanted` bytes in all, or says by what that is limited. Looks at the memory
  /// where the last look is too old or allowed too little.
  bool promise(Part* part, uint64_t wanted, int64_t now_ns, std::string* limited_by);
  /// Whether a promise would need no look for the amount's sake.
  bool covers(const Part& part, uint64_t wanted) const;
  void look(int64_t now_ns);

 private:
  void look_locked(int64_t now_ns);

  const std::function<Headroom()> headroom_;
  std::atomic<uint64_t> promised_{0};
  std::atomic<uint64_t> touched_{0};
  std::atomic<uint64_t> ceiling_{0};  // What may be promised in all, at the last look.
  std::mutex mutex_;
  int64_t looked_at_ns_ = 0;
  std::string limited_by_;
};

}  // namespace loopback
