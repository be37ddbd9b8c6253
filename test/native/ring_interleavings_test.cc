// Short threads in every order that there is: each has a few steps to do, and all ways to
// interleave them are tried, one after the other.
#include <algorithm>
#include <cstdio>

#include "check.h"
#include "ring_model.h"

using namespace model;

namespace {

#ifdef __SANITIZE_THREAD__
constexpr size_t kEvery = 25;  // One thread walks through them all: there is nothing to see.
#else
constexpr size_t kEvery = 1;
#endif

using Step = std::function<void(RingModel&)>;
using Thread = std::vector<Step>;

// A producer of frames of so many pages. `id` lives as long as the threads do.
Thread producer_of(uint64_t frame_pages, std::shared_ptr<int> id = std::make_shared<int>()) {
  const uint64_t bytes = frame_pages * kPage;
  const auto has_claim = [id](RingModel& ring) {
    for (const ModelProducer& producer : ring.producers()) {
      if (producer.id == *id) return !producer.claims.empty();
    }
    return false;
  };
  const Step claim = [id, bytes](RingModel& ring) {
    if (*id != 0) ring.claim(*id, bytes, bytes);
  };
  const Step publish = [id, has_claim](RingModel& ring) {
    if (has_claim(ring)) ring.publish(*id);
  };
  return {[id](RingModel& ring) { *id = ring.join_producer(); }, claim, publish,
          [=](RingModel& ring) {
            claim(ring);
            publish(ring);
          },
          [id, has_claim](RingModel& ring) {
            while (has_claim(ring)) ring.abort(*id, 0, true);
            if (*id != 0) ring.leave_producer(*id);
          }};
}

Thread consumer_of_two(std::shared_ptr<int> id = std::make_shared<int>()) {
  const Step take = [id](RingModel& ring) { ring.take(*id); };
  return {[id](RingModel& ring) { *id = ring.join_consumer(); }, take, take,
          [id](RingModel& ring) { ring.leave_consumer(*id); }};
}

// All orders of the threads' steps, each on a ring of its own. Returns how many there were.
size_t interleave(const RingParameters& parameters, const std::vector<Thread>& threads,
                  const std::string& what) {
  std::vector<size_t> order;
  for (size_t thread = 0; thread < threads.size(); ++thread)
    order.insert(order.end(), threads[thread].size(), thread);
  size_t count = 0;
  do {
    if (++count % kEvery != 0) continue;
    RingModel ring(parameters, kPage);
    std::vector<size_t> next(threads.size());
    std::string done;
    try {
      for (const size_t thread : order) {
        done += " " + std::to_string(thread);
        threads[thread][next[thread]++](ring);
        // Time enough for whoever waits to lose patience now and then.
        ring.pass(40 * kMillisecond);
      }
      ring.finish();
    } catch (const check::Failure& failure) {
      throw check::Failure(std::string(failure.what()) + "\n    with " + what +
                           ", in the order of threads" + done + " (" + ring.last() + ")");
    }
  } while (std::next_permutation(order.begin(), order.end()));
  return count;
}

// Four pages at first, room for eight; frames of two pages make it grow and fill.
RingParameters small_ring(bool dynamic, Overflow overflow) {
  RingParameters parameters;
  parameters.dynamic = dynamic;
  parameters.overflow = overflow;
  parameters.min = 4 * kPage;
  parameters.max = 8 * kPage;
  parameters.stall_timeout_ms = 100;
  parameters.shrink_delay_ms = 100;
  return parameters;
}

Step change(std::function<void(RingParameters&)> with) {
  return [with](RingModel& ring) {
    RingParameters next = ring.parameters();
    with(next);
    ring.set_parameters(next);
  };
}

}  // namespace

TEST(ringAgreesWithItsModelInEveryOrderOfTwoProducersAndAConsumer) {
  size_t count = 0;
  for (const bool dynamic : {true, false}) {
    for (const Overflow overflow : {Overflow::kBlock, Overflow::kDrop}) {
      if (!dynamic && overflow == Overflow::kDrop) continue;
      // The second claim and the second take are left out: orders would be too many.
      Thread one = producer_of(3), other = producer_of(3), consumer = consumer_of_two();
      for (Thread* each : {&one, &other}) each->erase(each->begin() + 3);
      consumer.erase(consumer.begin() + 2);
      count += interleave(small_ring(dynamic, overflow), {one, other, consumer},
                          dynamic ? "a dynamic ring" : "a static ring");
    }
  }
  std::printf("      %zu orders\n", count);
}

TEST(ringAgreesWithItsModelWhereverSomethingElseHappensBetween) {
  const auto guest = std::make_shared<int>();
  const std::pair<const char*, Thread> disturbances[] = {
      {"a change of mode and back",
       {[](RingModel& ring) { ring.set_mode(false); },
        [](RingModel& ring) { ring.set_mode(true); }}},
      {"a change of format and back",
       {[](RingModel& ring) { ring.set_format(3 * kPage); },
        [](RingModel& ring) { ring.set_format(kPage); }}},
      {"two resets",
       {[](RingModel& ring) { ring.reset(); }, [](RingModel& ring) { ring.reset(); }}},
      {"a smaller max, and a larger one",
       {change([](RingParameters& next) { next.max = 4 * kPage; }),
        change([](RingParameters& next) { next.max = 16 * kPage; })}},
      {"two chances to shrink",
       {[](RingModel& ring) {
          ring.pass(200 * kMillisecond);
          ring.housekeep();
        },
        [](RingModel& ring) {
          ring.pass(200 * kMillisecond);
          ring.tick();
        }}},
      {"memory that is refused for a while",
       {[](RingModel& ring) { ring.refuses = [](uint64_t) { return true; }; },
        [](RingModel& ring) {
          ring.refuses = [](uint64_t) { return false; };
          ring.set_mode(true);
        }}},
      {"another consumer, which takes nothing",
       {[=](RingModel& ring) { *guest = ring.join_consumer(); },
        [=](RingModel& ring) { ring.leave_consumer(*guest); }}},
  };
  size_t count = 0;
  for (const auto& [what, disturbance] : disturbances) {
    count += interleave(small_ring(true, Overflow::kBlock),
                        {producer_of(3), consumer_of_two(), disturbance}, what);
  }
  std::printf("      %zu orders\n", count);
}
