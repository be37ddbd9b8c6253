// Producers and consumers in threads of their own, for ThreadSanitizer: every frame carries its
// producer, its turn and a checksum.
#include <atomic>
#include <chrono>
#include <cstring>
#include <map>
#include <string>
#include <thread>
#include <vector>

#include "check.h"
#include "ring.h"

using namespace loopback;

namespace {

struct Header {
  uint64_t producer, turn, bytes, checksum;
};

uint64_t checksum_of(const uint8_t* data, uint64_t bytes) {
  uint64_t sum = 0xcbf29ce484222325u;
  for (uint64_t at = sizeof(Header); at < bytes; ++at) sum = (sum ^ data[at]) * 0x100000001b3u;
  return sum;
}

// What a thread found wrong, for the thread that runs the test.
class Findings {
 public:
  void add(const std::string& text) {
    std::lock_guard lock(mutex_);
    if (text_.empty()) text_ = text;
    any_ = true;
  }
  bool any() const { return any_; }
  std::string text() {
    std::lock_guard lock(mutex_);
    return text_;
  }

 private:
  std::mutex mutex_;
  std::atomic<bool> any_{false};
  std::string text_;
};

struct Bench {
  explicit Bench(const RingParameters& parameters, size_t sizeimage = 4096)
      : ring({.sizeimage = sizeimage,
              .parameters = parameters,
              .now = monotonic_now(),
              .observe = {},
              .wake_housekeeper = {},
              .budget = std::make_shared<MemoryBudget>([this] {
                return Headroom{short_of_memory ? 0 : uint64_t{1} << 40, "a test"};
              }),
              .allow_mapping = [this](size_t) { return !short_of_memory || ++asked % 2 == 0; }}) {}

  // A minute is far more than is needed; it only keeps a fault from hanging the tests.
  bool over() const { return findings.any() || monotonic_now() - started > 60 * kSecond; }

  // Returns false where the ring has no place for it (static mode), or at the end.
  bool produce(Producer* producer, uint64_t id, uint64_t turn, uint64_t bytes,
               Slot* landed = nullptr) {
    Claim* claim = nullptr;
    Nanoseconds retry_at;
    ClaimAnswer answer;
    while ((answer = ring.claim(producer, bytes, monotonic_now(), &claim, &retry_at)) !=
           ClaimAnswer::kGranted) {
      const bool refused = answer == ClaimAnswer::kNoMemory && may_be_short;
      if (answer != ClaimAnswer::kFull && !refused) findings.add("a claim was refused for good");
      if (over()) break;
      std::this_thread::yield();
    }
    if (answer != ClaimAnswer::kGranted) {
      if (landed != nullptr) Slots::unmap(landed);
      return false;
    }
    // Its bytes may have landed elsewhere.
    if (landed != nullptr && landed->capacity >= bytes) landed = ring.exchange(claim, landed);
    uint8_t* data = claim->data();
    for (uint64_t at = sizeof(Header); at < bytes; ++at) {
      data[at] = static_cast<uint8_t>(id * 7 + turn * 13 + at);
    }
    const Header header{id, turn, bytes, checksum_of(data, bytes)};
    std::memcpy(data, &header, sizeof(header));
    if (turn % 50 == 49) {
      ring.abort(claim, true, monotonic_now());
      return produce(producer, id, turn * 1000000, bytes, landed);  // Not 49 modulo 50.
    }
    ring.publish(claim, bytes, {}, monotonic_now());
    if (landed != nullptr) Slots::unmap(landed);
    return true;
  }

  // Takes one frame and checks it; nullopt where there is none.
  std::optional<Header> consume(Consumer* consumer) {
    const Frame* frame = ring.take(consumer, monotonic_now());
    return frame == nullptr ? std::nullopt : check(consumer, frame);
  }

  std::optional<Header> check(Consumer* consumer, const Frame* frame) {
    Header header;
    std::memcpy(&header, frame->data(), sizeof(header));
    if (header.bytes != frame->bytesused)
      findings.add("a frame has another length than published");
    else if (checksum_of(frame->data(), header.bytes) != header.checksum) {
      findings.add("a frame is torn");
    }
    ring.release(consumer, monotonic_now());
    return header;
  }

  void check_law() {
    for (const ConsumerReport& row : ring.consumer_reports(monotonic_now())) {
      if (row.published != row.delivered + row.dropped + row.owed + row.left) {
        findings.add("the accounting law is broken for " + row.command);
      }
    }
  }

  ConsumerReport report_of(pid_t pid) {
    for (ConsumerReport& row : ring.consumer_reports(monotonic_now())) {
      if (row.pid == pid) return row;
    }
    findings.add("a consumer has no row");
    return {};
  }

  // Memory that is refused: every look, and every other slot.
  bool may_be_short = false;
  std::atomic<bool> short_of_memory{false};
  std::atomic<uint64_t> asked{0};
  Ring ring;
  Findings findings;
  Nanoseconds started = monotonic_now();
};

void join_all(std::vector<std::thread>& threads) {
  for (std::thread& thread : threads) thread.join();
  threads.clear();
}

}  // namespace

TEST(ringLosesNothingBetweenThreadsWhileItResizes) {
  constexpr uint64_t kProducers = 3, kConsumers = 3, kFrames = 300;
  RingParameters parameters;
  parameters.dynamic = true;
  parameters.max = 256 * 4096;
  parameters.stall_timeout_ms = 0;
  parameters.shrink_delay_ms = 1;
  Bench bench(parameters);
  std::vector<Consumer*> consumers;
  for (uint64_t i = 0; i < kConsumers; ++i) {
    consumers.push_back(
        bench.ring.join_consumer({static_cast<pid_t>(i + 1), "c"}, monotonic_now()));
  }
  std::atomic<uint64_t> consuming{kConsumers};
  std::vector<std::thread> threads;
  for (uint64_t id = 1; id <= kProducers; ++id) {
    threads.emplace_back([&bench, id] {
      Producer* producer = bench.ring.join_producer({static_cast<pid_t>(id), "p"}, monotonic_now());
      for (uint64_t turn = 1; turn <= kFrames && !bench.over(); ++turn) {
        bench.produce(producer, id, turn, sizeof(Header) + (turn * 2654435761u) % 20000);
      }
      bench.ring.leave_producer(producer, monotonic_now());
    });
  }
  for (uint64_t i = 0; i < kConsumers; ++i) {
    threads.emplace_back([&bench, &consuming, consumer = consumers[i]] {
      uint64_t taken = 0;
      while (taken < kProducers * kFrames && !bench.over()) {
        if (bench.consume(consumer))
          ++taken;
        else
          std::this_thread::yield();
      }
      if (taken != kProducers * kFrames) {
        bench.findings.add("a consumer got " + std::to_string(taken) + " frames");
      }
      --consuming;
    });
  }
  threads.emplace_back([&bench, &consuming] {
    for (uint32_t round = 0; consuming > 0 && !bench.over(); ++round) {
      bench.ring.housekeep(monotonic_now());
      bench.check_law();
      RingParameters next = bench.ring.parameters();
      next.max = (64 + round % 200) * 4096;
      bench.ring.set_parameters(next, false, monotonic_now());
      bench.ring.counters(monotonic_now());
      std::this_thread::yield();
    }
  });
  join_all(threads);
  CHECK_EQ(bench.findings.text(), "");
  const RingCounters counters = bench.ring.counters(monotonic_now());
  CHECK_EQ(counters.dropped_frames, 0u);
  CHECK_EQ(counters.published_frames, kProducers * kFrames);
  CHECK_EQ(counters.delivered_frames, kProducers * kConsumers * kFrames);
  CHECK_EQ(counters.aborted_frames, kProducers * (kFrames / 50));
  CHECK(counters.expand_count > 0);
}

TEST(ringDeliversWholeFramesInOrderWhateverIsDoneToIt) {
  constexpr uint64_t kRounds = 400;
  RingParameters parameters;
  parameters.dynamic = true;
  parameters.max = 64 * 4096;
  parameters.stall_timeout_ms = 1;
  Bench bench(parameters);
  std::atomic<bool> ended{false};
  const auto at_end = [&] { return ended || bench.over(); };
  std::vector<std::thread> threads;
  for (uint64_t place = 0; place < 3; ++place) {
    threads.emplace_back([&, place] {
      // Each stay of a producer is one of its own, with turns of its own.
      for (uint64_t stay = 0; !at_end(); ++stay) {
        const uint64_t id = place * 1000000 + stay;
        Producer* producer = bench.ring.join_producer({1, "p"}, monotonic_now());
        for (uint64_t turn = 1; producer != nullptr && turn < 40 && !at_end(); ++turn) {
          bench.produce(producer, id, turn, sizeof(Header) + (turn * 40503) % 9000);
        }
        if (producer != nullptr) bench.ring.leave_producer(producer, monotonic_now());
        std::this_thread::yield();
      }
    });
  }
  std::atomic<uint64_t> delivered{0};
  for (int i = 0; i < 3; ++i) {
    threads.emplace_back([&, i] {
      while (!at_end()) {
        Consumer* consumer = bench.ring.join_consumer({i + 1, "c"}, monotonic_now());
        std::map<uint64_t, uint64_t> last_turn;
        for (int taken = 0; taken < 100 && !at_end();) {
          const std::optional<Header> header = bench.consume(consumer);
          if (!header) {
            std::this_thread::yield();
            continue;
          }
          ++taken;
          ++delivered;
          // Turns are multiplied after an abort, so only their order within a run is told.
          const uint64_t turn = header->turn >= 1000000 ? header->turn / 1000000 : header->turn;
          if (turn <= last_turn[header->producer]) bench.findings.add("frames are out of order");
          last_turn[header->producer] = turn;
        }
        bench.ring.leave_consumer(consumer, monotonic_now());
      }
    });
  }
  threads.emplace_back([&] {
    while (!at_end()) {
      bench.ring.housekeep(monotonic_now());
      bench.check_law();
      std::this_thread::yield();
    }
  });
  for (uint64_t round = 0; round < kRounds && !bench.over(); ++round) {
    const uint64_t seen = delivered;
    RingParameters next = bench.ring.parameters();
    switch (round % 6) {
      case 0:
      case 3:
        next.dynamic = !next.dynamic;
        bench.ring.set_parameters(next, true, monotonic_now());
        break;
      case 1:
        bench.ring.reset_counters(monotonic_now());
        break;
      case 2:
        next.overflow = next.overflow == Overflow::kDrop ? Overflow::kBlock : Overflow::kDrop;
        next.lap = round % 4 == 0 ? Lap::kNewest : Lap::kOldest;
        bench.ring.set_parameters(next, false, monotonic_now());
        break;
      case 4:
        bench.ring.set_sizeimage(4096 + round % 3 * 4096, monotonic_now());
        break;
      case 5:
        next.max = (32 + round % 64) * 4096;
        bench.ring.set_parameters(next, false, monotonic_now());
        break;
    }
    // Something must come through after each change, or it is stuck.
    while (delivered == seen && !bench.over()) std::this_thread::yield();
  }
  const bool in_time = !bench.over();
  ended = true;
  join_all(threads);
  CHECK_EQ(bench.findings.text(), "");
  CHECK(in_time);
  bench.check_law();
  CHECK_EQ(bench.findings.text(), "");
  const RingCounters counters = bench.ring.counters(monotonic_now());
  CHECK_EQ(counters.producers + counters.consumers, 0u);
  CHECK_EQ(counters.held_frames, 0u);
  CHECK_EQ(counters.used, 0u);
}

TEST(ringLosesNothingBetweenThreadsWhileMemoryIsRefused) {
  constexpr uint64_t kProducers = 3, kConsumers = 2, kFrames = 300;
  RingParameters parameters;
  parameters.dynamic = true;
  parameters.max = 128 * 4096;
  parameters.stall_timeout_ms = 0;
  parameters.shrink_delay_ms = 1;
  Bench bench(parameters);
  bench.may_be_short = true;
  const auto join = [&bench](pid_t pid) {
    return bench.ring.join_consumer({pid, "c"}, monotonic_now());
  };
  std::vector<Consumer*> consumers;
  for (uint64_t i = 0; i < kConsumers; ++i) consumers.push_back(join(static_cast<pid_t>(i + 1)));
  std::atomic<uint64_t> consuming{kConsumers};
  const auto at_end = [&] { return consuming == 0 || bench.over(); };

  std::vector<std::thread> threads;
  for (uint64_t id = 1; id <= kProducers; ++id) {
    threads.emplace_back([&, id] {
      Producer* producer = bench.ring.join_producer({static_cast<pid_t>(id), "p"}, monotonic_now());
      // A consumer of the producer's own takes nothing, and holds nobody up.
      Consumer* own = id == 1 ? join(100) : nullptr;
      if (own != nullptr) bench.ring.set_own_consumer(producer, own);
      for (uint64_t turn = 1; turn <= kFrames && !bench.over(); ++turn) {
        const uint64_t bytes = sizeof(Header) + (turn * 2654435761u) % 20000;
        Slot* landed = turn % 3 == 0 ? Slots::map_slot(bytes) : nullptr;
        Nanoseconds retry_at;
        if (turn % 5 == 0) bench.ring.has_room(producer, bytes, monotonic_now(), &retry_at);
        if (turn % 7 == 0) bench.ring.stop_claiming(producer);
        bench.produce(producer, id, turn, bytes, landed);
      }
      if (own != nullptr) bench.ring.leave_consumer(own, monotonic_now());
      bench.ring.leave_producer(producer, monotonic_now());
    });
  }
  for (uint64_t i = 0; i < kConsumers; ++i) {
    threads.emplace_back([&, i, consumer = consumers[i]] {
      uint64_t taken = 0;
      while (taken < kProducers * kFrames && !bench.over()) {
        if (bench.consume(consumer))
          ++taken;
        else
          std::this_thread::yield();
        if (taken % 11 == 0) bench.ring.stop_waiting(consumer);
        bench.ring.touch(consumer, monotonic_now());
      }
      const ConsumerReport row = bench.report_of(static_cast<pid_t>(i + 1));
      if (taken != kProducers * kFrames || row.delivered != taken || row.dropped != 0)
        bench.findings.add("a consumer got " + std::to_string(taken) + " frames of " +
                           std::to_string(row.published) + ", lost " + std::to_string(row.dropped));
      --consuming;
    });
  }
  // One comes and goes, and is shown frames again and images that never were in the ring.
  threads.emplace_back([&] {
    while (!at_end()) {
      Consumer* consumer = join(50);
      uint64_t shown = 0;
      for (int turn = 0; turn < 40 && !at_end(); ++turn) {
        const Frame* again = turn % 4 == 0 ? bench.ring.repeat(consumer, monotonic_now()) : nullptr;
        if (again != nullptr) {
          bench.check(consumer, again);
          ++shown;
        } else if (turn % 9 == 0) {
          bench.ring.count_substitute(consumer, 100, monotonic_now());
          ++shown;
        } else if (bench.consume(consumer)) {
          ++shown;
        }
      }
      // A frame that came while it waited counts as delivered, until it leaves without it.
      bench.ring.stop_waiting(consumer);
      const uint64_t delivered = bench.report_of(50).delivered;
      if (delivered != shown && delivered != shown + 1)
        bench.findings.add("a consumer was shown " + std::to_string(shown) + " frames, not " +
                           std::to_string(delivered));
      bench.ring.leave_consumer(consumer, monotonic_now());
    }
  });
  uint64_t refusals = 0;
  threads.emplace_back([&] {
    for (uint64_t round = 0; !at_end(); ++round) {
      bench.short_of_memory = round % 3 != 0;
      bench.ring.housekeep(monotonic_now());
      bench.check_law();
      RingParameters next = bench.ring.parameters();
      if (!next.dynamic) ++refusals;
      next.dynamic = true;
      next.max_buffers = 1 + round % 4;
      bench.ring.set_parameters(next, round % 2 == 0, monotonic_now());
      std::this_thread::yield();
    }
  });
  join_all(threads);
  bench.short_of_memory = false;
  CHECK_EQ(bench.findings.text(), "");
  CHECK(refusals > 0);
  for (Consumer* consumer : consumers) bench.ring.leave_consumer(consumer, monotonic_now());
  bench.check_law();
  CHECK_EQ(bench.findings.text(), "");
  const RingCounters counters = bench.ring.counters(monotonic_now());
  CHECK_EQ(counters.published_frames, kProducers * kFrames);
  CHECK_EQ(counters.aborted_frames, kProducers * (kFrames / 50));
  CHECK_EQ(counters.used + counters.held_frames, 0u);
  bench.ring.housekeep(monotonic_now() + 2 * kSecond);
  bench.ring.housekeep(monotonic_now() + 4 * kSecond);
  CHECK_EQ(bench.ring.counters(monotonic_now()).resident, 0u);
}
