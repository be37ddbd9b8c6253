// The ring alone, in one process and one thread.
//
//   ring_bench pass    --frames N [--warmup N] [--bytes N] [--mode static|dynamic] [--no-copy]
//                      [--untimed]
//   ring_bench copies  --frames N [--warmup N] [--bytes N]
//   ring_bench resize  --held FRAMES --cycles N [--bytes N]
//   ring_bench fill    --held FRAMES --fills N [--bytes N] [--sized] [--warm]
//
//   pass     claim ─ memcpy in ─ publish ─ take ─ memcpy out ─ release
//   copies   the two memcpys of that, through one buffer
//   resize   with so much held: a publish that grows the ring, a shrink, a publish that does not
//   fill     publishes until so much is held, the ring growing on the way, or --sized for it from
//            the start; each fill after a calm, or --warm: at once, into memory that was used
//            before
#include <unistd.h>

#include "../../native/housekeeper.h"
#include "../../native/ring.h"
#include "../../test/programs/json_line.h"
#include "../../test/programs/v4l2_device.h"
#include "arena.h"
#include "samples.h"

namespace {

using namespace loopback;

constexpr uint64_t kLargest = uint64_t{512} << 20;

// A ring as a device has it: the housekeeper looks after it, events are told of.
class House {
 public:
  House(size_t bytes, RingParameters parameters, bool housekeeping = true)
      : bytes_(bytes), ring_(setup(bytes, parameters)), housekeeping_(housekeeping) {
    if (housekeeping_) housekeeper_->add(&ring_);
    producer_ = ring_.join_producer({getpid(), "producer"}, monotonic_now());
    consumer_ = ring_.join_consumer({getpid(), "consumer"}, monotonic_now());
  }
  ~House() {
    ring_.leave_consumer(consumer_, monotonic_now());
    ring_.leave_producer(producer_, monotonic_now());
    if (housekeeping_) housekeeper_->remove(&ring_);
  }

  Ring& ring() { return ring_; }

  void publish(const uint8_t* from) {
    Claim* claim = nullptr;
    Nanoseconds retry_at = 0;
    if (ring_.claim(producer_, bytes_, monotonic_now(), &claim, &retry_at) !=
        ClaimAnswer::kGranted) {
      fprintf(stderr, "the ring has no room where it should\n");
      exit(1);
    }
    if (from != nullptr) memcpy(claim->data(), from, bytes_);
    ring_.publish(claim, bytes_, FrameTags{}, monotonic_now());
  }

  void take(uint8_t* to) {
    const Frame* frame = ring_.take(consumer_, monotonic_now());
    if (frame == nullptr) {
      fprintf(stderr, "the ring has no frame where it should\n");
      exit(1);
    }
    if (to != nullptr) memcpy(to, frame->data(), frame->bytesused);
    ring_.release(consumer_, monotonic_now());
  }

 private:
  Ring::Setup setup(size_t bytes, const RingParameters& parameters) {
    Ring::Setup setup;
    setup.sizeimage = bytes;
    setup.parameters = parameters;
    setup.now = monotonic_now();
    setup.observe = [this](const RingEvent&) { ++events_; };
    setup.wake_housekeeper = [this](Ring* ring) { housekeeper_->wake(ring); };
    return setup;
  }

  const size_t bytes_;
  uint64_t events_ = 0;
  std::shared_ptr<Housekeeper> housekeeper_ = Housekeeper::shared();
  Ring ring_;
  const bool housekeeping_;
  Producer* producer_;
  Consumer* consumer_;
};

RingParameters dynamic_ring() {
  RingParameters parameters;
  parameters.dynamic = true;
  parameters.max = kLargest;
  parameters.stall_timeout_ms = 0;
  return parameters;
}

// Runs `step` for each frame, and prints how long those after the warm-up took.
template <typename Step>
void measure(const Options& options, Step step) {
  const auto frames = static_cast<uint64_t>(options.number("frames", 1000));
  const auto warmup = static_cast<uint64_t>(options.number("warmup", 0));
  if (options.has("untimed")) {
    for (uint64_t number = 0; number < warmup + frames; ++number) step();
    JsonLine().text("event", "done").error(0).print();
    return;
  }
  Samples calls(frames);
  int64_t start_ns = 0;
  for (uint64_t number = 0; number < warmup + frames; ++number) {
    const int64_t before = monotonic_now();
    if (number == warmup) start_ns = before;
    step();
    if (number >= warmup) calls.add(monotonic_now() - before);
  }
  JsonLine line;
  line.text("event", "done").error(0).number("elapsedNs", monotonic_now() - start_ns);
  line.raw("callNs", calls.json()).print();
}

void pass(const Options& options, size_t bytes) {
  RingParameters parameters = dynamic_ring();
  parameters.dynamic = options.text("mode", "dynamic") == "dynamic";
  House house(bytes, parameters);
  if (options.has("no-copy")) {
    measure(options, [&] {
      house.publish(nullptr);
      house.take(nullptr);
    });
    return;
  }
  Arena from(bytes);
  Arena to(bytes);
  measure(options, [&] {
    house.publish(from.next());
    house.take(to.next());
  });
}

void copies(const Options& options, size_t bytes) {
  Arena from(bytes);
  Arena to(bytes);
  Slot* slot = Slots::map_slot(round_to_pages(bytes));
  measure(options, [&] {
    memcpy(slot->data, from.next(), bytes);
    memcpy(to.next(), slot->data, bytes);
  });
  Slots::unmap(slot);
}

// Grows and shrinks by one step with `held` frames held: the watermarks are set so that one frame
// more is above the high one, and `held` is at the low one of twice the size.
void resize(const Options& options, size_t bytes) {
  const auto held = static_cast<uint64_t>(options.number("held", 2));
  const auto cycles = static_cast<uint64_t>(options.number("cycles", 1000));
  RingParameters parameters = dynamic_ring();
  parameters.min = held * round_to_pages(bytes);
  parameters.max = 2 * parameters.min;
  parameters.high_watermark = 100;
  parameters.low_watermark = 50;
  parameters.shrink_delay_ms = 0;
  House house(bytes, parameters);
  Ring& ring = house.ring();
  std::vector<uint8_t> picture(bytes, 1);
  for (uint64_t frame = 0; frame < held; ++frame) house.publish(picture.data());
  Samples expands(cycles);
  Samples shrinks(cycles);
  Samples growing(cycles);
  Samples steady(cycles);
  const auto timed_publish = [&] {
    const Nanoseconds before = monotonic_now();
    house.publish(nullptr);
    return monotonic_now() - before;
  };
  for (uint64_t cycle = 0; cycle < cycles; ++cycle) {
    const RingCounters before = ring.counters(monotonic_now());
    growing.add(timed_publish());
    const RingCounters grown = ring.counters(monotonic_now());
    house.take(nullptr);
    // The housekeeper shrinks it.
    RingCounters shrunk = grown;
    for (int waited = 0; shrunk.shrink_count == grown.shrink_count && waited < 100'000; ++waited) {
      usleep(20);
      shrunk = ring.counters(monotonic_now());
    }
    if (grown.expand_count != before.expand_count + 1 ||
        shrunk.shrink_count != grown.shrink_count + 1) {
      fprintf(stderr, "cycle %llu: the ring did not grow and shrink once\n",
              static_cast<unsigned long long>(cycle));
      exit(1);
    }
    expands.add(static_cast<int64_t>(grown.expand_ns - before.expand_ns));
    shrinks.add(static_cast<int64_t>(shrunk.shrink_ns - grown.shrink_ns));
    house.take(nullptr);
    steady.add(timed_publish());
  }
  JsonLine line;
  line.text("event", "done").error(0).raw("expandNs", expands.json());
  line.raw("shrinkNs", shrinks.json()).raw("growingNs", growing.json());
  line.raw("steadyNs", steady.json()).print();
}

class Fills {
 public:
  Fills(const Options& options, size_t bytes)
      : held_(static_cast<uint64_t>(options.number("held", 400))),
        fills_(static_cast<uint64_t>(options.number("fills", 1))),
        bytes_(bytes),
        warm_(options.has("warm")),
        from_(bytes) {
    parameters_ = dynamic_ring();
    parameters_.shrink_delay_ms = warm_ ? 0 : 5000;
    if (options.has("sized")) parameters_.min = parameters_.max;
  }

  void run() {
    std::string all;
    const auto keep = [&all](const std::string& fill) { all += (all.empty() ? "" : ",") + fill; };
    if (warm_) {
      House house(bytes_, parameters_, false);
      fill(house);
      for (uint64_t each = 0; each < fills_; ++each) {
        drain(house);
        keep(fill(house));
      }
    } else {
      for (uint64_t each = 0; each < fills_; ++each) {
        House house(bytes_, parameters_);
        // Calm: a few frames at rest, long enough for what was looked up before to be out of date.
        for (int frame = 0; frame < 12; ++frame) {
          house.publish(from_.next());
          house.take(nullptr);
          usleep(100'000);
        }
        keep(fill(house));
      }
    }
    JsonLine().text("event", "done").error(0).raw("fills", "[" + all + "]").print();
  }

 private:
  std::string fill(House& house) {
    Samples writes(held_);
    Samples grew(16);
    uint64_t expands = house.ring().counters(monotonic_now()).expand_count;
    for (uint64_t frame = 0; frame < held_; ++frame) {
      const uint8_t* picture = from_.next();
      const Nanoseconds before = monotonic_now();
      house.publish(picture);
      writes.add(monotonic_now() - before);
      const uint64_t now = house.ring().counters(monotonic_now()).expand_count;
      if (now != expands) grew.add(static_cast<int64_t>(frame));
      expands = now;
    }
    JsonLine line;
    return line.raw("writeNs", writes.json()).raw("grew", grew.json()).object();
  }

  void drain(House& house) {
    for (uint64_t frame = 0; frame < held_; ++frame) house.take(nullptr);
    for (int step = 0; step < 64; ++step) house.ring().tick(monotonic_now());
  }

  const uint64_t held_;
  const uint64_t fills_;
  const size_t bytes_;
  const bool warm_;
  RingParameters parameters_;
  Arena from_;
};

}  // namespace

int main(int count, char** arguments) {
  const Options options(count, arguments,
                        {"frames=", "warmup=", "bytes=", "mode=", "no-copy", "untimed",
                         "held=", "cycles=", "fills=", "sized", "warm"});
  const std::string& what = options.device();
  const auto bytes = static_cast<size_t>(options.number("bytes", 614400));
  if (what == "pass") {
    pass(options, bytes);
  } else if (what == "copies") {
    copies(options, bytes);
  } else if (what == "resize") {
    resize(options, bytes);
  } else if (what == "fill") {
    Fills(options, bytes).run();
  } else {
    fprintf(stderr, "%s: pass, copies, resize or fill is wanted\n", what.c_str());
    return 2;
  }
}
