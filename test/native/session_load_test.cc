// Producers and consumers of checksummed frames on a session under the sanitizers, while others are
// killed at any moment, and devices come and go.
#include <signal.h>
#include <time.h>

#include <cstdio>
#include <memory>
#include <random>
#include <thread>

#include "check.h"
#include "client_process.h"
#include "live_session.h"

using namespace loopback;
using std::chrono::seconds;

namespace {

constexpr seconds kDeadline(120);
constexpr uint32_t kLossless = 1, kStatic = 2, kDropping = 3, kComing = 9;

using Clients = std::vector<std::unique_ptr<ClientProcess>>;

struct Picture {
  const char* size;
  const char* fps;
  uint64_t bytes;
  int slow_ms;  // A reader that takes so long for each does not keep up.
};
constexpr Picture kSmall{"64x48", "150", 6144, 50};
// Goes out beside the lock, on a thread of its own (fuse_threads.cc).
constexpr Picture kLarge{"1024x768", "6", 1572864, 400};

struct Load {
  Load(IoMode mode, uint32_t seed, const Picture& shown)
      : live(mode), random(seed), picture(shown) {
    DeviceSetup lossless = device(kLossless);
    lossless.ring.dynamic = true;
    lossless.ring.stall_timeout_ms = 0;
    live.add(std::move(lossless));
    live.add(device(kStatic));
    DeviceSetup dropping = device(kDropping);
    dropping.ring.dynamic = true;
    dropping.ring.overflow = Overflow::kDrop;
    live.add(std::move(dropping));
  }

  static DeviceSetup device(uint32_t number) {
    DeviceSetup setup = LiveSession::small_device(number);
    setup.max_width = 1024;
    setup.max_height = 768;
    setup.ring.max = 64 << 20;
    return setup;
  }

  uint32_t below(uint32_t bound) { return random() % bound; }

  std::unique_ptr<ClientProcess> producer(uint32_t number, const std::string& method) {
    return std::make_unique<ClientProcess>(
        "frame_producer",
        std::vector<std::string>{live.path(number), "--size", picture.size, "--method", method,
                                 "--id", std::to_string(++last_id), "--fps", picture.fps});
  }
  std::unique_ptr<ClientProcess> consumer(uint32_t number, const std::string& method,
                                          int delay_ms = 0) {
    return std::make_unique<ClientProcess>(
        "frame_consumer", std::vector<std::string>{live.path(number), "--method", method,
                                                   "--delay-ms", std::to_string(delay_ms)});
  }

  // Somebody who does not live long.
  std::unique_ptr<ClientProcess> victim() {
    static const char* const kProducers[] = {"write", "mmap"};
    static const char* const kConsumers[] = {"read", "mmap", "mmap-poll", "read-poll"};
    if (below(2) == 0) return producer(below(2) == 0 ? kLossless : kDropping, kProducers[below(2)]);
    return consumer(kLossless + below(3), kConsumers[below(4)], below(3) == 0 ? 30 : 0);
  }

  // Every frame published to a consumer is accounted for, in one reading.
  void check_accounts() {
    for (const uint32_t number : {kLossless, kStatic, kDropping}) {
      for (const ConsumerReport& row : live.reports(number)) {
        CHECK_EQ(row.published, row.delivered + row.dropped + row.owed + row.left);
        if (number == kLossless) CHECK_EQ(row.dropped, 0u);
      }
    }
  }

  void let_a_device_come_and_go() {
    DeviceSetup setup = LiveSession::small_device(kComing);
    setup.ring.dynamic = below(2) == 0;
    live.add(std::move(setup));
    check_frames_pass(live, kComing);
    eventually("the device can be removed",
               [&] { return live.session().remove_device(kComing) == 0; });
  }

  LiveSession live;
  std::mt19937 random;
  const Picture picture;
  uint32_t last_id = 0;
};

void check_consumer(ClientProcess& consumer, bool lossless) {
  consumer.signal(SIGTERM);
  const std::string done = consumer.line_with("\"done\"", kDeadline);
  const check::Scope scope(done);
  CHECK_EQ(consumer.wait(kDeadline), 0);
  CHECK(number_in(done, "frames") > 0);
  CHECK_EQ(number_in(done, "torn"), 0);
  CHECK_EQ(number_in(done, "reordered"), 0);
  if (lossless) CHECK_EQ(number_in(done, "gaps"), 0);
}

void bear(IoMode mode, uint32_t seed, const Picture& picture, int deaths) {
  const check::Scope scope(picture.size);
  Load load(mode, seed, picture);
  LiveSession& live = load.live;
  const size_t descriptors = descriptors_at_rest();
  Clients producers, lossless, others;
  producers.push_back(load.producer(kLossless, "write"));
  producers.push_back(load.producer(kLossless, "mmap"));
  producers.push_back(load.producer(kStatic, "write"));
  producers.push_back(load.producer(kDropping, "mmap"));
  for (auto& producer : producers) producer->line_with("\"ready\"", kDeadline);
  for (const char* method : {"read", "mmap", "mmap-poll", "read-poll"}) {
    lossless.push_back(load.consumer(kLossless, method));
  }
  others.push_back(load.consumer(kStatic, "mmap"));
  others.push_back(load.consumer(kDropping, "read", 20));
  for (auto* clients : {&lossless, &others}) {
    for (auto& client : *clients) client->line_with("\"first\"", kDeadline);
  }

  for (int death = 0; death < deaths; ++death) {
    const auto victim = load.victim();
    // Some die on their way to the device, some at work.
    if (load.below(3) != 0) victim->line_with("\"ready\"", kDeadline);
    const timespec moment{0, load.below(30) * 1000000};
    nanosleep(&moment, nullptr);
    victim->signal(SIGKILL);
    CHECK_EQ(victim->wait(kDeadline), 128 + SIGKILL);
    load.check_accounts();
    if (death % 8 == 7) load.let_a_device_come_and_go();
  }

  // A reader that does not keep up makes the ring grow; when it has gone, the ring shrinks.
  {
    const auto slow = load.consumer(kLossless, "read", picture.slow_ms);
    eventually("the ring grows", [&] { return live.counters(kLossless).expand_count > 0; });
  }
  eventually("the ring shrinks", [&] { return live.counters(kLossless).shrink_count > 0; });

  for (auto& client : lossless) check_consumer(*client, true);
  for (auto& client : others) check_consumer(*client, false);
  for (auto& producer : producers) {
    producer->signal(SIGTERM);
    CHECK_EQ(producer->wait(kDeadline), 0);
  }
  load.check_accounts();
  const RingCounters counters = live.counters(kLossless);
  const uint64_t published = counters.published_frames;
  CHECK_EQ(counters.published_bytes, published * picture.bytes);
  std::printf("      %s, %s: %d killed, %llu frames published without a loss\n", io_mode_name(mode),
              picture.size, deaths, static_cast<unsigned long long>(published));
  producers.clear();
  lossless.clear();
  others.clear();
  for (const uint32_t number : {kLossless, kStatic, kDropping}) {
    eventually("the ring is empty", [&] {
      const RingCounters counters = live.counters(number);
      return counters.producers + counters.consumers + counters.owed_frames + counters.held_frames +
                 counters.used + counters.resident ==
             0;
    });
  }
  CHECK_EQ(live.openers(), 0u);
  eventually("as many descriptors as before", [&] { return open_descriptors() == descriptors; });
}

}  // namespace

TEST(nothingIsTornAndNothingStaysWhileClientsAreKilled) {
  // A sanitizer starts a thread of its own with the first of ours.
  std::thread([] {}).join();
  const size_t descriptors = descriptors_at_rest();
  const size_t before = threads();
  const uint32_t seed = std::random_device()();
  const check::Scope scope("seed " + std::to_string(seed));
  for (IoMode mode : granted_modes()) {
    const check::Scope in_mode(io_mode_name(mode));
    bear(mode, seed, kSmall, under_thread_sanitizer() ? 40 : 100);
    bear(mode, seed, kLarge, 30);
  }
  eventually("as many descriptors as before the mounts",
             [&] { return open_descriptors() == descriptors; });
  eventually("as many threads as before the mounts", [&] { return threads() == before; });
}

TEST(limitsOfWhichNoTwoFramesFitAreRefused) {
  LiveSession live(granted_modes().front());
  // 65536 x 65536 YUYV: as a number of 32 bits its size is 0.
  DeviceSetup setup = LiveSession::small_device(1);
  setup.min_width = setup.max_width = setup.min_height = setup.max_height = 65536;
  CHECK(live.session().add_device(setup) != "");
  CHECK_EQ(live.session().device_numbers().size(), 0u);
  live.add(LiveSession::small_device(1));
  CHECK(live.session().add_device(LiveSession::small_device(1)) != "");
}
