// Who takes part in a ring, and who is lapped.
#include "ring_parties.h"

#include <algorithm>

namespace loopback {

Producer* Ring::join_producer(Label label, Nanoseconds) {
  std::lock_guard lock(mutex_);
  if (mode_ == Mode::kStatic && !producers_.empty()) return nullptr;
  auto made = std::make_unique<Producer>();
  made->id = next_producer_++;
  made->label = std::move(label);
  Producer* producer = made.get();
  producers_.push_back(std::move(made));
  return producer;
}

void Ring::leave_producer(Producer* producer, Nanoseconds now) {
  std::lock_guard lock(mutex_);
  producers_.remove_if([producer](const auto& each) { return each.get() == producer; });
  // The next producer's clock may be another: one that ran ahead of ours must not freeze time, and
  // one that runs behind must not turn it back.
  if (producers_.empty()) last_timestamp_ns_ = std::min(last_timestamp_ns_, now);
  advance();
  publish_pending(now);
  note_usage(now);
  want_housekeeping();
}

void Ring::set_own_consumer(Producer* producer, Consumer* consumer) {
  std::lock_guard lock(mutex_);
  producer->own_consumer = consumer;
}

bool Ring::producer_at_work(uint64_t id) const {
  return std::any_of(producers_.begin(), producers_.end(),
                     [id](const auto& producer) { return producer->id == id; });
}

// A picture shows at once, but none of a producer that has gone, nor of another format.
bool Ring::is_for_newcomers(const Frame* frame) const {
  return frame->sequence >= format_since_ && producer_at_work(frame->producer);
}

// While nobody owed it, its room may have been claimed. Then a newer frame is on its way.
bool Ring::make_room_for_newest(Nanoseconds now) {
  if (newest_->counted || mode_ == Mode::kStatic || fits(newest_->room)) return true;
  if (mode_ == Mode::kDynamic) grow_to_fit(used_ + claimed_ + newest_->room, now);
  if (!fits(newest_->room)) rest_idle_claims(now);
  return fits(newest_->room);
}

Consumer* Ring::join_consumer(Label label, Nanoseconds now) {
  std::lock_guard lock(mutex_);
  auto made = std::make_unique<Consumer>();
  Consumer* consumer = made.get();
  consumer->label = std::move(label);
  consumer->last_taken = now;
  consumer->first_sequence = next_sequence_;
  consumers_.push_back(std::move(made));
  if (newest_ != nullptr && is_for_newcomers(newest_) && make_room_for_newest(now)) {
    consumer->cursor = newest_;
    consumer->first_sequence = newest_->sequence;
    consumer->owed = consumer->tally.published = 1;
    consumer->owed_bytes = newest_->room;
    ++newest_->owed_by;
    if (!newest_->counted) {
      newest_->counted = true;
      used_ += newest_->room;
      read_position_ = (read_position_ % size_ + size_ - newest_->room % size_) % size_;
    }
    note_usage(now);
  }
  return consumer;
}

void Ring::leave_consumer(Consumer* consumer, Nanoseconds now) {
  std::lock_guard lock(mutex_);
  if (consumer->handed) {
    // It was handed a frame that it never came for.
    --consumer->tally.delivered;
    delivered_bytes_ -= consumer->reading->bytesused;
    ++consumer->tally.left;
  }
  if (consumer->reading != nullptr) unpin(consumer->reading);
  for (Frame* frame = consumer->cursor; frame != nullptr; frame = frame->newer) --frame->owed_by;
  past_.published += consumer->tally.published;
  past_.delivered += consumer->tally.delivered;
  past_.dropped += consumer->tally.dropped;
  past_.left += consumer->tally.left + consumer->owed;
  for (auto& producer : producers_) {
    if (producer->own_consumer == consumer) producer->own_consumer = nullptr;
  }
  consumers_.remove_if([consumer](const auto& each) { return each.get() == consumer; });
  advance();
  publish_pending(now);
  note_usage(now);
  want_housekeeping();
}

uint32_t Ring::producers() const {
  std::lock_guard lock(mutex_);
  return static_cast<uint32_t>(producers_.size());
}

uint32_t Ring::consumers() const {
  std::lock_guard lock(mutex_);
  return static_cast<uint32_t>(consumers_.size());
}

uint64_t Ring::first_sequence(const Consumer* consumer) const {
  std::lock_guard lock(mutex_);
  return consumer->first_sequence;
}

bool Ring::has_newest() const {
  std::lock_guard lock(mutex_);
  return newest_ != nullptr;
}

// Room at the price of growth first, of resting claims next, of stalled consumers last.
bool Ring::make_room(const Consumer* own, Nanoseconds waiting_since, size_t room, Nanoseconds now,
                     Nanoseconds* retry_at) {
  if (fits(room)) return true;
  if (mode_ == Mode::kDynamic) {
    grow_to_fit(used_ + claimed_ + room, now);
    if (fits(room)) return true;
  }
  // Growth was refused, and without it the frame will never fit: nobody is lapped for it.
  if (room > bound()) return false;
  rest_idle_claims(now);
  while (!fits(room)) {
    if (!lap_slowest(own, waiting_since, room, now, retry_at)) break;
  }
  note_usage(now);
  if (fits(room)) return true;
  // A claim that comes to rest makes room as well.
  for (auto& claim : claims_) {
    if (claim->counted) *retry_at = std::min(*retry_at, claim->touched_ns + kSecond / 10);
  }
  return false;
}

// The consumers that owe the oldest frame hold the room; all of them must have stalled.
bool Ring::lap_slowest(const Consumer* own, Nanoseconds waiting_since, size_t room, Nanoseconds now,
                       Nanoseconds* retry_at) {
  if (oldest_ == nullptr || oldest_->owed_by == 0) return false;
  const Nanoseconds timeout = parameters_.stall_timeout_ms * kMillisecond;
  for (auto& consumer : consumers_) {
    if (consumer->cursor != oldest_ || consumer.get() == own) continue;
    if (parameters_.overflow == Overflow::kDrop || consumer->lapped) continue;
    if (parameters_.stall_timeout_ms == 0) return false;
    const Nanoseconds due = std::max(waiting_since, consumer->last_taken) + timeout;
    if (now < due) {
      // The last of them decides.
      *retry_at = *retry_at == kNever ? due : std::max(*retry_at, due);
    }
  }
  if (*retry_at != kNever) return false;
  Frame* held = oldest_;
  for (auto& consumer : consumers_) {
    if (consumer->cursor == held) lap(consumer.get(), room, !consumer->lapped);
  }
  advance();
  return true;
}

void Ring::lap(Consumer* consumer, size_t room, bool log) {
  const uint64_t before = consumer->tally.dropped;
  const auto drop_one = [&] {
    Frame* frame = consumer->cursor;
    consumer->cursor = frame->newer;
    --frame->owed_by;
    --consumer->owed;
    consumer->owed_bytes -= frame->room;
    ++consumer->tally.dropped;
    dropped_bytes_ += frame->bytesused;
  };
  if (parameters_.lap == Lap::kNewest) {
    // Where even the newest leaves no room, it goes too: the frame to come is newer.
    const bool keep_newest = claimed_ + newest_->room + room <= bound();
    while (consumer->cursor != nullptr && (consumer->cursor != newest_ || !keep_newest)) drop_one();
  } else {
    size_t kept = consumer->owed_bytes;
    while (consumer->cursor != nullptr && claimed_ + kept + room > bound()) {
      kept -= consumer->cursor->room;
      drop_one();
    }
  }
  consumer->lapped = true;
  if (log) {
    emit(RingEvent::Kind::kLapped,
         "consumer " + consumer->label.command + " (pid " + std::to_string(consumer->label.pid) +
             ") was lapped: it lost " + std::to_string(consumer->tally.dropped - before) +
             " frames");
  }
}

}  // namespace loopback
