// Frames in order, from producers to consumers.
//
//   producers                          the ring                            consumers
//
//   claim ─▶ fill ─▶ publish ─▶ ┌─────┬─────┬─────┬─────┬─────┐
//     │                         │  7  │  8  │  9  │ 10  │ 11  │ ◀─ newest, kept for who joins
//     └▶ abort                  └──▲──┴─────┴──▲──┴─────┴─────┘
//                                  │           └─ cursor of A: owed 9 10 11 ── take ─▶ pinned
//                                  └─ cursor of B: owed 7 … 11                │        ─▶ release
//                                     B is the slowest: `used` is 7 … 11      └ delivered
//
// The contract (spec section 2):
// - Broadcast. Every consumer is owed every frame published after it joined, in order, and takes it
//   with a cursor of its own. A frame's slot is free once nobody owes it and nobody reads it.
// - A frame is claimed before its first byte and published whole, or aborted and never seen.
// - Dynamic: `size` bytes bound `used`, double up to `max` and halve down to `min`. A resize moves
// no
//   frame: it changes that one number. Static: the last `max_buffers` frames.
// - Loss is an outcome that is counted, not an error. For every consumer, at any moment:
//   published = delivered + dropped + owed + left.
//
// Threads: every function may be called from any thread; one lock guards bookkeeping alone. The
// bytes of a claim belong to its producer until publish or abort, those of a taken frame may be
// read until release; neither needs the lock. Time comes in as an argument: CLOCK_MONOTONIC, in
// nanoseconds. No function waits: who is told kFull asks again after room was made, or at the
// time given.
#pragma once

#include <sys/types.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <list>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "memory_budget.h"
#include "slots.h"

namespace loopback {

using Nanoseconds = int64_t;
inline constexpr Nanoseconds kNever = INT64_MAX;
inline constexpr Nanoseconds kMillisecond = 1000000;
inline constexpr Nanoseconds kSecond = 1000 * kMillisecond;

enum class Overflow { kBlock, kDrop };
enum class Lap { kNewest, kOldest };

struct RingParameters {
  bool dynamic = false;
  uint32_t max_buffers = 2;
  uint64_t min = 0;  // 0: two frames of the format.
  uint64_t max = 0;  // 0: the smaller of 256 MiB and an eighth of the memory.
  uint32_t high_watermark = 75;
  uint32_t low_watermark = 25;
  uint32_t shrink_delay_ms = 5000;
  Overflow overflow = Overflow::kBlock;
  uint32_t stall_timeout_ms = 1000;
  Lap lap = Lap::kNewest;
};

/// What a producer says of a frame; the ring carries it and looks at the timestamp alone.
struct FrameTags {
  int64_t timestamp_ns = 0;  // 0: the time of publishing.
  uint32_t flags = 0;
  uint32_t field = 0;
  uint64_t format = 0;         // The generation of the device's format.
  uint8_t timecode[16] = {0};  // struct v4l2_timecode
};

struct Producer;
struct Consumer;

struct Frame {
  uint64_t sequence = 0;  // From 0, over the ring's life.
  Nanoseconds published_ns = 0;
  int64_t timestamp_ns = 0;
  size_t bytesused = 0;
  FrameTags tags;
  Slot* slot = nullptr;

  const uint8_t* data() const { return slot->data; }

 private:
  friend class Ring;
  Frame* older = nullptr;
  Frame* newer = nullptr;
  size_t room = 0;  // bytesused in whole pages.
  uint64_t producer = 0;
  uint32_t owed_by = 0;
  uint32_t pins = 0;
  bool listed = false;
  bool counted = false;  // In `used`.
  bool is_static = false;
};

/// Room for one frame. `data` has `capacity` bytes, the producer's until publish or abort.
struct Claim {
  uint8_t* data() const { return slot->data; }
  size_t capacity() const { return slot->capacity; }

 private:
  friend class Ring;
  Slot* slot = nullptr;
  size_t room = 0;
  Producer* producer = nullptr;
  Nanoseconds touched_ns = 0;
  bool counted = false;
};

struct Label {
  pid_t pid = 0;
  std::string command;
};

struct ConsumerReport {
  pid_t pid;
  std::string command;
  uint64_t published, delivered, dropped, owed, left, owed_bytes, lag_ms;
};

struct RingCounters {
  uint64_t size, used, resident, held_frames;
  uint64_t published_frames, published_bytes, delivered_frames, delivered_bytes;
  uint64_t dropped_frames, dropped_bytes, left_frames, owed_frames, aborted_frames;
  uint64_t expand_count, expand_ns, expand_ns_max, shrink_count, shrink_ns, shrink_ns_max;
  uint64_t commit_ns, release_ns, producers, consumers, stalled_consumers, uptime_ms;
  uint64_t read_offset, write_offset;
  int64_t last_expand_ms, last_shrink_ms;  // -1: none.
};

/// What is worth a line in the log. `text` is a whole sentence.
struct RingEvent {
  enum class Kind { kGrown, kShrunk, kLapped, kRefused } kind;
  std::string text;
};

enum class ClaimAnswer { kGranted, kFull, kTooLarge, kNoMemory };

class Ring {
 public:
  struct Setup {
    size_t sizeimage;
    RingParameters parameters;
    Nanoseconds now;
    /// Called under the ring's lock: must not wait, nor call the ring.
    std::function<void(const RingEvent&)> observe;
    /// Called under the ring's lock when there is work for `housekeep`.
    std::function<void(Ring*)> wake_housekeeper;
    /// What it may take of the memory, with all other rings. Tests give another.
    std::shared_ptr<MemoryBudget> budget = MemoryBudget::shared();
    /// Tests refuse slots with it: false refuses a new mapping of so many bytes.
    std::function<bool(size_t)> allow_mapping;
  };
  explicit Ring(Setup setup);
  ~Ring();
  Ring(const Ring&) = delete;
  Ring& operator=(const Ring&) = delete;

  // --- who takes part (ring_parties.cc)

  /// nullptr: a static ring has its one producer.
  Producer* join_producer(Label label, Nanoseconds now);
  /// Claims that it still holds must have been aborted. Its frames stay owed; the kept one goes.
  void leave_producer(Producer* producer, Nanoseconds now);
  /// The consumer that is the same opener: it never holds this producer back.
  void set_own_consumer(Producer* producer, Consumer* consumer);
  Consumer* join_consumer(Label label, Nanoseconds now);
  /// What it is owed counts as left; the frame that it reads is released.
  void leave_consumer(Consumer* consumer, Nanoseconds now);
  uint32_t producers() const;
  uint32_t consumers() const;

  // --- producing (ring.cc)

  /// Room for a frame of up to `bytes`. On kFull `*retry_at` is when a stalled consumer would be
  /// lapped, kNever if only a consumer can make room.
  ClaimAnswer claim(Producer* producer, size_t bytes, Nanoseconds now, Claim** claim,
                    Nanoseconds* retry_at);
  /// Whether a claim would be granted, with the same effect on who has stalled.
  bool has_room(Producer* producer, size_t bytes, Nanoseconds now, Nanoseconds* retry_at);
  /// The claim's frame landed in `slot`, which the caller had mapped; the claim's own becomes the
  /// caller's for it.
  Slot* exchange(Claim* claim, Slot* slot);
  /// The producer no longer waits: its next claim starts the stall clock anew.
  void stop_claiming(Producer* producer);
  /// Bytes keep coming: a claim that rests for 100 ms does not count against other producers.
  void touch(Claim* claim, size_t filled, Nanoseconds now);
  /// `counts` tells whether a frame had begun: it is then one in aborted_frames.
  void abort(Claim* claim, bool counts, Nanoseconds now);
  /// A frame that nobody claimed for, still queued at STREAMOFF or close.
  void count_aborted(uint64_t frames);
  /// Whether a finished frame waits for room: it is published by a later take, or by `housekeep`,
  /// which may hand it to a consumer that waits.
  bool has_pending() const;
  /// Publishes the first `bytesused` bytes. Consumers that wait are handed the frame here, before
  /// growth is judged. The claim is gone afterwards.
  void publish(Claim* claim, size_t bytesused, const FrameTags& tags, Nanoseconds now);

  // --- consuming (ring.cc)

  /// The next frame, pinned until `release` or the next take; nullptr where nothing is owed, and
  /// the consumer then waits: the next publish hands it the frame at once.
  const Frame* take(Consumer* consumer, Nanoseconds now);
  void stop_waiting(Consumer* consumer);
  void release(Consumer* consumer, Nanoseconds now);
  /// The frame that it reads, pinned once more: also past its release, until `let_go`.
  const Frame* hold(Consumer* consumer);
  void let_go(const Frame* frame);
  /// Part of the frame was read: the consumer is alive.
  void touch(Consumer* consumer, Nanoseconds now);
  bool readable(const Consumer* consumer) const;
  /// The newest frame once more, for a consumer that is owed nothing; nullptr if there is none.
  /// Counts as published to it and delivered.
  const Frame* repeat(Consumer* consumer, Nanoseconds now);
  /// An image that never was in the ring was shown to the consumer: published to it and delivered.
  void count_substitute(Consumer* consumer, size_t bytes, Nanoseconds now);
  /// The sequence of the first frame that was published to the consumer, or will be.
  uint64_t first_sequence(const Consumer* consumer) const;
  /// Whether there is a newest frame to repeat.
  bool has_newest() const;

  // --- size (ring_size.cc)

  RingParameters parameters() const;
  /// Applies all or nothing: returns an empty string, or a sentence that says what is wrong.
  /// `dynamic_written` tells that the mode itself was written: only then does a ring whose growth
  /// was refused leave that state.
  std::string set_parameters(const RingParameters& parameters, bool dynamic_written,
                             Nanoseconds now);
  /// The format changed: min follows it, and the kept frame is discarded.
  void set_sizeimage(size_t bytes, Nanoseconds now);
  /// The largest frame of which two fit into `max`.
  size_t largest_frame() const;
  /// Shrinks what is due, gives memory back, looks ahead. Without the lock where it takes time.
  /// Returns when it wants to be called again; kNever: when woken.
  Nanoseconds housekeep(Nanoseconds now);
  /// The resizing part of housekeep alone, for tests that turn the clock.
  void tick(Nanoseconds now);

  // --- reporting (ring_report.cc)

  RingCounters counters(Nanoseconds now) const;
  /// One reading under one lock; the last row is the sum over all consumers, past ones included.
  std::vector<ConsumerReport> consumer_reports(Nanoseconds now) const;
  void reset_counters(Nanoseconds now);

 private:
  struct Pending {
    Slot* slot;
    size_t bytesused;
    FrameTags tags;
    uint64_t producer;
    Nanoseconds waiting_since;
  };
  // kHeld: growth was refused; the ring stays at its size, and `dynamic` reads 0.
  enum class Mode { kStatic, kDynamic, kHeld };

  ClaimAnswer room_for_claim(Producer* producer, size_t room, Nanoseconds now,
                             Nanoseconds* retry_at);
  // For a producer that has waited since then, and whose own consumer does not count.
  bool make_room(const Consumer* own, Nanoseconds waiting_since, size_t room, Nanoseconds now,
                 Nanoseconds* retry_at);
  // `size` is above max for as long as more is held than a max that was written meanwhile.
  uint64_t bound() const { return std::min(size_, parameters_.max); }
  bool fits(size_t room) const { return used_ + claimed_ + room <= bound(); }
  void append(Slot* slot, size_t bytesused, const FrameTags& tags, uint64_t producer,
              Nanoseconds now);
  void publish_pending(Nanoseconds now);
  bool make_room_for_pending(const Pending& pending, Nanoseconds now);
  void rest_idle_claims(Nanoseconds now);
  Frame* pin_next(Consumer* consumer, Nanoseconds now);
  void unpin(Frame* frame);
  void drop_static_surplus();
  void advance();
  void unlist(Frame* frame);
  void recycle(Frame* frame);
  bool producer_at_work(uint64_t id) const;
  bool is_for_newcomers(const Frame* frame) const;
  bool make_room_for_newest(Nanoseconds now);
  bool lap_slowest(const Consumer* own, Nanoseconds waiting_since, size_t room, Nanoseconds now,
                   Nanoseconds* retry_at);
  void lap(Consumer* consumer, size_t room, bool log);

  uint64_t min_bytes() const;
  bool grow_to_fit(size_t needed, Nanoseconds now);
  void set_size(uint64_t size, bool expand, Nanoseconds now);
  void note_usage(Nanoseconds now);
  uint64_t nominal_size() const;
  void note_memory();
  void refuse_growth(uint64_t wanted, const std::string& why);
  void want_housekeeping();
  void tick_locked(Nanoseconds now);
  void emit(RingEvent::Kind kind, std::string text) const;

  mutable std::mutex mutex_;
  Setup setup_;
  RingParameters parameters_;
  Mode mode_ = Mode::kStatic;
  bool min_written_ = false;
  size_t sizeimage_ = 0;
  Slots slots_;

  Frame* oldest_ = nullptr;
  Frame* newest_ = nullptr;
  size_t listed_ = 0;
  size_t static_listed_ = 0;
  uint64_t next_sequence_ = 0;
  uint64_t format_since_ = 0;  // The first sequence of the present format.
  std::vector<Frame*> spare_frames_;
  std::list<std::unique_ptr<Producer>> producers_;
  std::list<std::unique_ptr<Consumer>> consumers_;
  std::list<std::unique_ptr<Claim>> claims_;
  std::deque<Pending> pending_;
  uint64_t next_producer_ = 1;
  int64_t last_timestamp_ns_ = 0;

  uint64_t size_ = 0;
  MemoryBudget::Part budget_part_;
  size_t used_ = 0;
  size_t claimed_ = 0;
  uint64_t read_position_ = 0;
  Nanoseconds low_since_ = kNever;
  size_t low_peak_ = 0;  // The most that was held since then.
  bool housekeeping_wanted_ = false;
  Nanoseconds last_housekeeping_ = 0;

  // Counters since the last reset.
  uint64_t published_frames_ = 0, published_bytes_ = 0, delivered_bytes_ = 0, dropped_bytes_ = 0;
  uint64_t aborted_frames_ = 0;
  uint64_t expand_count_ = 0, expand_ns_ = 0, expand_ns_max_ = 0;
  uint64_t shrink_count_ = 0, shrink_ns_ = 0, shrink_ns_max_ = 0;
  uint64_t commit_ns_ = 0, release_ns_ = 0;
  Nanoseconds started_ = 0, last_expand_ = kNever, last_shrink_ = kNever;
  struct Tally {  // Frames of one consumer, or of all past ones.
    uint64_t published = 0, delivered = 0, dropped = 0, left = 0;
  } past_;

  friend struct Consumer;
};

/// CLOCK_MONOTONIC in nanoseconds.
Nanoseconds monotonic_now();

}  // namespace loopback
