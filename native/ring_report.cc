// What a ring tells of itself, each answer from one reading under the lock.
#include <algorithm>

#include "ring_parties.h"

namespace loopback {

RingCounters Ring::counters(Nanoseconds now) const {
  std::lock_guard lock(mutex_);
  RingCounters c{};
  c.size = nominal_size();
  c.used = used_;
  c.resident = slots_.resident();
  Tally sum = past_;
  for (const auto& consumer : consumers_) {
    sum.delivered += consumer->tally.delivered;
    sum.dropped += consumer->tally.dropped;
    sum.left += consumer->tally.left;
    c.owed_frames += consumer->owed;
    if (consumer->lapped) ++c.stalled_consumers;
  }
  c.held_frames = listed_;
  c.published_frames = published_frames_;
  c.published_bytes = published_bytes_;
  c.delivered_frames = sum.delivered;
  c.delivered_bytes = delivered_bytes_;
  c.dropped_frames = sum.dropped;
  c.dropped_bytes = dropped_bytes_;
  c.left_frames = sum.left;
  c.aborted_frames = aborted_frames_;
  c.expand_count = expand_count_;
  c.expand_ns = expand_ns_;
  c.expand_ns_max = expand_ns_max_;
  c.shrink_count = shrink_count_;
  c.shrink_ns = shrink_ns_;
  c.shrink_ns_max = shrink_ns_max_;
  c.commit_ns = commit_ns_;
  c.release_ns = release_ns_;
  c.producers = producers_.size();
  c.consumers = consumers_.size();
  c.uptime_ms = (now - started_) / kMillisecond;
  c.read_offset = read_position_ % size_;
  c.write_offset = (read_position_ + used_) % size_;
  c.last_expand_ms = last_expand_ == kNever ? -1 : (now - last_expand_) / kMillisecond;
  c.last_shrink_ms = last_shrink_ == kNever ? -1 : (now - last_shrink_) / kMillisecond;
  return c;
}

std::vector<ConsumerReport> Ring::consumer_reports(Nanoseconds now) const {
  std::lock_guard lock(mutex_);
  std::vector<ConsumerReport> rows;
  ConsumerReport total{0, "total", past_.published, past_.delivered, past_.dropped, 0, past_.left,
                       0, 0};
  for (const auto& consumer : consumers_) {
    const Tally& tally = consumer->tally;
    ConsumerReport row{consumer->label.pid, consumer->label.command, tally.published,
                       tally.delivered,     tally.dropped,           consumer->owed,
                       tally.left,          consumer->owed_bytes,    0};
    if (consumer->cursor != nullptr)
      row.lag_ms = std::max<Nanoseconds>(now - consumer->cursor->published_ns, 0) / kMillisecond;
    total.published += row.published;
    total.delivered += row.delivered;
    total.dropped += row.dropped;
    total.owed += row.owed;
    total.left += row.left;
    total.owed_bytes += row.owed_bytes;
    total.lag_ms = std::max(total.lag_ms, row.lag_ms);
    rows.push_back(std::move(row));
  }
  rows.push_back(std::move(total));
  return rows;
}

void Ring::reset_counters(Nanoseconds now) {
  std::lock_guard lock(mutex_);
  past_ = Tally();
  for (auto& consumer : consumers_) {
    consumer->tally = Tally();
    consumer->tally.published = consumer->owed;
    if (consumer->handed) {
      // Its take is still to come: it must find the law kept if it leaves instead.
      consumer->tally.published += 1;
      consumer->tally.delivered = 1;
    }
  }
  published_frames_ = published_bytes_ = delivered_bytes_ = dropped_bytes_ = aborted_frames_ = 0;
  for (auto& consumer : consumers_) {
    if (consumer->handed) delivered_bytes_ += consumer->reading->bytesused;
  }
  expand_count_ = expand_ns_ = expand_ns_max_ = 0;
  shrink_count_ = shrink_ns_ = shrink_ns_max_ = 0;
  commit_ns_ = release_ns_ = 0;
  last_expand_ = last_shrink_ = kNever;
  started_ = now;
}

void Ring::emit(RingEvent::Kind kind, std::string text) const {
  if (setup_.observe) setup_.observe({kind, std::move(text)});
}

}  // namespace loopback
