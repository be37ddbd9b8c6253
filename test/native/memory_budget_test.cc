#include "memory_budget.h"

#include "check.h"
#include "ring.h"

using namespace loopback;

namespace {

constexpr uint64_t kMiB = 1024 * 1024;

struct Memory {
  uint64_t free = 100 * kMiB;
  int looks = 0;
  MemoryBudget budget{[this] {
    ++looks;
    return Headroom{free, "a test"};
  }};
  bool promise(MemoryBudget::Part& part, uint64_t wanted, int64_t now = 0) {
    std::string limited_by;
    const bool promised = budget.promise(&part, wanted, now, &limited_by);
    CHECK_EQ(limited_by, promised ? "" : "a test");
    return promised;
  }
  void touch(MemoryBudget::Part& part, uint64_t touched) {
    free -= touched - part.touched;
    budget.set(&part, part.promised, touched);
  }
};

}  // namespace

TEST(whatOneWasPromisedIsNotThereForAnother) {
  Memory memory;
  MemoryBudget::Part one, other;
  CHECK(memory.promise(one, 60 * kMiB));
  CHECK(!memory.promise(other, 41 * kMiB));
  CHECK(memory.promise(other, 40 * kMiB));
  // Touching turns a promise into use, and makes no room.
  memory.touch(one, 60 * kMiB);
  CHECK(!memory.promise(other, 41 * kMiB));
  memory.touch(other, 30 * kMiB);
  CHECK(!memory.promise(other, 41 * kMiB));
  memory.budget.set(&one, 0, 0);
  memory.free += 60 * kMiB;
  CHECK(memory.promise(other, 100 * kMiB));
}

TEST(memoryIsLookedAtOnlyWhereTheLastLookDoesNotDo) {
  Memory memory;
  MemoryBudget::Part part;
  CHECK(memory.promise(part, 10 * kMiB));
  CHECK_EQ(memory.looks, 1);
  CHECK(memory.budget.covers(part, 100 * kMiB));
  CHECK(memory.promise(part, 20 * kMiB));
  CHECK_EQ(memory.looks, 1);
  // Others have taken of it since.
  memory.free = 5 * kMiB;
  CHECK(!memory.promise(part, 40 * kMiB, 2 * kSecond));
  CHECK_EQ(memory.looks, 2);
  CHECK(!memory.budget.covers(part, 40 * kMiB));
}

TEST(ringsOfOneProcessDoNotGrowIntoTheSameMemory) {
  constexpr uint64_t kPage = 4096;
  uint64_t taken = 0;
  const auto budget = std::make_shared<MemoryBudget>([&] {
    return Headroom{100 * kPage - taken, "a test"};
  });
  RingParameters parameters;
  parameters.dynamic = true;
  parameters.max = 1000 * kPage;
  const auto make = [&] {
    Ring::Setup setup;
    setup.sizeimage = kPage;
    setup.parameters = parameters;
    setup.now = kSecond;
    setup.budget = budget;
    setup.allow_mapping = [&](size_t bytes) {
      taken += bytes;
      return true;
    };
    return std::make_unique<Ring>(std::move(setup));
  };
  const auto fill = [](Ring& ring) {
    Producer* producer = ring.join_producer({2, "writer"}, kSecond);
    Claim* claim;
    Nanoseconds retry_at;
    while (ring.claim(producer, kPage, kSecond, &claim, &retry_at) == ClaimAnswer::kGranted)
      ring.publish(claim, kPage, {}, kSecond);
  };
  auto first = make(), second = make();
  for (const auto* ring : {&first, &second}) (*ring)->join_consumer({1, "reader"}, kSecond);
  fill(*first);
  CHECK_EQ(first->counters(kSecond).size, 64 * kPage);
  CHECK(!first->parameters().dynamic);
  fill(*second);
  CHECK_EQ(second->counters(kSecond).size, 32 * kPage);
  CHECK(!second->parameters().dynamic);
  // What the first one had is there again.
  first.reset();
  taken = 32 * kPage;
  RingParameters again = second->parameters();
  again.dynamic = true;
  CHECK_EQ(second->set_parameters(again, true, kSecond), "");
  fill(*second);
  CHECK_EQ(second->counters(kSecond).size, 64 * kPage);
}
