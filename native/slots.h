// Where a frame's bytes lie.
//
// A slot is a private, page-aligned, contiguous mapping of its own, so no slot ever moves and none
// fragments another. Freed slots are kept and the most recently freed is handed out first: it is
// warm in cache, and the others, unused, can be given back. So resident memory follows what is
// queued and not what the ring might hold.
//
//     hand out ─▶ in use ─▶ put back ─▶ ┌────┬────┬─ … ─┬────┐
//        ▲                              │warm│    │     │cold│ ─▶ surplus ─▶ munmap
//        └───────── most recent ────────┴────┘    └ … ──┴────┘    (off the lock)
//
// Not thread-safe: the ring's lock guards it, but for mapping and unmapping, which the housekeeper
// does without it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <vector>

namespace loopback {

/// What a new slot must leave of RLIMIT_DATA and RLIMIT_AS, and growth of a cgroup's memory, to the
/// rest of the process, which dies where it is refused memory.
inline constexpr size_t kProcessReserve = size_t{32} << 20;

struct Slot {
  uint8_t* data;
  size_t capacity;  // Bytes, whole pages.
  size_t touched;   // Bytes from the start that have been written since it was mapped.
};

size_t round_to_pages(size_t bytes);

class Slots {
 public:
  /// `allow` refuses new mappings, for tests: of so many bytes.
  explicit Slots(std::function<bool(size_t)> allow = {});
  ~Slots();

  /// A slot of at least `bytes`; nullptr where the system refuses the memory. `mapped` tells
  /// whether a new mapping had to be made.
  Slot* acquire(size_t bytes, bool* mapped);
  void put_back(Slot* slot);

  /// A slot in use leaves and `slot` is in use in its place.
  void exchange(const Slot* left, const Slot* slot);

  /// A prepared slot joins at the cold end.
  void add(Slot* slot);

  /// Detaches slots that were not handed out since the last call, and whatever is cached above
  /// `keep_bytes`. The caller unmaps them.
  std::vector<Slot*> surplus(size_t keep_bytes);

  /// Sees to it that no cached slot smaller than a frame of the current format lingers.
  void set_frame_bytes(size_t bytes) { frame_bytes_ = round_to_pages(bytes); }

  size_t cached_bytes() const { return cached_bytes_; }
  size_t cached_count() const { return cache_.size(); }
  size_t in_use_bytes() const { return in_use_bytes_; }

  /// Bytes touched, in slots handed out and cached. Slots in use count from their last return.
  size_t resident() const { return resident_; }
  /// Tells that the first `bytes` of a slot in use have been written.
  void touch(Slot* slot, size_t bytes);

  /// nullptr: refused, or it would leave less than kProcessReserve.
  Slot* map(size_t bytes) const;
  /// The same for a slot of somebody else's, which may be exchanged for one of ours.
  static Slot* map_slot(size_t bytes);
  static void populate(Slot* slot);
  static void unmap(Slot* slot);
  /// Takes a detached slot out of the account; to be called under the lock before `unmap`.
  void forget(Slot* slot) { resident_ -= slot->touched; }

 private:
  const std::function<bool(size_t)> allow_;
  std::deque<Slot*> cache_;  // Warm end at the back.
  size_t cached_bytes_ = 0;
  size_t in_use_bytes_ = 0;
  size_t resident_ = 0;
  size_t idle_ = 0;  // The fewest slots that were cached since the last call of `surplus`.
  size_t frame_bytes_ = 0;
};

/// A slot of its own, outside of every ring.
struct UnmapSlot {
  void operator()(Slot* slot) const { Slots::unmap(slot); }
};
using OwnSlot = std::unique_ptr<Slot, UnmapSlot>;

}  // namespace loopback
