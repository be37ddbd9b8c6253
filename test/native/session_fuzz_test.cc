// Malformed ioctls from several ordinary users at once, on a session under the sanitizers.
#include <time.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <random>

#include "check.h"
#include "client_process.h"
#include "live_session.h"

using namespace loopback;
using std::chrono::seconds;

namespace {

constexpr uint32_t kClients = 4;
constexpr uint32_t kDevices = 4;

uint64_t number_from(const char* variable, uint64_t otherwise) {
  const char* text = getenv(variable);
  return text != nullptr ? strtoull(text, nullptr, 0) : otherwise;
}

void add_devices(LiveSession* live) {
  for (uint32_t number = 0; number < kDevices; ++number) {
    DeviceSetup setup = LiveSession::small_device(number);
    setup.ring.dynamic = number % 2 == 1;
    setup.exclusive_caps = number >= 2;
    live->add(std::move(setup));
  }
}

// What a hostile client may leave behind is no more than any program may set: it is set back.
void reset(const LiveSession& live, uint32_t number) {
  ClientProcess reset("device_intruder", {live.path(number), "--attempt", "reset"});
  CHECK_EQ(reset.wait(seconds(60)), 0);
}

// Returns how many malformed ioctls reached the session.
uint64_t attack(IoMode mode, uint64_t seed, uint64_t calls) {
  LiveSession live(mode);
  add_devices(&live);
  const size_t descriptors = descriptors_at_rest();
  std::vector<std::unique_ptr<ClientProcess>> clients;
  for (uint32_t client = 0; client < kClients; ++client) {
    clients.push_back(std::make_unique<ClientProcess>(
        "device_fuzz", std::vector<std::string>{live.path(0).substr(0, live.path(0).rfind('/')),
                                                "--seed", std::to_string(seed + 2 * client),
                                                "--calls", std::to_string(calls / kClients),
                                                "--uid", std::to_string(65534 - client)}));
  }
  uint64_t malformed = 0;
  for (auto& client : clients) {
    const std::string done = client->line_with("\"done\"", seconds(900));
    CHECK_EQ(client->wait(seconds(60)), 0);
    malformed += static_cast<uint64_t>(number_in(done, "malformed"));
    std::printf("      %s: %s\n", io_mode_name(mode), done.c_str());
  }
  clients.clear();
  eventually("all openers are gone", [&] { return live.openers() == 0; });
  for (uint32_t number : live.session().device_numbers()) {
    if (number >= LiveSession::kFirstAdded) CHECK_EQ(live.session().remove_device(number), 0);
  }
  for (uint32_t number = 0; number < kDevices; ++number) {
    reset(live, number);
    check_frames_pass(live, number);
    eventually("the ring is empty", [&] {
      const RingCounters counters = live.counters(number);
      return counters.producers + counters.consumers + counters.held_frames + counters.used +
                 counters.resident ==
             0;
    });
  }
  eventually("all openers are gone", [&] { return live.openers() == 0; });
  eventually("as many descriptors as before", [&] { return open_descriptors() == descriptors; });
  return malformed;
}

}  // namespace

TEST(malformedIoctlsNeitherCrashNorHangNorLeak) {
  const std::vector<IoMode> modes = granted_modes();
  const uint64_t calls =
      number_from("LOOPBACK_FUZZ_CALLS", under_thread_sanitizer() ? 100000 : 1000000);
  const uint64_t seed = number_from("LOOPBACK_FUZZ_SEED", std::random_device()());
  const check::Scope scope("LOOPBACK_FUZZ_SEED=" + std::to_string(seed));
  std::printf("      LOOPBACK_FUZZ_SEED=%llu\n", static_cast<unsigned long long>(seed));
  const size_t descriptors = open_descriptors();
  const size_t before = threads();
  uint64_t malformed = 0;
  for (IoMode mode : modes) malformed += attack(mode, seed, calls / modes.size());
  std::printf("      %llu malformed ioctls reached the session\n",
              static_cast<unsigned long long>(malformed));
  CHECK(malformed >= calls / modes.size() / kClients * kClients * modes.size());
  eventually("as many descriptors as before the mounts",
             [&] { return open_descriptors() == descriptors; });
  eventually("as many threads as before the mounts", [&] { return threads() == before; });
}
