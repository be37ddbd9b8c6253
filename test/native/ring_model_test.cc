// Random walks through all that can be done to a ring, with memory that is refused now and then, or
// at one point after the other.
#include "ring_model.h"

#include <algorithm>
#include <cstdio>
#include <random>

#include "check.h"

using namespace model;

namespace {

// One thread alone walks: ThreadSanitizer, which makes it slow, has nothing to see.
#ifdef __SANITIZE_THREAD__
constexpr uint64_t kLessOften = 10;
#else
constexpr uint64_t kLessOften = 1;
#endif

class RandomWalk {
 public:
  explicit RandomWalk(uint64_t seed) : random_(seed), ring(some_parameters()) {}

  void step() {
    const uint64_t choice = pick(0, 99);
    const ModelProducer* producer = any(ring.producers());
    const ModelConsumer* consumer = any(ring.consumers());
    if (choice < 44 && producer != nullptr)
      produce(*producer, choice);
    else if (choice < 74 && consumer != nullptr)
      consume(*consumer, choice);
    else if (choice < 82)
      join_or_leave(producer, consumer);
    else if (choice < 85)
      ring.set_parameters(other_parameters());
    else if (choice < 87)
      ring.set_mode(chance(60));
    else if (choice < 88)
      ring.set_format(
          std::max<uint64_t>(std::min<uint64_t>(pick(1, 8 * kPage), ring.largest_frame()), 1));
    else if (choice < 89)
      ring.reset();
    else if (choice < 91)
      chance(50) ? ring.tick() : ring.housekeep();
    else if (choice < 92)
      ring.rest();
    else if (choice < 94)
      map_landing(producer);
    else
      ring.pass(static_cast<Nanoseconds>(chance(20) ? pick(0, 3000) : pick(0, 120)) * kMillisecond);
  }

  uint64_t pick(uint64_t low, uint64_t high) {
    return std::uniform_int_distribution<uint64_t>(low, high)(random_);
  }
  bool chance(uint64_t percent) { return pick(0, 99) < percent; }

 private:
  template <typename T>
  const T* any(const std::vector<T>& of) {
    return of.empty() ? nullptr : &of[pick(0, of.size() - 1)];
  }

  RingParameters some_parameters() {
    RingParameters parameters;
    parameters.dynamic = chance(60);
    parameters.max_buffers = static_cast<uint32_t>(pick(1, 4));
    parameters.max = 64 * kPage;
    parameters.shrink_delay_ms = 1000;
    parameters.stall_timeout_ms = 300;
    return parameters;
  }

  void produce(const ModelProducer& producer, uint64_t choice) {
    if (choice < 18 && producer.claims.size() < 2) {
      const uint64_t room = chance(5) ? pick(1, 80 * kPage) : pick(1, 2 * ring.sizeimage());
      ring.claim(producer.id, room, pick(1, room), chance(30));
    } else if (choice >= 43) {
      chance(20) ? ring.count_aborted(pick(1, 3)) : ring.stop_claiming(producer.id);
    } else if (producer.claims.empty()) {
      return;
    } else if (choice < 39) {
      const auto ago = static_cast<int64_t>(pick(0, kSecond));
      ring.publish(producer.id, chance(50) ? ring.now() - ago : 0);
    } else if (choice < 41) {
      ring.abort(producer.id, pick(0, producer.claims.size() - 1), chance(50));
    } else {
      ring.touch_claims(producer.id);
    }
  }

  void consume(const ModelConsumer& consumer, uint64_t choice) {
    const uint64_t what = choice % 30;
    if (what < 20)
      ring.take(consumer.id);
    else if (what < 22)
      hold_or_let_go(consumer);
    else if (what < 25)
      ring.release(consumer.id);
    else if (what < 26)
      ring.touch(consumer.id);
    else if (what < 27)
      ring.stop_waiting(consumer.id);
    else if (what < 29)
      ring.repeat(consumer.id);
    else
      ring.substitute(consumer.id, pick(1, 10000));
  }

  void join_or_leave(const ModelProducer* producer, const ModelConsumer* consumer) {
    switch (pick(0, 3)) {
      case 0:
        if (ring.producers().size() < 4)
          ring.join_producer(consumer != nullptr && chance(20) ? consumer->id : 0);
        break;
      case 1:
        if (producer != nullptr && producer->claims.empty()) ring.leave_producer(producer->id);
        break;
      case 2:
        if (ring.consumers().size() < 4) ring.join_consumer();
        break;
      case 3:
        if (consumer != nullptr) ring.leave_consumer(consumer->id);
        break;
    }
  }

  void hold_or_let_go(const ModelConsumer& consumer) {
    if (ring.held() > 0 && (ring.held() > 3 || chance(50)))
      ring.let_go(pick(0, ring.held() - 1));
    else
      ring.hold(consumer.id);
  }

  void map_landing(const ModelProducer* producer) {
    if (!ring.has_landing())
      ring.map_landing(pick(1, 2 * ring.sizeimage()));
    else if (producer != nullptr && !producer->claims.empty() && chance(70))
      ring.exchange(producer->id);
    else
      ring.unmap_landing();
  }

  RingParameters other_parameters() {
    RingParameters next = ring.parameters();
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
    return next;
  }

  std::mt19937_64 random_;

 public:
  RingModel ring;
};

// Its steps, its end, and what went wrong in which of them.
void walk(RandomWalk& walk, int steps, const std::string& where) {
  for (int step = 0; step < steps; ++step) {
    try {
      walk.step();
    } catch (const check::Failure& failure) {
      throw check::Failure(std::string(failure.what()) + "\n    in step " + std::to_string(step) +
                           " (" + walk.ring.last() + ") of " + where);
    }
  }
  const check::Scope scope("the end of " + where);
  walk.ring.finish();
}

}  // namespace

TEST(ringAgreesWithItsModel) {
  uint64_t delivered = 0, dropped = 0, growths = 0, shrinks = 0, deferred = 0, refusals = 0;
  for (uint64_t seed = 1; seed <= 40 / kLessOften; ++seed) {
    RandomWalk random(seed);
    // Short of memory for a while, as often as not.
    bool short_of_memory = false;
    random.ring.refuses = [&](uint64_t) {
      if (random.chance(10)) short_of_memory = random.chance(30);
      return short_of_memory && random.chance(70);
    };
    walk(random, 4000, "seed " + std::to_string(seed));
    delivered += random.ring.frames_delivered;
    dropped += random.ring.frames_dropped;
    growths += random.ring.growths;
    shrinks += random.ring.shrinks;
    deferred += random.ring.deferred;
    refusals += random.ring.refusals;
  }
  std::printf(
      "      %lu delivered, %lu dropped, %lu growths, %lu shrinks, %lu deferred, %lu refused\n",
      delivered, dropped, growths, shrinks, deferred, refusals);
  // A model check in which nothing happens proves nothing.
  CHECK(delivered > 10000 / kLessOften && dropped > 1000 / kLessOften);
  CHECK(growths > 100 / kLessOften && shrinks > 100 / kLessOften);
  CHECK(deferred > 50 / kLessOften && refusals > 50 / kLessOften);
}

TEST(ringKeepsItsPromisesWhereverMemoryIsRefused) {
  constexpr int kSteps = 300;
  uint64_t points = 0, refusals = 0;
  for (uint64_t seed = 1; seed <= 40 / kLessOften; ++seed) {
    RandomWalk unhindered(seed);
    walk(unhindered, kSteps, "seed " + std::to_string(seed));
    const uint64_t asked = unhindered.ring.asked;
    for (uint64_t point = 1; point <= asked; ++point) {
      for (const bool from_then_on : {false, true}) {
        RandomWalk random(seed);
        random.ring.refuses = [&](uint64_t now) {
          return from_then_on ? now >= point : now == point;
        };
        walk(random, kSteps,
             "seed " + std::to_string(seed) + ", refused at " + std::to_string(point) +
                 (from_then_on ? " and ever after" : ""));
        refusals += random.ring.refusals;
        ++points;
      }
    }
  }
  std::printf("      refused at %lu points, which ended growth %lu times\n", points, refusals);
  CHECK(points > 500 / kLessOften && refusals > 100 / kLessOften);
}
