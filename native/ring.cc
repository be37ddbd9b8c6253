#include "ring.h"

#include <time.h>

#include <algorithm>
#include <utility>

#include "ring_parties.h"

namespace loopback {

namespace {
// A claim that rests for so long does not count against other producers (spec section 2: an
// unfinished frame never starves them).
constexpr Nanoseconds kClaimRest = 100 * kMillisecond;
}  // namespace

Nanoseconds monotonic_now() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * kSecond + now.tv_nsec;
}

Ring::Ring(Setup setup) : setup_(std::move(setup)), slots_(setup_.allow_mapping) {
  sizeimage_ = setup_.sizeimage;
  started_ = last_housekeeping_ = setup_.now;
  slots_.set_frame_bytes(sizeimage_);
  parameters_ = setup_.parameters;
  if (parameters_.max == 0)
    parameters_.max = std::min<uint64_t>(256ull << 20, memory_total() / 8) / 4096 * 4096;
  min_written_ = parameters_.min != 0;
  mode_ = parameters_.dynamic ? Mode::kDynamic : Mode::kStatic;
  size_ = std::min(min_bytes(), parameters_.max);
  note_memory();
}

Ring::~Ring() {
  for (auto& consumer : consumers_) {
    if (consumer->reading != nullptr) unpin(consumer->reading);
  }
  while (oldest_ != nullptr) {
    oldest_->pins = 0;
    unlist(oldest_);
  }
  for (Frame* frame : spare_frames_) delete frame;
  for (auto& claim : claims_) slots_.put_back(claim->slot);
  for (Pending& pending : pending_) slots_.put_back(pending.slot);
  setup_.budget->set(&budget_part_, 0, 0);
}

ClaimAnswer Ring::room_for_claim(Producer* producer, size_t room, Nanoseconds now,
                                 Nanoseconds* retry_at) {
  *retry_at = kNever;
  if (mode_ == Mode::kStatic) return ClaimAnswer::kGranted;
  if (room > parameters_.max) return ClaimAnswer::kTooLarge;
  // Finished frames that wait for room go before new ones.
  publish_pending(now);
  const Nanoseconds waiting_since = std::min(producer->waiting_since, now);
  if (pending_.empty() && make_room(producer->own_consumer, waiting_since, room, now, retry_at))
    return ClaimAnswer::kGranted;
  // Growth was refused, and without it the frame will never fit.
  if (mode_ == Mode::kHeld && room > bound()) return ClaimAnswer::kNoMemory;
  producer->waiting_since = waiting_since;
  if (!pending_.empty()) *retry_at = now + 10 * kMillisecond;
  return ClaimAnswer::kFull;
}

ClaimAnswer Ring::claim(Producer* producer, size_t bytes, Nanoseconds now, Claim** claim,
                        Nanoseconds* retry_at) {
  std::lock_guard lock(mutex_);
  const size_t room = round_to_pages(bytes);
  const ClaimAnswer answer = room_for_claim(producer, room, now, retry_at);
  if (answer != ClaimAnswer::kGranted) return answer;
  bool mapped = false;
  const Nanoseconds before = monotonic_now();
  Slot* slot = slots_.acquire(bytes, &mapped);
  if (mapped) commit_ns_ += monotonic_now() - before;
  if (slot == nullptr) {
    if (used_ + claimed_ == 0) return ClaimAnswer::kNoMemory;
    if (mode_ == Mode::kDynamic)
      refuse_growth(slots_.in_use_bytes() + room, "the system refuses a mapping");
    if (producer->waiting_since == kNever) producer->waiting_since = now;
    *retry_at = now + 100 * kMillisecond;
    return ClaimAnswer::kFull;
  }
  producer->waiting_since = kNever;
  auto made = std::make_unique<Claim>();
  made->slot = slot;
  made->room = room;
  made->producer = producer;
  made->touched_ns = now;
  made->counted = true;
  claimed_ += room;
  low_peak_ = std::max(low_peak_, used_ + claimed_);
  *claim = made.get();
  claims_.push_back(std::move(made));
  return ClaimAnswer::kGranted;
}

bool Ring::has_room(Producer* producer, size_t bytes, Nanoseconds now, Nanoseconds* retry_at) {
  std::lock_guard lock(mutex_);
  return room_for_claim(producer, round_to_pages(bytes), now, retry_at) != ClaimAnswer::kFull;
}

Slot* Ring::exchange(Claim* claim, Slot* slot) {
  std::lock_guard lock(mutex_);
  slots_.exchange(claim->slot, slot);
  return std::exchange(claim->slot, slot);
}

void Ring::stop_claiming(Producer* producer) {
  std::lock_guard lock(mutex_);
  producer->waiting_since = kNever;
}

void Ring::touch(Claim* claim, size_t filled, Nanoseconds now) {
  std::lock_guard lock(mutex_);
  slots_.touch(claim->slot, filled);
  claim->touched_ns = now;
  if (!claim->counted && fits(claim->room)) {
    claim->counted = true;
    claimed_ += claim->room;
  }
}

void Ring::rest_idle_claims(Nanoseconds now) {
  for (auto& claim : claims_) {
    if (claim->counted && now - claim->touched_ns >= kClaimRest) {
      claim->counted = false;
      claimed_ -= claim->room;
    }
  }
}

void Ring::abort(Claim* claim, bool counts, Nanoseconds now) {
  std::lock_guard lock(mutex_);
  if (counts) ++aborted_frames_;
  if (claim->counted) claimed_ -= claim->room;
  slots_.put_back(claim->slot);
  claims_.remove_if([claim](const auto& each) { return each.get() == claim; });
  publish_pending(now);
  note_usage(now);
  want_housekeeping();
}

void Ring::count_aborted(uint64_t frames) {
  std::lock_guard lock(mutex_);
  aborted_frames_ += frames;
}

void Ring::publish(Claim* claim, size_t bytesused, const FrameTags& tags, Nanoseconds now) {
  std::lock_guard lock(mutex_);
  Slot* slot = claim->slot;
  slots_.touch(slot, bytesused);
  const bool counted = claim->counted;
  if (counted) claimed_ -= claim->room;
  Producer* producer = claim->producer;
  claims_.remove_if([claim](const auto& each) { return each.get() == claim; });
  // A producer's frames stay in order, also where it holds several claims.
  const bool must_wait = producer->pending > 0 || (!counted && !fits(round_to_pages(bytesused)));
  if (mode_ != Mode::kStatic && must_wait) {
    pending_.push_back({slot, bytesused, tags, producer->id, now});
    ++producer->pending;
    publish_pending(now);
    note_usage(now);
    return;
  }
  append(slot, bytesused, tags, producer->id, now);
}

bool Ring::has_pending() const {
  std::lock_guard lock(mutex_);
  return !pending_.empty();
}

void Ring::publish_pending(Nanoseconds now) {
  while (!pending_.empty()) {
    const Pending pending = pending_.front();
    if (mode_ != Mode::kStatic && !make_room_for_pending(pending, now)) return;
    pending_.pop_front();
    for (auto& producer : producers_) {
      if (producer->id == pending.producer) --producer->pending;
    }
    append(pending.slot, pending.bytesused, pending.tags, pending.producer, now);
  }
}

bool Ring::make_room_for_pending(const Pending& pending, Nanoseconds now) {
  const size_t room = round_to_pages(pending.bytesused);
  if (fits(room)) return true;
  if (mode_ == Mode::kDynamic) grow_to_fit(used_ + claimed_ + room, now);
  const Consumer* own = nullptr;
  for (auto& producer : producers_) {
    if (producer->id == pending.producer) own = producer->own_consumer;
  }
  // A max that was written after the claim may be too small for the frame: it then goes through
  // an empty ring, alone.
  Nanoseconds retry_at = kNever;
  if (!make_room(own, pending.waiting_since, std::min<uint64_t>(room, bound()), now, &retry_at))
    return false;
  size_ = std::max<uint64_t>(size_, used_ + claimed_ + room);
  return true;
}

void Ring::append(Slot* slot, size_t bytesused, const FrameTags& tags, uint64_t producer,
                  Nanoseconds now) {
  Frame* frame;
  if (spare_frames_.empty()) {
    frame = new Frame;
  } else {
    frame = spare_frames_.back();
    spare_frames_.pop_back();
    *frame = Frame();
  }
  frame->sequence = next_sequence_++;
  frame->published_ns = now;
  // A producer's own time is used while it is the only one and time does not go back.
  const bool own =
      tags.timestamp_ns > 0 && producers_.size() <= 1 && tags.timestamp_ns >= last_timestamp_ns_;
  frame->timestamp_ns = own ? tags.timestamp_ns : std::max<int64_t>(now, last_timestamp_ns_);
  last_timestamp_ns_ = frame->timestamp_ns;
  frame->bytesused = bytesused;
  frame->tags = tags;
  frame->slot = slot;
  frame->room = round_to_pages(bytesused);
  frame->producer = producer;
  frame->is_static = mode_ == Mode::kStatic;
  frame->listed = true;
  frame->counted = true;
  used_ += frame->room;
  frame->older = newest_;
  (newest_ != nullptr ? newest_->newer : oldest_) = frame;
  newest_ = frame;
  ++listed_;
  if (frame->is_static) ++static_listed_;
  ++published_frames_;
  published_bytes_ += bytesused;

  for (auto& consumer : consumers_) {
    ++consumer->tally.published;
    ++consumer->owed;
    consumer->owed_bytes += frame->room;
    ++frame->owed_by;
    if (consumer->cursor == nullptr) consumer->cursor = frame;
    if (consumer->waiting) {
      consumer->waiting = false;
      consumer->handed = true;
      pin_next(consumer.get(), now);
    }
  }
  advance();
  if (mode_ == Mode::kStatic) {
    drop_static_surplus();
  } else if (mode_ == Mode::kDynamic && size_ < parameters_.max &&
             used_ * 100 > parameters_.high_watermark * size_) {
    grow_to_fit(used_ * 100 / parameters_.high_watermark + 1, now);
  }
  note_usage(now);
}

// `max_buffers` bounds what a static ring holds; frames of a dynamic time before drain untouched.
void Ring::drop_static_surplus() {
  while (static_listed_ > parameters_.max_buffers) {
    Frame* victim = oldest_;
    while (!victim->is_static) victim = victim->newer;
    for (auto& consumer : consumers_) {
      if (consumer->cursor == nullptr || consumer->cursor->sequence > victim->sequence) continue;
      ++consumer->tally.dropped;
      dropped_bytes_ += victim->bytesused;
      --consumer->owed;
      consumer->owed_bytes -= victim->room;
      if (consumer->cursor == victim) consumer->cursor = victim->newer;
    }
    victim->owed_by = 0;
    unlist(victim);
  }
}

// Frames that nobody owes any more leave from the old end; the newest is kept for who joins, as
// long as its producer is at work.
void Ring::advance() {
  while (oldest_ != nullptr && oldest_->owed_by == 0) {
    if (oldest_ == newest_ && is_for_newcomers(oldest_)) {
      if (oldest_->counted) {
        oldest_->counted = false;
        used_ -= oldest_->room;
        read_position_ += oldest_->room;
      }
      return;
    }
    unlist(oldest_);
  }
}

void Ring::unlist(Frame* frame) {
  (frame->older != nullptr ? frame->older->newer : oldest_) = frame->newer;
  (frame->newer != nullptr ? frame->newer->older : newest_) = frame->older;
  frame->older = frame->newer = nullptr;
  frame->listed = false;
  --listed_;
  if (frame->is_static) --static_listed_;
  if (frame->counted) {
    frame->counted = false;
    used_ -= frame->room;
    read_position_ += frame->room;
  }
  if (frame->pins == 0) recycle(frame);
}

void Ring::recycle(Frame* frame) {
  slots_.put_back(frame->slot);
  spare_frames_.push_back(frame);
  if (slots_.cached_count() > 1) want_housekeeping();
}

void Ring::unpin(Frame* frame) {
  if (--frame->pins == 0 && !frame->listed) recycle(frame);
}

Frame* Ring::pin_next(Consumer* consumer, Nanoseconds now) {
  Frame* frame = consumer->cursor;
  consumer->cursor = frame->newer;
  --consumer->owed;
  consumer->owed_bytes -= frame->room;
  ++consumer->tally.delivered;
  delivered_bytes_ += frame->bytesused;
  consumer->lapped = false;
  consumer->last_taken = now;
  --frame->owed_by;
  ++frame->pins;
  consumer->reading = frame;
  return frame;
}

const Frame* Ring::take(Consumer* consumer, Nanoseconds now) {
  std::lock_guard lock(mutex_);
  if (consumer->handed) {
    consumer->handed = false;
    return consumer->reading;
  }
  if (consumer->reading != nullptr) {
    unpin(consumer->reading);
    consumer->reading = nullptr;
  }
  if (consumer->cursor == nullptr) {
    consumer->waiting = true;
    return nullptr;
  }
  consumer->waiting = false;
  pin_next(consumer, now);
  advance();
  publish_pending(now);
  note_usage(now);
  return consumer->reading;
}

void Ring::stop_waiting(Consumer* consumer) {
  std::lock_guard lock(mutex_);
  consumer->waiting = false;
}

void Ring::release(Consumer* consumer, Nanoseconds now) {
  std::lock_guard lock(mutex_);
  if (consumer->reading == nullptr || consumer->handed) return;
  unpin(consumer->reading);
  consumer->reading = nullptr;
  consumer->last_taken = now;
}

const Frame* Ring::hold(Consumer* consumer) {
  std::lock_guard lock(mutex_);
  ++consumer->reading->pins;
  return consumer->reading;
}

void Ring::let_go(const Frame* frame) {
  std::lock_guard lock(mutex_);
  unpin(const_cast<Frame*>(frame));  // Ours: const is for who reads it.
}

void Ring::touch(Consumer* consumer, Nanoseconds now) {
  std::lock_guard lock(mutex_);
  consumer->last_taken = now;
}

bool Ring::readable(const Consumer* consumer) const {
  std::lock_guard lock(mutex_);
  return consumer->handed || consumer->cursor != nullptr;
}

const Frame* Ring::repeat(Consumer* consumer, Nanoseconds now) {
  std::lock_guard lock(mutex_);
  if (consumer->cursor != nullptr || consumer->handed || newest_ == nullptr) return nullptr;
  if (consumer->reading != nullptr) unpin(consumer->reading);
  consumer->reading = newest_;
  ++newest_->pins;
  consumer->waiting = false;
  consumer->last_taken = now;
  ++consumer->tally.published;
  ++consumer->tally.delivered;
  delivered_bytes_ += newest_->bytesused;
  return newest_;
}

void Ring::count_substitute(Consumer* consumer, size_t bytes, Nanoseconds now) {
  std::lock_guard lock(mutex_);
  consumer->waiting = false;
  consumer->last_taken = now;
  ++consumer->tally.published;
  ++consumer->tally.delivered;
  delivered_bytes_ += bytes;
}

}  // namespace loopback
