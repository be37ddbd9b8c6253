#include "memory_budget.h"

#include <utility>

namespace loopback {

namespace {
// How long a look at the system's memory is good for: others take of it too.
constexpr int64_t kLookLastsNs = 1000000000;
}  // namespace

MemoryBudget::MemoryBudget(std::function<Headroom()> headroom) : headroom_(std::move(headroom)) {}

std::shared_ptr<MemoryBudget> MemoryBudget::shared() {
  static const auto budget = std::make_shared<MemoryBudget>();
  return budget;
}

void MemoryBudget::set(Part* part, uint64_t promised, uint64_t touched) {
  // Differences wrap around, and so does their sum.
  if (promised != part->promised) promised_ += promised - std::exchange(part->promised, promised);
  if (touched != part->touched) touched_ += touched - std::exchange(part->touched, touched);
}

bool MemoryBudget::covers(const Part& part, uint64_t wanted) const {
  return wanted <= part.promised || promised_ + (wanted - part.promised) <= ceiling_;
}

bool MemoryBudget::promise(Part* part, uint64_t wanted, int64_t now_ns, std::string* limited_by) {
  if (wanted <= part->promised) return true;
  const uint64_t more = wanted - part->promised;
  std::lock_guard lock(mutex_);
  promised_ += more;
  if (promised_ > ceiling_ || now_ns - looked_at_ns_ >= kLookLastsNs) look_locked(now_ns);
  if (promised_ > ceiling_) {
    promised_ -= more;
    *limited_by = limited_by_;
    return false;
  }
  part->promised = wanted;
  return true;
}

void MemoryBudget::look(int64_t now_ns) {
  std::lock_guard lock(mutex_);
  look_locked(now_ns);
}

void MemoryBudget::look_locked(int64_t now_ns) {
  // What is touched meanwhile then counts twice, and not never.
  const uint64_t touched = touched_;
  Headroom headroom = headroom_();
  ceiling_ = touched + headroom.bytes;
  limited_by_ = std::move(headroom.limited_by);
  looked_at_ns_ = now_ns;
}

}  // namespace loopback
