// What the ring made of a step, and what must hold after every one.
#include <algorithm>

#include "check.h"
#include "ring_model.h"

namespace model {

// Takes over what only the ring can decide, if it was allowed to.
void RingModel::learn() {
  const RingCounters counters = ring_->counters(now_);
  // Growth was refused: dynamic buffering then reads 0.
  if (dynamic_ && !ring_->parameters().dynamic) {
    CHECK(refused_now_);
    CHECK(memory_refused_);
    dynamic_ = false;
    held_ = true;
    ++refusals;
  }
  // Frames join a queue at its end and are lost from its front, so it does not matter which of
  // the two was first.
  learn_publications(counters);
  learn_laps();
  advance();
  learn_size(counters);
}

void RingModel::learn_laps() {
  for (ModelConsumer& consumer : consumers_) {
    const uint64_t dropped = report_of(consumer.id).dropped;
    CHECK(dropped >= consumer.dropped);
    const uint64_t lost = dropped - consumer.dropped;
    if (lost == 0) continue;
    CHECK(!is_static());
    CHECK(lost <= consumer.owed.size());
    CHECK(parameters_.overflow == Overflow::kDrop || consumer.lapped || may_lap(consumer));
    for (uint64_t i = 0; i < lost; ++i) drop_front(consumer);
    consumer.lapped = true;
    frames_dropped += lost;
  }
}

// Whether somebody who waits for room has waited for this consumer long enough.
bool RingModel::may_lap(const ModelConsumer& consumer) const {
  return std::any_of(waits_.begin(), waits_.end(), [&](const Wait& wait) {
    if (wait.own_consumer == consumer.id) return true;
    const Nanoseconds since = std::max(wait.since, consumer.last_taken);
    return parameters_.stall_timeout_ms != 0 &&
           now_ - since >= parameters_.stall_timeout_ms * kMillisecond;
  });
}

void RingModel::learn_publications(const RingCounters& counters) {
  CHECK(counters.published_frames >= published_frames_);
  uint64_t count = counters.published_frames - published_frames_;
  std::optional<ModelFrame> own = std::exchange(own_publish_, std::nullopt);
  if (own && count == 1 && counters.published_bytes - published_bytes_ == own->bytes) {
    published(*own);
    own.reset();
    count = 0;
  }
  if (own) {
    ++deferred;
    own->deferred_at = now_;
    pending_.push_back(*own);
  }
  for (; count > 0; --count) {
    CHECK(!pending_.empty());
    const ModelFrame frame = pending_.front();
    pending_.pop_front();
    published(frame);
  }
  CHECK_EQ(counters.published_bytes, published_bytes_);
  if (is_static()) CHECK_EQ(pending_.size(), 0u);
}

void RingModel::published(ModelFrame frame) {
  published_now_ = true;
  // It waited for an empty ring, and went through it alone.
  if (frame.room() > std::min(size_, parameters_.max)) oversized_now_ = true;
  frame.sequence = next_sequence_++;
  frame.is_static = is_static();
  frame.published_at = now_;
  // A producer's own time counts while it is the only one and time does not go back.
  const bool own =
      frame.own_timestamp > 0 && producers_.size() <= 1 && frame.own_timestamp >= last_timestamp_;
  frame.timestamp = own ? frame.own_timestamp : std::max(now_, last_timestamp_);
  last_timestamp_ = frame.timestamp;
  ++published_frames_;
  published_bytes_ += frame.bytes;
  frames_.push_back(frame);
  for (ModelConsumer& consumer : consumers_) {
    ++consumer.published;
    if (consumer.waiting) {
      consumer.waiting = false;
      consumer.handed = frame;
      count_delivery(consumer, frame);
    } else {
      consumer.owed.push_back(frame);
    }
  }
  advance();
  if (frame.is_static) drop_static_surplus();
}

void RingModel::drop_static_surplus() {
  const auto is_static = [](const ModelFrame& frame) { return frame.is_static; };
  while (std::count_if(frames_.begin(), frames_.end(), is_static) >
         static_cast<long>(parameters_.max_buffers)) {
    const auto victim = std::find_if(frames_.begin(), frames_.end(), is_static);
    const uint64_t sequence = victim->sequence;
    for (ModelConsumer& consumer : consumers_) {
      const auto owed =
          std::find_if(consumer.owed.begin(), consumer.owed.end(),
                       [&](const ModelFrame& frame) { return frame.sequence == sequence; });
      if (owed == consumer.owed.end()) continue;
      ++consumer.dropped;
      dropped_bytes_ += owed->bytes;
      consumer.owed.erase(owed);
      ++frames_dropped;
    }
    frames_.erase(victim);
  }
}

void RingModel::drop_front(ModelConsumer& consumer) {
  ++consumer.dropped;
  dropped_bytes_ += consumer.owed.front().bytes;
  consumer.owed.pop_front();
}

void RingModel::count_delivery(ModelConsumer& consumer, const ModelFrame& frame) {
  ++consumer.delivered;
  delivered_bytes_ += frame.bytes;
  consumer.last_taken = now_;
  consumer.lapped = false;
}

// Frames that nobody owes leave; the newest is kept for who joins.
void RingModel::advance() {
  while (!frames_.empty() && !is_owed(frames_.front())) {
    const ModelFrame& frame = frames_.front();
    if (frames_.size() == 1 && at_work(frame.producer) && frame.sequence >= format_since_) return;
    frames_.pop_front();
  }
}

void RingModel::learn_size(const RingCounters& counters) {
  const uint64_t grew = counters.expand_count - expand_count_;
  const uint64_t shrank = counters.shrink_count - shrink_count_;
  CHECK(counters.expand_count >= expand_count_);
  CHECK(counters.shrink_count >= shrink_count_);
  if (!is_static() && !was_static_ && !resize_by_hand_ && !oversized_now_ &&
      size_ <= parameters_.max) {
    uint64_t size = size_;
    if (shrank > 0) {
      CHECK(may_shrink_);
      CHECK_EQ(shrank, 1u);
      CHECK(now_ - low_since_ >= parameters_.shrink_delay_ms * kMillisecond);
      size = std::max(size / 2, parameters_.min);
    }
    for (uint64_t i = 0; i < grew; ++i) size = std::min(size * 2, parameters_.max);
    CHECK_EQ(counters.size, size);
  }
  // Each takes time, and it is known when the last one was.
  CHECK(counters.expand_ns >= counters.expand_count);
  CHECK(counters.shrink_ns >= counters.shrink_count);
  CHECK_EQ(counters.last_expand_ms >= 0, counters.expand_count > 0);
  CHECK_EQ(counters.last_shrink_ms >= 0, counters.shrink_count > 0);
  growths += grew;
  shrinks += shrank;
  expand_count_ = counters.expand_count;
  shrink_count_ = counters.shrink_count;
  size_ = counters.size;
  was_static_ = is_static();
  if (grew + shrank > 0 || counters.used * 100 > parameters_.low_watermark * counters.size)
    low_since_ = now_;
}

void RingModel::check() {
  const RingCounters counters = ring_->counters(now_);
  uint64_t slowest = 0, owed = 0, stalled = 0;
  for (const ModelConsumer& consumer : consumers_) {
    slowest = std::max(slowest, consumer.owed_bytes());
    owed += consumer.owed.size();
    if (consumer.lapped) ++stalled;
  }
  CHECK_EQ(counters.used, slowest);
  CHECK_EQ(counters.owed_frames, owed);
  CHECK_EQ(counters.held_frames, frames_.size());
  CHECK_EQ(counters.delivered_bytes, delivered_bytes_);
  CHECK_EQ(counters.dropped_bytes, dropped_bytes_);
  CHECK_EQ(counters.aborted_frames, aborted_);
  CHECK_EQ(counters.producers, producers_.size());
  CHECK_EQ(counters.consumers, consumers_.size());
  CHECK_EQ(counters.stalled_consumers, stalled);
  CHECK_EQ(ring_->producers(), producers_.size());
  CHECK_EQ(ring_->parameters().dynamic, dynamic_);
  CHECK_EQ(ring_->has_newest(), !frames_.empty());
  check_law(counters);
  if (is_static()) {
    CHECK_EQ(counters.size, parameters_.max_buffers * pages(sizeimage_));
    return;
  }
  CHECK(counters.used + counted_claims() <= counters.size);
  CHECK(counters.size <= std::max(parameters_.max, counters.used + all_claims()));
  CHECK(counters.size >= std::min(parameters_.min, parameters_.max));
  CHECK(counters.read_offset < counters.size);
  CHECK(counters.write_offset < counters.size);
  CHECK_EQ((counters.write_offset + counters.size - counters.read_offset) % counters.size,
           counters.used % counters.size);
  if (dynamic_ && published_now_ && counters.size < parameters_.max) {
    CHECK(counters.used * 100 <= parameters_.high_watermark * counters.size);
  }
}

void RingModel::check_law(const RingCounters& counters) {
  const std::vector<ConsumerReport> rows = ring_->consumer_reports(now_);
  CHECK_EQ(rows.size(), consumers_.size() + 1);
  const ConsumerReport& total = rows.back();
  CHECK_EQ(total.command, "total");
  ConsumerReport sum{0, "", past_published_, past_delivered_, past_dropped_, 0, past_left_, 0, 0};
  for (size_t i = 0; i < consumers_.size(); ++i) {
    const ModelConsumer& consumer = consumers_[i];
    const ConsumerReport& row = rows[i];
    const check::Scope scope("consumer " + std::to_string(consumer.id));
    CHECK_EQ(row.pid, consumer.id);
    CHECK_EQ(row.published, consumer.published);
    CHECK_EQ(row.delivered, consumer.delivered);
    CHECK_EQ(row.dropped, consumer.dropped);
    CHECK_EQ(row.owed, consumer.owed.size());
    CHECK_EQ(row.left, 0u);
    CHECK_EQ(row.owed_bytes, consumer.owed_bytes());
    CHECK_EQ(row.published, row.delivered + row.dropped + row.owed + row.left);
    const Nanoseconds lag = consumer.owed.empty() ? 0 : now_ - consumer.owed.front().published_at;
    CHECK_EQ(row.lag_ms, lag / kMillisecond);
    sum.published += row.published;
    sum.delivered += row.delivered;
    sum.dropped += row.dropped;
    sum.owed += row.owed;
    sum.owed_bytes += row.owed_bytes;
    sum.lag_ms = std::max(sum.lag_ms, row.lag_ms);
  }
  CHECK_EQ(total.published, sum.published);
  CHECK_EQ(total.delivered, sum.delivered);
  CHECK_EQ(total.dropped, sum.dropped);
  CHECK_EQ(total.owed, sum.owed);
  CHECK_EQ(total.left, sum.left);
  CHECK_EQ(total.owed_bytes, sum.owed_bytes);
  CHECK_EQ(total.lag_ms, sum.lag_ms);
  CHECK_EQ(total.published, total.delivered + total.dropped + total.owed + total.left);
  CHECK_EQ(counters.delivered_frames, total.delivered);
  CHECK_EQ(counters.dropped_frames, total.dropped);
  CHECK_EQ(counters.left_frames, total.left);
}

ConsumerReport RingModel::report_of(int id) const {
  for (const ConsumerReport& row : ring_->consumer_reports(now_)) {
    if (row.pid == id) return row;
  }
  check::fail(__FILE__, __LINE__, "no row for consumer " + std::to_string(id));
}

bool RingModel::is_owed(const ModelFrame& frame) const {
  return std::any_of(consumers_.begin(), consumers_.end(), [&](const ModelConsumer& consumer) {
    return !consumer.owed.empty() && consumer.owed.front().sequence <= frame.sequence;
  });
}

const ModelProducer* RingModel::find_producer(int id) const {
  const auto found = std::find_if(producers_.begin(), producers_.end(),
                                  [&](const ModelProducer& each) { return each.id == id; });
  return found == producers_.end() ? nullptr : &*found;
}

uint64_t RingModel::all_claims() const {
  uint64_t bytes = 0;
  for (const ModelProducer& producer : producers_) {
    for (const ModelClaim& claim : producer.claims) bytes += claim.room;
  }
  return bytes;
}

uint64_t RingModel::counted_claims() const {
  uint64_t bytes = 0;
  for (const ModelProducer& producer : producers_) {
    for (const ModelClaim& claim : producer.claims) {
      if (claim.surely_counted && now_ - claim.touched < 100 * kMillisecond) bytes += claim.room;
    }
  }
  return bytes;
}

}  // namespace model
