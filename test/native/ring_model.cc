// What can be done to a ring, done to it and to its model.
#include "ring_model.h"

#include <algorithm>

#include "check.h"

namespace model {

namespace {

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

template <typename Party>
Party& find(std::vector<Party>& parties, int id) {
  for (Party& party : parties) {
    if (party.id == id) return party;
  }
  check::fail(__FILE__, __LINE__, "nobody has the id " + std::to_string(id));
}

}  // namespace

RingModel::RingModel(const RingParameters& parameters, uint64_t sizeimage)
    : parameters_(parameters), sizeimage_(sizeimage) {
  Ring::Setup setup;
  setup.sizeimage = sizeimage_;
  setup.parameters = parameters_;
  setup.now = now_;
  setup.wake_housekeeper = [](Ring*) {};
  setup.observe = [this](const RingEvent& event) {
    if (event.kind == RingEvent::Kind::kRefused) refused_now_ = true;
  };
  setup.budget = std::make_shared<MemoryBudget>([this] {
    return Headroom{memory_is_refused() ? 0 : uint64_t{1} << 40, "a test"};
  });
  setup.allow_mapping = [this](size_t) {
    if (!memory_is_refused()) return true;
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

bool RingModel::memory_is_refused() {
  const bool refused = refuses(++asked);
  if (refused) memory_refused_ = true;
  return refused;
}

void RingModel::begin(const char* name) {
  last_ = name;
  refused_now_ = memory_refused_ = mapping_refused_ = oversized_now_ = published_now_ = false;
  resize_by_hand_ = may_shrink_ = false;
  waits_.clear();
  for (const ModelFrame& frame : pending_) {
    const ModelProducer* producer = find_producer(frame.producer);
    waits_.push_back({frame.deferred_at, producer != nullptr ? producer->own_consumer : 0});
  }
}

ModelProducer& RingModel::producer(int id) { return find(producers_, id); }
ModelConsumer& RingModel::consumer(int id) { return find(consumers_, id); }

int RingModel::join_producer(int own_consumer) {
  ModelProducer producer;
  step("join_producer", [&] {
    producer.id = next_id_++;
    producer.ring_side = ring_->join_producer({producer.id, "producer"}, now_);
    CHECK_EQ(producer.ring_side == nullptr, is_static() && !producers_.empty());
    if (producer.ring_side == nullptr) return;
    if (own_consumer != 0) {
      producer.own_consumer = own_consumer;
      ring_->set_own_consumer(producer.ring_side, consumer(own_consumer).ring_side);
    }
    producers_.push_back(producer);
  });
  return producer.ring_side == nullptr ? 0 : producer.id;
}

void RingModel::leave_producer(int id) {
  step("leave_producer", [&] {
    ring_->leave_producer(producer(id).ring_side, now_);
    std::erase_if(producers_, [id](const auto& each) { return each.id == id; });
    // Another clock may come, which runs behind.
    if (producers_.empty()) last_timestamp_ = std::min(last_timestamp_, now_);
  });
}

int RingModel::join_consumer() {
  ModelConsumer consumer;
  step("join_consumer", [&] {
    consumer.id = next_id_++;
    consumer.ring_side = ring_->join_consumer({consumer.id, "consumer"}, now_);
    consumer.last_taken = now_;
    const bool starts_with_newest = !frames_.empty() && at_work(frames_.back().producer) &&
                                    frames_.back().sequence >= format_since_;
    if (starts_with_newest && report_of(consumer.id).owed == 0 && !is_owed(frames_.back())) {
      // Allowed only where claims have taken all the room.
      CHECK(!is_static());
      CHECK(all_claims() + frames_.back().room() >
            std::min(ring_->counters(now_).size, parameters_.max));
    } else if (starts_with_newest) {
      consumer.owed.push_back(frames_.back());
      consumer.published = 1;
    }
    CHECK_EQ(ring_->first_sequence(consumer.ring_side),
             consumer.owed.empty() ? next_sequence_ : frames_.back().sequence);
    consumers_.push_back(consumer);
  });
  return consumer.id;
}

void RingModel::leave_consumer(int id) {
  step("leave_consumer", [&] {
    ModelConsumer& leaving = consumer(id);
    check_reading(leaving);
    past_published_ += leaving.published;
    past_delivered_ += leaving.delivered;
    past_dropped_ += leaving.dropped;
    past_left_ += leaving.owed.size();
    if (leaving.handed) {
      --past_delivered_;
      ++past_left_;
      delivered_bytes_ -= leaving.handed->bytes;
    }
    for (ModelProducer& producer : producers_) {
      if (producer.own_consumer == id) producer.own_consumer = 0;
    }
    ring_->leave_consumer(leaving.ring_side, now_);
    std::erase_if(consumers_, [id](const auto& each) { return each.id == id; });
  });
}

// Lengths differ among frames under way, so that the sum of bytes tells which was published.
uint64_t RingModel::unused_length(uint64_t wanted) const {
  const auto used = [this](uint64_t bytes) {
    for (const ModelFrame& frame : pending_) {
      if (frame.bytes == bytes) return true;
    }
    for (const ModelProducer& producer : producers_) {
      for (const ModelClaim& claim : producer.claims) {
        if (claim.frame.bytes == bytes) return true;
      }
    }
    return false;
  };
  uint64_t bytes = wanted;
  while (bytes > 1 && used(bytes)) --bytes;
  return bytes;
}

bool RingModel::claim(int id, uint64_t room_bytes, uint64_t frame_bytes, bool ask) {
  ClaimAnswer answer = ClaimAnswer::kFull;
  bool held_back = false;  // By consumers, and nothing else.
  step("claim", [&] {
    ModelProducer& by = producer(id);
    const bool behind = !pending_.empty();
    by.waited_since = std::min(by.waiting_since, now_);
    Claim* claim = nullptr;
    Nanoseconds retry_at = 0;
    waits_.push_back({by.waited_since, by.own_consumer});
    const bool has_room = ask && ring_->has_room(by.ring_side, room_bytes, now_, &retry_at);
    answer = ring_->claim(by.ring_side, room_bytes, now_, &claim, &retry_at);
    const RingCounters counters = ring_->counters(now_);
    const uint64_t bound = std::min(counters.size, parameters_.max);
    if (ask && !mapping_refused_) CHECK_EQ(answer == ClaimAnswer::kFull, !has_room);
    switch (answer) {
      case ClaimAnswer::kGranted: {
        by.waiting_since = kNever;
        CHECK(claim != nullptr);
        CHECK(claim->capacity() >= room_bytes);
        ModelClaim made;
        made.ring_side = claim;
        made.room = pages(room_bytes);
        made.touched = now_;
        made.frame.bytes = unused_length(frame_bytes);
        made.frame.content = next_content_++;
        made.frame.producer = id;
        made.frame.turn = by.next_turn++;
        fill(claim->data(), made.frame);
        by.claims.push_back(made);
        break;
      }
      case ClaimAnswer::kTooLarge:
        CHECK(!is_static());
        CHECK(pages(room_bytes) > parameters_.max);
        break;
      case ClaimAnswer::kNoMemory:
        CHECK(mapping_refused_ || pages(room_bytes) > bound);
        break;
      case ClaimAnswer::kFull:
        by.waiting_since = by.waited_since;
        if (mapping_refused_ || behind) break;
        CHECK(!is_static());
        CHECK(counters.used + all_claims() + pages(room_bytes) > bound);
        CHECK(counters.size >= parameters_.max || !ring_->parameters().dynamic);
        CHECK(retry_at > now_);
        // Somebody must be able to make the room.
        CHECK(counters.used + all_claims() > 0);
        held_back = all_claims() + pages(room_bytes) <= bound;
        if (parameters_.overflow == Overflow::kDrop) CHECK(!held_back || bound < pages(room_bytes));
        break;
    }
  });
  if (held_back) {
    // Its own consumer alone never holds it back.
    CHECK(std::any_of(consumers_.begin(), consumers_.end(), [&](const ModelConsumer& consumer) {
      return consumer.id != producer(id).own_consumer && !consumer.owed.empty() &&
             consumer.owed.front().sequence == frames_.front().sequence;
    }));
  }
  return answer == ClaimAnswer::kGranted;
}

void RingModel::publish(int id, int64_t own_timestamp) {
  step("publish", [&] {
    ModelProducer& by = producer(id);
    ModelClaim claim = by.claims.front();
    by.claims.erase(by.claims.begin());
    check_content(claim.ring_side->data(), claim.frame);
    claim.frame.own_timestamp = own_timestamp;
    FrameTags tags;
    tags.timestamp_ns = own_timestamp;
    own_publish_ = claim.frame;
    waits_.push_back({now_, by.own_consumer});
    ring_->publish(claim.ring_side, claim.frame.bytes, tags, now_);
  });
}

void RingModel::abort(int id, size_t which, bool counts) {
  step("abort", [&] {
    ModelProducer& by = producer(id);
    if (counts) ++aborted_;
    ring_->abort(by.claims[which].ring_side, counts, now_);
    by.claims.erase(by.claims.begin() + static_cast<long>(which));
  });
}

void RingModel::touch_claims(int id) {
  step("touch_claims", [&] {
    for (ModelClaim& claim : producer(id).claims) {
      if (now_ - claim.touched >= 100 * kMillisecond) claim.surely_counted = false;
      claim.touched = now_;
      ring_->touch(claim.ring_side, claim.frame.bytes, now_);
    }
  });
}

void RingModel::stop_claiming(int id) {
  step("stop_claiming", [&] {
    producer(id).waiting_since = kNever;
    ring_->stop_claiming(producer(id).ring_side);
  });
}

void RingModel::count_aborted(uint64_t frames) {
  step("count_aborted", [&] {
    aborted_ += frames;
    ring_->count_aborted(frames);
  });
}

void RingModel::map_landing(uint64_t bytes) {
  step("map_landing", [&] {
    landing_ = Slots::map_slot(bytes);
    if (landing_ == nullptr) return;
    CHECK(landing_->capacity >= bytes);
    std::memset(landing_->data, 0xee, landing_->capacity);
  });
}

// The frame's bytes have landed in a slot of the caller's own.
void RingModel::exchange(int id) {
  step("exchange", [&] {
    ModelClaim& claim = producer(id).claims.back();
    if (landing_->capacity < claim.ring_side->capacity()) return;
    fill(landing_->data, claim.frame);
    landing_ = ring_->exchange(claim.ring_side, landing_);
    std::memset(landing_->data, 0xee, landing_->capacity);
  });
}

void RingModel::unmap_landing() {
  step("unmap_landing", [&] { Slots::unmap(std::exchange(landing_, nullptr)); });
}

void RingModel::take(int id) {
  step("take", [&] { take_from(consumer(id)); });
}

void RingModel::take_from(ModelConsumer& by) {
  check_reading(by);
  CHECK_EQ(ring_->readable(by.ring_side), by.handed.has_value() || !by.owed.empty());
  const Frame* frame = ring_->take(by.ring_side, now_);
  by.reading.reset();
  if (by.handed) {
    by.reading = by.handed;
    by.handed.reset();
  } else if (!by.owed.empty()) {
    by.reading = by.owed.front();
    by.owed.pop_front();
    count_delivery(by, *by.reading);
  } else {
    by.waiting = true;
    CHECK_EQ(frame, nullptr);
    return;
  }
  CHECK(frame != nullptr);
  by.reading_ring_side = frame;
  CHECK_EQ(frame->sequence, by.reading->sequence);
  CHECK_EQ(frame->bytesused, by.reading->bytes);
  CHECK_EQ(frame->timestamp_ns, by.reading->timestamp);
  CHECK_EQ(frame->published_ns, by.reading->published_at);
  check_reading(by);
  // Frames of one producer are never overtaken by its later ones.
  uint64_t& seen = turns_[{by.id, by.reading->producer}];
  CHECK(by.reading->turn + 1 > seen);
  seen = by.reading->turn + 1;
  ++frames_delivered;
}

void RingModel::release(int id) {
  step("release", [&] {
    ModelConsumer& by = consumer(id);
    check_reading(by);
    ring_->release(by.ring_side, now_);
    if (by.handed) return;  // Its take is still to come.
    if (by.reading) by.last_taken = now_;
    by.reading.reset();
  });
}

void RingModel::hold(int id) {
  step("hold", [&] {
    const ModelConsumer& by = consumer(id);
    if (!by.reading || by.handed) return;
    CHECK_EQ(ring_->hold(by.ring_side), by.reading_ring_side);
    holds_.push_back({by.reading_ring_side, *by.reading});
  });
}

void RingModel::let_go(size_t which) {
  step("let_go", [&] {
    const Hold held = holds_[which];
    holds_.erase(holds_.begin() + static_cast<std::ptrdiff_t>(which));
    check_content(held.ring_side->data(), held.frame);
    ring_->let_go(held.ring_side);
  });
}

void RingModel::touch(int id) {
  step("touch", [&] {
    consumer(id).last_taken = now_;
    ring_->touch(consumer(id).ring_side, now_);
  });
}

void RingModel::stop_waiting(int id) {
  step("stop_waiting", [&] {
    consumer(id).waiting = false;
    ring_->stop_waiting(consumer(id).ring_side);
  });
}

void RingModel::repeat(int id) {
  step("repeat", [&] {
    ModelConsumer& by = consumer(id);
    check_reading(by);
    const Frame* frame = ring_->repeat(by.ring_side, now_);
    CHECK_EQ(frame == nullptr, by.handed || !by.owed.empty() || frames_.empty());
    if (frame == nullptr) return;
    CHECK_EQ(frame->sequence, frames_.back().sequence);
    by.reading = frames_.back();
    by.reading_ring_side = frame;
    by.waiting = false;
    by.last_taken = now_;
    ++by.published;
    ++by.delivered;
    delivered_bytes_ += frame->bytesused;
    check_reading(by);
  });
}

void RingModel::substitute(int id, uint64_t bytes) {
  step("substitute", [&] {
    ModelConsumer& by = consumer(id);
    ring_->count_substitute(by.ring_side, bytes, now_);
    by.waiting = false;
    by.last_taken = now_;
    ++by.published;
    ++by.delivered;
    delivered_bytes_ += bytes;
  });
}

void RingModel::set_parameters(const RingParameters& next) {
  step("set_parameters", [&] {
    resize_by_hand_ = true;
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
    CHECK_EQ(after.max_buffers, valid ? next.max_buffers : before.max_buffers);
    CHECK_EQ(after.high_watermark, valid ? next.high_watermark : before.high_watermark);
    if (valid && next.min != 0) CHECK_EQ(after.min, next.min);
    parameters_ = after;
  });
}

void RingModel::set_mode(bool dynamic) {
  step("set_mode", [&] {
    resize_by_hand_ = true;
    RingParameters next = ring_->parameters();
    next.dynamic = dynamic;
    CHECK_EQ(ring_->set_parameters(next, true, now_), "");
    dynamic_ = dynamic;
    held_ = false;
    CHECK(ring_->parameters().dynamic == dynamic_ || refused_now_);
  });
}

void RingModel::set_format(uint64_t sizeimage) {
  step("set_format", [&] {
    resize_by_hand_ = true;
    sizeimage_ = sizeimage;
    ring_->set_sizeimage(sizeimage_, now_);
    format_since_ = next_sequence_;
    parameters_ = ring_->parameters();
  });
}

void RingModel::reset() {
  step("reset", [&] {
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
    CHECK_EQ(counters.expand_ns + counters.shrink_ns + counters.commit_ns, 0u);
    CHECK_EQ(counters.uptime_ms, 0u);
    CHECK_EQ(counters.last_expand_ms, -1);
    CHECK_EQ(counters.last_shrink_ms, -1);
  });
}

void RingModel::tick() { shrink_step(false); }
void RingModel::housekeep() { shrink_step(true); }

void RingModel::shrink_step(bool with_housekeep) {
  step(with_housekeep ? "housekeep" : "tick", [&] {
    may_shrink_ = true;
    if (with_housekeep)
      CHECK(ring_->housekeep(now_) >= now_);
    else
      ring_->tick(now_);
  });
}

void RingModel::rest() {
  for (ModelConsumer& consumer : consumers_) {
    while (!consumer.owed.empty() || consumer.handed) take(consumer.id);
  }
  for (int round = 0; round < 4; ++round) {
    now_ += parameters_.shrink_delay_ms * kMillisecond;
    const RingCounters before = ring_->counters(now_);
    shrink_step(round % 2 == 0);
    // The first may find that more was held since the delay began.
    if (round > 0 && dynamic_ && before.used == 0 && all_claims() == 0 && pending_.empty())
      CHECK_EQ(ring_->counters(now_).size, std::max(before.size / 2, parameters_.min));
  }
}

void RingModel::finish() {
  refuses = [](uint64_t) { return false; };
  if (landing_ != nullptr) unmap_landing();
  for (const ModelProducer& producer : producers_) {
    while (!producer.claims.empty()) abort(producer.id, 0, false);
  }
  while (!consumers_.empty()) leave_consumer(consumers_.back().id);
  while (!producers_.empty()) leave_producer(producers_.back().id);
  while (!holds_.empty()) let_go(0);
  const RingCounters counters = ring_->counters(now_);
  CHECK_EQ(counters.used, 0u);
  CHECK_EQ(counters.held_frames, 0u);
  CHECK_EQ(pending_.size(), 0u);
  // Every slot comes back, and with nobody there all memory is given back.
  for (int sweep = 0; sweep < 2; ++sweep) {
    now_ += 2 * kSecond;
    housekeep();
  }
  CHECK_EQ(ring_->counters(now_).resident, 0u);
}

void RingModel::check_reading(const ModelConsumer& consumer) {
  if (consumer.reading) check_content(consumer.reading_ring_side->data(), *consumer.reading);
}

}  // namespace model
