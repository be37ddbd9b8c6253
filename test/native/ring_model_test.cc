// Random sequences of everything that can be done to a ring, against a model that is too simple to
// be wrong: each consumer has a queue of the frames that it is owed.
//
// The model does not foretell when the ring laps a consumer or changes its size. It lets the ring
// decide, and then checks that the decision was allowed: what was lost went from the front of the
// queue and was counted, the size doubled or halved for a reason.
#include <algorithm>
#include <cstdio>
#include <cstring>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "check.h"
#include "ring.h"

using namespace loopback;

namespace {

constexpr uint64_t kPage = 4096;

uint64_t pages(uint64_t bytes) { return (bytes + kPage - 1) / kPage * kPage; }

struct ModelFrame {
  uint64_t sequence = 0;
  uint64_t bytes = 0;
  uint64_t content = 0;  // What its bytes were made of.
  int producer = 0;
  uint64_t turn = 0;  // Counts the producer's frames.
  bool is_static = false;
  Nanoseconds deferred_at = 0;
  uint64_t room() const { return pages(bytes); }
};

struct ModelConsumer {
  Consumer* ring_side = nullptr;
  int id = 0;
  std::deque<ModelFrame> owed;
  std::optional<ModelFrame> reading;
  const Frame* reading_ring_side = nullptr;
  std::optional<ModelFrame> handed;
  bool waiting = false;
  uint64_t published = 0, delivered = 0, dropped = 0;
  Nanoseconds last_taken = 0;
  bool lapped = false;
};

struct ModelClaim {
  Claim* ring_side = nullptr;
  ModelFrame frame;
  uint64_t room = 0;
  Nanoseconds touched = 0;
  // It has never rested so long that its room may have been given to another.
  bool surely_counted = true;
};

struct ModelProducer {
  Producer* ring_side = nullptr;
  int id = 0;
  int own_consumer = 0;
  uint64_t next_turn = 0;
  Nanoseconds waiting_since = kNever;
  std::vector<ModelClaim> claims;
  // A claim that is granted ends the wait; the wait that led to it is what counts.
  Nanoseconds waited_since = 0;
};

uint64_t content_byte(uint64_t content, uint64_t at) {
  return (content * 0x9e3779b97f4a7c15u + at * 0x2545f4914f6cdd1du) >> 56;
}

void fill(uint8_t* data, const ModelFrame& frame) {
  for (uint64_t at = 0; at < frame.bytes; at += 61) data[at] = content_byte(frame.content, at);
  data[frame.bytes - 1] = content_byte(frame.content, frame.bytes - 1);
}

void check_content(const uint8_t* data, const ModelFrame& frame) {
  for (uint64_t at = 0; at < frame.bytes; at += 61) {
    if (data[at] != content_byte(frame.content, at)) {
      CHECK_EQ("byte " + std::to_string(at) + " of frame " + std::to_string(frame.sequence),
               "as it was published");
    }
  }
  CHECK_EQ(uint64_t{data[frame.bytes - 1]}, content_byte(frame.content, frame.bytes - 1));
}

class RingModel {
 public:
  explicit RingModel(uint64_t seed) : random_(seed) {
    parameters_.dynamic = chance(60);
    parameters_.max_buffers = pick(1, 4);
    parameters_.max = 64 * kPage;
    parameters_.shrink_delay_ms = 1000;
    parameters_.stall_timeout_ms = 300;
    sizeimage_ = 4 * kPage;
    now_ = 1000 * kSecond;
    Ring::Setup setup;
    setup.sizeimage = sizeimage_;
    setup.parameters = parameters_;
    setup.now = now_;
    setup.wake_housekeeper = [] {};
    setup.observe = [this](const RingEvent& event) {
      if (event.kind == RingEvent::Kind::kRefused) refused_now_ = true;
    };
    setup.budget = std::make_shared<MemoryBudget>([this] {
      return Headroom{memory_is_short_ ? 0 : uint64_t{1} << 40, "a test"};
    });
    setup.allow_mapping = [this](size_t) {
      if (!memory_is_short_ || chance(50)) return true;
      mapping_refused_ = true;
      return false;
    };
    ring_ = std::make_unique<Ring>(std::move(setup));
    parameters_ = ring_->parameters();
    dynamic_ = parameters_.dynamic;
    was_static_ = !dynamic_;
    size_ = ring_->counters(now_).size;
    low_since_ = now_;
  }

  void step() {
    refused_now_ = mapping_refused_ = oversized_now_ = published_now_ = false;
    resize_by_hand_ = may_shrink_ = false;
    waits_.clear();
    for (const ModelFrame& frame : pending_) {
      const ModelProducer* producer = find_producer(frame.producer);
      waits_.push_back({frame.deferred_at, producer != nullptr ? producer->own_consumer : 0});
    }
    const uint64_t choice = pick(0, 99);
    if (choice < 22)
      claim();
    else if (choice < 44)
      publish();
    else if (choice < 64)
      take();
    else if (choice < 67)
      release();
    else if (choice < 69)
      touch();
    else if (choice < 71)
      abort();
    else if (choice < 74)
      join_consumer();
    else if (choice < 76)
      leave_consumer();
    else if (choice < 79)
      join_producer();
    else if (choice < 81)
      leave_producer();
    else if (choice < 84)
      change_parameters();
    else if (choice < 86)
      switch_mode();
    else if (choice < 87)
      change_format();
    else if (choice < 88)
      reset();
    else if (choice < 90)
      tick();
    else if (choice < 91)
      repeat();
    else if (choice < 92)
      substitute();
    else if (choice < 93)
      exchange();
    else if (choice < 94)
      memory_is_short_ = chance(30);
    else if (choice < 95)
      stop_waiting();
    else if (choice < 96)
      rest();
    else
      pass_time();
    learn();
    check();
  }

  std::string last() const { return last_; }

  // Everything leaves: what is in the ring must be gone, and the law hold for good.
  void finish() {
    for (auto& producer : producers_) {
      for (ModelClaim& claim : producer.claims) ring_->abort(claim.ring_side, false, now_);
      producer.claims.clear();
    }
    learn();
    while (!consumers_.empty()) {
      leave_consumer();
      learn();
      check();
    }
    while (!producers_.empty()) {
      leave_producer();
      learn();
      check();
    }
    const RingCounters counters = ring_->counters(now_);
    CHECK_EQ(counters.used, 0u);
    CHECK_EQ(counters.held_frames, 0u);
    CHECK_EQ(pending_.size(), 0u);
  }

  uint64_t frames_delivered = 0, frames_dropped = 0, growths = 0, shrinks = 0, deferred = 0,
           refusals = 0;

 private:
  // --- chance

  uint64_t pick(uint64_t low, uint64_t high) {
    return std::uniform_int_distribution<uint64_t>(low, high)(random_);
  }
  bool chance(uint64_t percent) { return pick(0, 99) < percent; }
  template <typename T>
  T* any(std::vector<T>& of) {
    return of.empty() ? nullptr : &of[pick(0, of.size() - 1)];
  }

  // --- what can be done

  void join_producer() {
    last_ = "join_producer";
    if (producers_.size() >= 4) return;
    ModelProducer producer;
    producer.id = next_id_++;
    producer.ring_side = ring_->join_producer({producer.id, "producer"}, now_);
    const bool is_static = !dynamic_ && !held_;
    CHECK_EQ(producer.ring_side == nullptr, is_static && !producers_.empty());
    if (producer.ring_side == nullptr) return;
    if (chance(20) && !consumers_.empty()) {
      const ModelConsumer* own = any(consumers_);
      producer.own_consumer = own->id;
      ring_->set_own_consumer(producer.ring_side, own->ring_side);
    }
    producers_.push_back(producer);
  }

  void leave_producer() {
    last_ = "leave_producer";
    ModelProducer* producer = any(producers_);
    if (producer == nullptr || !producer->claims.empty()) return;
    ring_->leave_producer(producer->ring_side, now_);
    producers_.erase(producers_.begin() + (producer - producers_.data()));
  }

  void join_consumer() {
    last_ = "join_consumer";
    if (consumers_.size() >= 4) return;
    ModelConsumer consumer;
    consumer.id = next_id_++;
    consumer.ring_side = ring_->join_consumer({consumer.id, "consumer"}, now_);
    consumer.last_taken = now_;
    const bool starts_with_newest = !frames_.empty() && at_work(frames_.back().producer) &&
                                    frames_.back().sequence >= format_since_;
    const ConsumerReport report = report_of(consumer.id);
    if (starts_with_newest && report.owed == 0 && !is_owed(frames_.back())) {
      // Allowed only where claims have taken all the room.
      CHECK(dynamic_ || held_);
      CHECK(all_claims() + frames_.back().room() >
            std::min(ring_->counters(now_).size, parameters_.max));
    } else if (starts_with_newest) {
      consumer.owed.push_back(frames_.back());
      consumer.published = 1;
    }
    CHECK_EQ(ring_->first_sequence(consumer.ring_side),
             consumer.owed.empty() ? next_sequence_ : frames_.back().sequence);
    consumers_.push_back(consumer);
  }

  void leave_consumer() {
    last_ = "leave_consumer";
    ModelConsumer* consumer = any(consumers_);
    if (consumer == nullptr) return;
    check_reading(*consumer);
    past_published_ += consumer->published;
    past_delivered_ += consumer->delivered;
    past_dropped_ += consumer->dropped;
    past_left_ += consumer->owed.size();
    if (consumer->handed) {
      --past_delivered_;
      ++past_left_;
      delivered_bytes_ -= consumer->handed->bytes;
    }
    for (ModelProducer& producer : producers_) {
      if (producer.own_consumer == consumer->id) producer.own_consumer = 0;
    }
    ring_->leave_consumer(consumer->ring_side, now_);
    consumers_.erase(consumers_.begin() + (consumer - consumers_.data()));
  }

  void claim() {
    last_ = "claim";
    ModelProducer* producer = any(producers_);
    if (producer == nullptr || producer->claims.size() >= 2) return;
    const uint64_t room_bytes = chance(5) ? pick(1, 80 * kPage) : pick(1, 2 * sizeimage_);
    const bool behind = !pending_.empty();
    producer->waited_since = std::min(producer->waiting_since, now_);
    Claim* claim = nullptr;
    Nanoseconds retry_at = 0;
    waits_.push_back({producer->waited_since, producer->own_consumer});
    const bool asked = chance(30);
    const bool has_room =
        asked && ring_->has_room(producer->ring_side, room_bytes, now_, &retry_at);
    const ClaimAnswer answer =
        ring_->claim(producer->ring_side, room_bytes, now_, &claim, &retry_at);
    const RingCounters counters = ring_->counters(now_);
    const uint64_t bound = std::min(counters.size, parameters_.max);
    const bool is_static = !dynamic_ && !held_;
    if (asked && !mapping_refused_) CHECK_EQ(answer == ClaimAnswer::kFull, !has_room);
    switch (answer) {
      case ClaimAnswer::kGranted: {
        producer->waiting_since = kNever;
        CHECK(claim != nullptr);
        CHECK(claim->capacity() >= room_bytes);
        ModelClaim made;
        made.ring_side = claim;
        made.room = pages(room_bytes);
        made.touched = now_;
        made.frame.bytes = unused_length(room_bytes);
        made.frame.content = random_();
        made.frame.producer = producer->id;
        made.frame.turn = producer->next_turn++;
        fill(claim->data(), made.frame);
        producer->claims.push_back(made);
        break;
      }
      case ClaimAnswer::kTooLarge:
        CHECK(!is_static);
        CHECK(pages(room_bytes) > parameters_.max);
        break;
      case ClaimAnswer::kNoMemory:
        CHECK(mapping_refused_ || pages(room_bytes) > bound);
        break;
      case ClaimAnswer::kFull:
        producer->waiting_since = producer->waited_since;
        if (mapping_refused_ || behind) break;
        CHECK(!is_static);
        CHECK(counters.used + all_claims() + pages(room_bytes) > bound);
        CHECK(counters.size >= parameters_.max || !ring_->parameters().dynamic);
        CHECK(retry_at > now_);
        // Somebody must be able to make the room.
        CHECK(counters.used + all_claims() > 0);
        if (parameters_.overflow == Overflow::kDrop && bound >= pages(room_bytes)) {
          CHECK(all_claims() + pages(room_bytes) > bound);
        }
        break;
    }
  }

  void publish() {
    last_ = "publish";
    ModelProducer* producer = any(producers_);
    if (producer == nullptr || producer->claims.empty()) return;
    const ModelClaim claim = producer->claims.front();
    producer->claims.erase(producer->claims.begin());
    check_content(claim.ring_side->data(), claim.frame);
    FrameTags tags;
    if (chance(50)) tags.timestamp_ns = now_ - static_cast<int64_t>(pick(0, kSecond));
    own_publish_ = claim.frame;
    waits_.push_back({now_, producer->own_consumer});
    ring_->publish(claim.ring_side, claim.frame.bytes, tags, now_);
  }

  void abort() {
    last_ = "abort";
    ModelProducer* producer = any(producers_);
    if (producer == nullptr || producer->claims.empty()) return;
    const bool counts = chance(50);
    if (counts) ++aborted_;
    const size_t which = pick(0, producer->claims.size() - 1);
    ring_->abort(producer->claims[which].ring_side, counts, now_);
    producer->claims.erase(producer->claims.begin() + static_cast<long>(which));
  }

  void touch() {
    last_ = "touch";
    if (ModelProducer* producer = any(producers_); producer != nullptr && chance(60)) {
      for (ModelClaim& claim : producer->claims) {
        if (now_ - claim.touched >= 100 * kMillisecond) claim.surely_counted = false;
        claim.touched = now_;
        ring_->touch(claim.ring_side, claim.frame.bytes, now_);
      }
    } else if (ModelConsumer* consumer = any(consumers_)) {
      consumer->last_taken = now_;
      ring_->touch(consumer->ring_side, now_);
    }
  }

  void take() {
    last_ = "take";
    ModelConsumer* consumer = any(consumers_);
    if (consumer != nullptr) take_from(*consumer);
  }

  void take_from(ModelConsumer& of) {
    ModelConsumer* consumer = &of;
    check_reading(*consumer);
    CHECK_EQ(ring_->readable(consumer->ring_side),
             consumer->handed.has_value() || !consumer->owed.empty());
    const Frame* frame = ring_->take(consumer->ring_side, now_);
    consumer->reading.reset();
    if (consumer->handed) {
      consumer->reading = consumer->handed;
      consumer->handed.reset();
    } else if (!consumer->owed.empty()) {
      consumer->reading = consumer->owed.front();
      consumer->owed.pop_front();
      count_delivery(*consumer, *consumer->reading);
    } else {
      consumer->waiting = true;
      CHECK_EQ(frame, nullptr);
      return;
    }
    CHECK(frame != nullptr);
    consumer->reading_ring_side = frame;
    CHECK_EQ(frame->sequence, consumer->reading->sequence);
    CHECK_EQ(frame->bytesused, consumer->reading->bytes);
    check_reading(*consumer);
    // Frames of one producer are never overtaken by its later ones.
    uint64_t& seen = turns_[{consumer->id, consumer->reading->producer}];
    CHECK(consumer->reading->turn + 1 > seen);
    seen = consumer->reading->turn + 1;
    int64_t& time = times_[consumer->id];
    CHECK(frame->timestamp_ns >= time);
    time = frame->timestamp_ns;
    ++frames_delivered;
  }

  void release() {
    last_ = "release";
    ModelConsumer* consumer = any(consumers_);
    if (consumer == nullptr || consumer->handed) return;
    check_reading(*consumer);
    if (consumer->reading) consumer->last_taken = now_;
    consumer->reading.reset();
    ring_->release(consumer->ring_side, now_);
  }

  void stop_waiting() {
    last_ = "stop_waiting";
    if (ModelConsumer* consumer = any(consumers_)) {
      consumer->waiting = false;
      ring_->stop_waiting(consumer->ring_side);
    }
    if (ModelProducer* producer = any(producers_)) {
      producer->waiting_since = kNever;
      ring_->stop_claiming(producer->ring_side);
    }
  }

  void repeat() {
    last_ = "repeat";
    ModelConsumer* consumer = any(consumers_);
    if (consumer == nullptr) return;
    check_reading(*consumer);
    const Frame* frame = ring_->repeat(consumer->ring_side, now_);
    if (consumer->handed || !consumer->owed.empty()) CHECK_EQ(frame, nullptr);
    if (frame == nullptr) return;
    CHECK(!frames_.empty());
    CHECK_EQ(frame->sequence, frames_.back().sequence);
    consumer->reading = frames_.back();
    consumer->reading_ring_side = frame;
    consumer->waiting = false;
    consumer->last_taken = now_;
    ++consumer->published;
    ++consumer->delivered;
    delivered_bytes_ += frame->bytesused;
    check_reading(*consumer);
  }

  void substitute() {
    last_ = "substitute";
    ModelConsumer* consumer = any(consumers_);
    if (consumer == nullptr) return;
    ring_->count_substitute(consumer->ring_side, 100, now_);
    consumer->waiting = false;
    consumer->last_taken = now_;
    ++consumer->published;
    ++consumer->delivered;
    delivered_bytes_ += 100;
  }

  void exchange() {
    last_ = "exchange";
    ModelProducer* producer = any(producers_);
    if (producer == nullptr || producer->claims.empty()) return;
    ModelClaim& claim = producer->claims.back();
    // As a reader of requests does: the frame landed in a slot of its own.
    Slot* slot = Slots::map(claim.ring_side->capacity());
    if (slot == nullptr) return;
    fill(slot->data, claim.frame);
    slot = ring_->exchange(claim.ring_side, slot);
    std::memset(slot->data, 0xee, slot->capacity);
    Slots::unmap(slot);
  }

  void change_parameters() {
    last_ = "change_parameters";
    RingParameters next = ring_->parameters();
    resize_by_hand_ = true;
    switch (pick(0, 7)) {
      case 0:
        next.max = pick(1, 100) * kPage;
        break;
      case 1:
        next.min = pick(0, 20) * kPage;
        break;
      case 2:
        next.high_watermark = static_cast<uint32_t>(pick(0, 101));
        break;
      case 3:
        next.low_watermark = static_cast<uint32_t>(pick(0, 60));
        break;
      case 4:
        next.overflow = chance(50) ? Overflow::kDrop : Overflow::kBlock;
        break;
      case 5:
        next.lap = chance(50) ? Lap::kNewest : Lap::kOldest;
        break;
      case 6:
        next.stall_timeout_ms = static_cast<uint32_t>(chance(20) ? 0 : pick(1, 500));
        break;
      case 7:
        next.max_buffers = static_cast<uint32_t>(pick(0, 5));
        break;
    }
    const RingParameters before = ring_->parameters();
    const std::string wrong = ring_->set_parameters(next, false, now_);
    const RingParameters after = ring_->parameters();
    const bool valid = next.high_watermark >= 1 && next.high_watermark <= 100 &&
                       next.low_watermark >= 1 && next.low_watermark * 2 <= next.high_watermark &&
                       (next.min == 0 ? 2 * pages(sizeimage_) : next.min) <= next.max &&
                       next.max_buffers >= 1;
    CHECK_EQ(wrong.empty(), valid);
    CHECK(after.dynamic == before.dynamic || refused_now_);
    CHECK_EQ(after.max, valid ? next.max : before.max);
    CHECK_EQ(after.high_watermark, valid ? next.high_watermark : before.high_watermark);
    if (valid && next.min != 0) CHECK_EQ(after.min, next.min);
    parameters_ = after;
  }

  void switch_mode() {
    last_ = "switch_mode";
    resize_by_hand_ = true;
    RingParameters next = ring_->parameters();
    next.dynamic = chance(60);
    CHECK_EQ(ring_->set_parameters(next, true, now_), "");
    dynamic_ = next.dynamic;
    held_ = false;
    CHECK(ring_->parameters().dynamic == dynamic_ || refused_now_);
  }

  void change_format() {
    last_ = "change_format";
    resize_by_hand_ = true;
    sizeimage_ = std::min<uint64_t>(pick(1, 8 * kPage), ring_->largest_frame());
    if (sizeimage_ == 0) sizeimage_ = 1;
    ring_->set_sizeimage(sizeimage_, now_);
    format_since_ = next_sequence_;
    parameters_ = ring_->parameters();
  }

  void reset() {
    last_ = "reset";
    ring_->reset_counters(now_);
    past_published_ = past_delivered_ = past_dropped_ = past_left_ = 0;
    published_frames_ = published_bytes_ = delivered_bytes_ = dropped_bytes_ = aborted_ = 0;
    expand_count_ = shrink_count_ = 0;
    for (ModelConsumer& consumer : consumers_) {
      consumer.published = consumer.owed.size() + (consumer.handed ? 1 : 0);
      consumer.delivered = consumer.handed ? 1 : 0;
      consumer.dropped = 0;
      if (consumer.handed) delivered_bytes_ += consumer.handed->bytes;
    }
    const RingCounters counters = ring_->counters(now_);
    CHECK_EQ(counters.published_frames, 0u);
    CHECK_EQ(counters.uptime_ms, 0u);
    CHECK_EQ(counters.last_expand_ms, -1);
  }

  void tick() {
    last_ = "tick";
    may_shrink_ = true;
    if (chance(50)) {
      ring_->tick(now_);
    } else {
      const Nanoseconds again = ring_->housekeep(now_);
      CHECK(again >= now_);
    }
  }

  // Nothing is owed and nothing comes: each delay halves the size.
  void rest() {
    last_ = "rest";
    for (ModelConsumer& consumer : consumers_) {
      while (!consumer.owed.empty() || consumer.handed) {
        take_from(consumer);
        learn();
      }
    }
    for (int round = 0; round < 4; ++round) {
      now_ += parameters_.shrink_delay_ms * kMillisecond;
      may_shrink_ = true;
      const RingCounters before = ring_->counters(now_);
      chance(50) ? ring_->tick(now_) : (void)ring_->housekeep(now_);
      learn();
      check();
      // The first may find that more was held since the delay began.
      if (round > 0 && dynamic_ && before.used == 0 && all_claims() == 0 && pending_.empty()) {
        CHECK_EQ(ring_->counters(now_).size, std::max(before.size / 2, parameters_.min));
      }
    }
  }

  void pass_time() {
    last_ = "pass_time";
    now_ += static_cast<Nanoseconds>(chance(20) ? pick(0, 3000) : pick(0, 120)) * kMillisecond;
  }

  // --- what the ring made of it

  // Takes over what only the ring can decide, if it was allowed to.
  void learn() {
    const RingCounters counters = ring_->counters(now_);
    // Growth was refused: dynamic buffering then reads 0.
    if (dynamic_ && !ring_->parameters().dynamic) {
      CHECK(refused_now_);
      CHECK(memory_is_short_);
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

  void learn_laps() {
    for (ModelConsumer& consumer : consumers_) {
      const uint64_t dropped = report_of(consumer.id).dropped;
      CHECK(dropped >= consumer.dropped);
      const uint64_t lost = dropped - consumer.dropped;
      if (lost == 0) continue;
      CHECK(dynamic_ || held_);
      CHECK(lost <= consumer.owed.size());
      CHECK(parameters_.overflow == Overflow::kDrop || consumer.lapped || may_lap(consumer));
      for (uint64_t i = 0; i < lost; ++i) drop_front(consumer);
      consumer.lapped = true;
      frames_dropped += lost;
    }
  }

  // Whether somebody who waits for room has waited for this consumer long enough.
  bool may_lap(const ModelConsumer& consumer) const {
    return std::any_of(waits_.begin(), waits_.end(), [&](const Wait& wait) {
      if (wait.own_consumer == consumer.id) return true;
      const Nanoseconds since = std::max(wait.since, consumer.last_taken);
      return parameters_.stall_timeout_ms != 0 &&
             now_ - since >= parameters_.stall_timeout_ms * kMillisecond;
    });
  }

  void learn_publications(const RingCounters& counters) {
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
    if (!dynamic_ && !held_) CHECK_EQ(pending_.size(), 0u);
  }

  void published(ModelFrame frame) {
    published_now_ = true;
    // It waited for an empty ring, and went through it alone.
    if (frame.room() > std::min(size_, parameters_.max)) oversized_now_ = true;
    frame.sequence = next_sequence_++;
    frame.is_static = !dynamic_ && !held_;
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

  void drop_static_surplus() {
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

  void drop_front(ModelConsumer& consumer) {
    ++consumer.dropped;
    dropped_bytes_ += consumer.owed.front().bytes;
    consumer.owed.pop_front();
  }

  void count_delivery(ModelConsumer& consumer, const ModelFrame& frame) {
    ++consumer.delivered;
    delivered_bytes_ += frame.bytes;
    consumer.last_taken = now_;
    consumer.lapped = false;
  }

  // Frames that nobody owes leave; the newest is kept for who joins.
  void advance() {
    while (!frames_.empty() && !is_owed(frames_.front())) {
      const ModelFrame& frame = frames_.front();
      if (frames_.size() == 1 && at_work(frame.producer) && frame.sequence >= format_since_) return;
      frames_.pop_front();
    }
  }

  void learn_size(const RingCounters& counters) {
    const bool is_static = !dynamic_ && !held_;
    const uint64_t grew = counters.expand_count - expand_count_;
    const uint64_t shrank = counters.shrink_count - shrink_count_;
    CHECK(counters.expand_count >= expand_count_);
    CHECK(counters.shrink_count >= shrink_count_);
    if (!is_static && !was_static_ && !resize_by_hand_ && !mapping_refused_ && !oversized_now_ &&
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
    growths += grew;
    shrinks += shrank;
    expand_count_ = counters.expand_count;
    shrink_count_ = counters.shrink_count;
    size_ = counters.size;
    was_static_ = is_static;
    if (grew + shrank > 0 || counters.used * 100 > parameters_.low_watermark * counters.size) {
      low_since_ = now_;
    }
  }

  // --- what must always hold

  void check() {
    const RingCounters counters = ring_->counters(now_);
    const bool is_static = !dynamic_ && !held_;
    uint64_t slowest = 0, owed = 0;
    for (const ModelConsumer& consumer : consumers_) {
      slowest = std::max(slowest, owed_bytes(consumer));
      owed += consumer.owed.size();
    }
    CHECK_EQ(counters.used, slowest);
    CHECK_EQ(counters.owed_frames, owed);
    CHECK_EQ(counters.held_frames, frames_.size());
    CHECK_EQ(counters.delivered_bytes, delivered_bytes_);
    CHECK_EQ(counters.dropped_bytes, dropped_bytes_);
    CHECK_EQ(counters.aborted_frames, aborted_);
    CHECK_EQ(counters.producers, producers_.size());
    CHECK_EQ(counters.consumers, consumers_.size());
    CHECK_EQ(ring_->producers(), producers_.size());
    CHECK_EQ(ring_->parameters().dynamic, dynamic_);
    check_law(counters);
    if (is_static) {
      CHECK_EQ(counters.size, parameters_.max_buffers * pages(sizeimage_));
      return;
    }
    CHECK(counters.used + counted_claims() <= counters.size);
    CHECK(counters.size <= std::max(parameters_.max, counters.used + all_claims()));
    if (!mapping_refused_) CHECK(counters.size >= std::min(parameters_.min, parameters_.max));
    CHECK(counters.read_offset < counters.size);
    CHECK(counters.write_offset < counters.size);
    CHECK_EQ((counters.write_offset + counters.size - counters.read_offset) % counters.size,
             counters.used % counters.size);
    if (dynamic_ && published_now_ && counters.size < parameters_.max) {
      CHECK(counters.used * 100 <= parameters_.high_watermark * counters.size);
    }
  }

  void check_law(const RingCounters& counters) {
    const std::vector<ConsumerReport> rows = ring_->consumer_reports(now_);
    CHECK_EQ(rows.size(), consumers_.size() + 1);
    uint64_t published = past_published_, delivered = past_delivered_, dropped = past_dropped_,
             owed = 0;
    for (const ModelConsumer& consumer : consumers_) {
      const check::Scope scope("consumer " + std::to_string(consumer.id));
      const ConsumerReport row = report_of(consumer.id);
      CHECK_EQ(row.published, consumer.published);
      CHECK_EQ(row.delivered, consumer.delivered);
      CHECK_EQ(row.dropped, consumer.dropped);
      CHECK_EQ(row.owed, consumer.owed.size());
      CHECK_EQ(row.owed_bytes, owed_bytes(consumer));
      CHECK_EQ(row.published, row.delivered + row.dropped + row.owed + row.left);
      published += row.published;
      delivered += row.delivered;
      dropped += row.dropped;
      owed += row.owed;
    }
    const ConsumerReport& total = rows.back();
    CHECK_EQ(total.command, "total");
    CHECK_EQ(total.published, published);
    CHECK_EQ(total.delivered, delivered);
    CHECK_EQ(total.dropped, dropped);
    CHECK_EQ(total.left, past_left_);
    CHECK_EQ(total.published, total.delivered + total.dropped + total.owed + total.left);
    CHECK_EQ(counters.delivered_frames, delivered);
    CHECK_EQ(counters.dropped_frames, dropped);
    CHECK_EQ(counters.left_frames, past_left_);
    CHECK_EQ(counters.owed_frames, owed);
  }

  void check_reading(const ModelConsumer& consumer) {
    if (consumer.reading) check_content(consumer.reading_ring_side->data(), *consumer.reading);
  }

  // --- sums

  ConsumerReport report_of(int id) {
    for (const ConsumerReport& row : ring_->consumer_reports(now_)) {
      if (row.pid == id) return row;
    }
    check::fail(__FILE__, __LINE__, "no row for consumer " + std::to_string(id));
  }
  bool is_owed(const ModelFrame& frame) const {
    return std::any_of(consumers_.begin(), consumers_.end(), [&](const ModelConsumer& consumer) {
      return !consumer.owed.empty() && consumer.owed.front().sequence <= frame.sequence;
    });
  }
  const ModelProducer* find_producer(int id) const {
    const auto found = std::find_if(producers_.begin(), producers_.end(),
                                    [&](const ModelProducer& each) { return each.id == id; });
    return found == producers_.end() ? nullptr : &*found;
  }
  bool at_work(int producer) const { return find_producer(producer) != nullptr; }
  static uint64_t owed_bytes(const ModelConsumer& consumer) {
    uint64_t bytes = 0;
    for (const ModelFrame& frame : consumer.owed) bytes += frame.room();
    return bytes;
  }
  uint64_t all_claims() const {
    uint64_t bytes = 0;
    for (const ModelProducer& producer : producers_) {
      for (const ModelClaim& claim : producer.claims) bytes += claim.room;
    }
    return bytes;
  }
  uint64_t counted_claims() const {
    uint64_t bytes = 0;
    for (const ModelProducer& producer : producers_) {
      for (const ModelClaim& claim : producer.claims) {
        if (claim.surely_counted && now_ - claim.touched < 100 * kMillisecond) bytes += claim.room;
      }
    }
    return bytes;
  }
  // Lengths differ among frames under way, so that the sum of bytes tells which was published.
  uint64_t unused_length(uint64_t most) {
    uint64_t bytes = pick(1, most);
    for (int attempt = 0; attempt < 100; ++attempt, bytes = pick(1, most)) {
      const bool used = std::any_of(pending_.begin(), pending_.end(),
                                    [&](const ModelFrame& frame) { return frame.bytes == bytes; });
      if (!used) break;
    }
    return bytes;
  }

  std::mt19937_64 random_;
  std::unique_ptr<Ring> ring_;
  RingParameters parameters_;
  uint64_t sizeimage_;
  Nanoseconds now_;
  bool dynamic_ = false;  // What `dynamic_buffering` reads.
  bool held_ = false;     // Growth was refused: it reads 0, and the ring is no static one.
  bool was_static_ = false;
  bool memory_is_short_ = false;
  std::string last_;

  std::vector<ModelProducer> producers_;
  std::vector<ModelConsumer> consumers_;
  std::deque<ModelFrame> frames_;   // In the ring, oldest first.
  std::deque<ModelFrame> pending_;  // Finished while there was no room.
  int next_id_ = 1;
  uint64_t next_sequence_ = 0;
  uint64_t format_since_ = 0;
  std::map<std::pair<int, int>, uint64_t> turns_;
  std::map<int, int64_t> times_;

  // Of the present step.
  bool refused_now_ = false, mapping_refused_ = false, published_now_ = false;
  bool oversized_now_ = false;
  bool may_shrink_ = false, resize_by_hand_ = false;
  struct Wait {
    Nanoseconds since;
    int own_consumer;
  };
  std::vector<Wait> waits_;
  std::optional<ModelFrame> own_publish_;

  uint64_t size_ = 0;
  Nanoseconds low_since_ = 0;
  uint64_t expand_count_ = 0, shrink_count_ = 0;
  uint64_t past_published_ = 0, past_delivered_ = 0, past_dropped_ = 0, past_left_ = 0;
  uint64_t published_frames_ = 0, published_bytes_ = 0, delivered_bytes_ = 0, dropped_bytes_ = 0;
  uint64_t aborted_ = 0;
};

}  // namespace

TEST(ringAgreesWithItsModel) {
  uint64_t delivered = 0, dropped = 0, growths = 0, shrinks = 0, deferred = 0, refusals = 0;
  for (uint64_t seed = 1; seed <= 40; ++seed) {
    RingModel model(seed);
    for (int step = 0; step < 4000; ++step) {
      try {
        model.step();
      } catch (const check::Failure& failure) {
        throw check::Failure(std::string(failure.what()) + "\n    in step " + std::to_string(step) +
                             " (" + model.last() + ") of seed " + std::to_string(seed));
      }
    }
    const check::Scope scope("the end of seed " + std::to_string(seed));
    model.finish();
    delivered += model.frames_delivered;
    dropped += model.frames_dropped;
    growths += model.growths;
    shrinks += model.shrinks;
    deferred += model.deferred;
    refusals += model.refusals;
  }
  std::printf(
      "      %lu delivered, %lu dropped, %lu growths, %lu shrinks, %lu deferred, %lu refused\n",
      delivered, dropped, growths, shrinks, deferred, refusals);
  // A model check in which nothing happens proves nothing.
  CHECK(delivered > 1000 && dropped > 100 && growths > 50 && shrinks > 20);
  CHECK(deferred > 10 && refusals > 5);
}
