// A ring beside a model that is too simple to be wrong: each consumer has a queue of the frames
// that it is owed.
//
// Every function of a ring is one step under its lock, while claims, taken frames and waits stay
// open from step to step. So whatever threads interleave is a sequence of the functions below, and
// after each one all that must hold is checked. (That the bytes copied between steps are whole is
// ring_threads_test.cc's, under ThreadSanitizer.)
//
// The model does not foretell when the ring laps a consumer or changes its size. It lets the ring
// decide, and then checks that the decision was allowed: what was lost went from the front of the
// queue and was counted, the size doubled or halved for a reason.
#pragma once

#include <cstring>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "ring.h"

namespace model {

using namespace loopback;

constexpr uint64_t kPage = 4096;

inline uint64_t pages(uint64_t bytes) { return (bytes + kPage - 1) / kPage * kPage; }

struct ModelFrame {
  uint64_t sequence = 0;
  uint64_t bytes = 0;
  uint64_t content = 0;  // What its bytes were made of.
  int producer = 0;
  uint64_t turn = 0;  // Counts the producer's frames.
  bool is_static = false;
  Nanoseconds deferred_at = 0;
  Nanoseconds published_at = 0;
  int64_t own_timestamp = 0;
  int64_t timestamp = 0;
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

  uint64_t owed_bytes() const {
    uint64_t bytes = 0;
    for (const ModelFrame& frame : owed) bytes += frame.room();
    return bytes;
  }
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

class RingModel {
 public:
  explicit RingModel(const RingParameters& parameters, uint64_t sizeimage = 4 * kPage);
  RingModel(const RingModel&) = delete;

  // --- what can be done (ring_model.cc): each is one step, and checked

  /// Its id; 0 where the ring refuses it. `own_consumer`: the same opener's, or 0.
  int join_producer(int own_consumer = 0);
  /// It holds no claims.
  void leave_producer(int id);
  int join_consumer();
  void leave_consumer(int id);

  /// `ask`: has_room comes first. Whether it was granted.
  bool claim(int producer, uint64_t room_bytes, uint64_t frame_bytes, bool ask = false);
  /// The first claim's frame. `own_timestamp` 0: none.
  void publish(int producer, int64_t own_timestamp = 0);
  void abort(int producer, size_t which, bool counts);
  void touch_claims(int producer);
  void stop_claiming(int producer);
  void count_aborted(uint64_t frames);
  /// A slot outside of every claim: kept until it is exchanged or given back.
  void map_landing(uint64_t bytes);
  void exchange(int producer);
  void unmap_landing();

  void take(int consumer);
  void release(int consumer);
  /// The frame that it reads, if it does: kept until `let_go`, whatever becomes of the consumer.
  void hold(int consumer);
  void let_go(size_t which);
  void touch(int consumer);
  void stop_waiting(int consumer);
  void repeat(int consumer);
  void substitute(int consumer, uint64_t bytes);

  RingParameters parameters() const { return ring_->parameters(); }
  void set_parameters(const RingParameters& next);
  void set_mode(bool dynamic);
  void set_format(uint64_t sizeimage);
  void reset();
  void tick();
  void housekeep();
  void pass(Nanoseconds time) { now_ += time; }
  /// Nothing is owed and nothing comes: each delay halves the size.
  void rest();
  /// Everything leaves: what was in the ring must be gone, and the law hold for good.
  void finish();

  /// Whether the memory that is asked for now, for the `asked`th time, is refused.
  std::function<bool(uint64_t asked)> refuses = [](uint64_t) { return false; };
  uint64_t asked = 0;

  const std::vector<ModelProducer>& producers() const { return producers_; }
  const std::vector<ModelConsumer>& consumers() const { return consumers_; }
  const RingParameters& in_force() const { return parameters_; }
  uint64_t sizeimage() const { return sizeimage_; }
  bool has_landing() const { return landing_ != nullptr; }
  size_t held() const { return holds_.size(); }
  Nanoseconds now() const { return now_; }
  uint64_t largest_frame() const { return ring_->largest_frame(); }
  std::string last() const { return last_; }

  uint64_t frames_delivered = 0, frames_dropped = 0, growths = 0, shrinks = 0, deferred = 0,
           refusals = 0;

 private:
  template <typename Body>
  void step(const char* name, Body body) {
    begin(name);
    body();
    learn();
    check();
  }
  void begin(const char* name);
  bool memory_is_refused();

  ModelProducer& producer(int id);
  ModelConsumer& consumer(int id);
  void take_from(ModelConsumer& consumer);
  void shrink_step(bool with_housekeep);
  uint64_t unused_length(uint64_t wanted) const;

  // --- what the ring made of it, and what must always hold (ring_model_checks.cc)

  void learn();
  void learn_laps();
  bool may_lap(const ModelConsumer& consumer) const;
  void learn_publications(const RingCounters& counters);
  void published(ModelFrame frame);
  void drop_static_surplus();
  void drop_front(ModelConsumer& consumer);
  void count_delivery(ModelConsumer& consumer, const ModelFrame& frame);
  void advance();
  void learn_size(const RingCounters& counters);
  void check();
  void check_law(const RingCounters& counters);
  void check_reading(const ModelConsumer& consumer);

  ConsumerReport report_of(int id) const;
  bool is_static() const { return !dynamic_ && !held_; }
  bool is_owed(const ModelFrame& frame) const;
  const ModelProducer* find_producer(int id) const;
  bool at_work(int producer) const { return find_producer(producer) != nullptr; }
  uint64_t all_claims() const;
  uint64_t counted_claims() const;

  std::unique_ptr<Ring> ring_;
  RingParameters parameters_;
  uint64_t sizeimage_;
  Nanoseconds now_ = 1000 * kSecond;
  bool dynamic_ = false;  // What `dynamic_buffering` reads.
  bool held_ = false;     // Growth was refused: it reads 0, and the ring is no static one.
  bool was_static_ = false;
  std::string last_;

  struct Hold {
    const Frame* ring_side;
    ModelFrame frame;
  };
  std::vector<Hold> holds_;
  std::vector<ModelProducer> producers_;
  std::vector<ModelConsumer> consumers_;
  std::deque<ModelFrame> frames_;   // In the ring, oldest first.
  std::deque<ModelFrame> pending_;  // Finished while there was no room.
  Slot* landing_ = nullptr;
  int next_id_ = 1;
  uint64_t next_content_ = 1;
  uint64_t next_sequence_ = 0;
  uint64_t format_since_ = 0;
  int64_t last_timestamp_ = 0;
  std::map<std::pair<int, int>, uint64_t> turns_;

  // Of the present step.
  bool refused_now_ = false, memory_refused_ = false, mapping_refused_ = false;
  bool published_now_ = false, oversized_now_ = false;
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

}  // namespace model
