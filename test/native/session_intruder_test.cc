// What no well-behaved program does, one thing at a time: device_intruder tries it, the session
// goes on, and takes no more than it may.
#include <signal.h>
#include <sys/resource.h>

#include <memory>

#include "check.h"
#include "client_process.h"
#include "live_session.h"

using namespace loopback;
using std::chrono::seconds;

namespace {

constexpr seconds kDeadline(120);
constexpr size_t kMiB = size_t{1} << 20;

// A dynamic device, video1, whose ring never loses a frame.
void add_device(LiveSession* live) {
  DeviceSetup setup = LiveSession::small_device(1);
  setup.ring.dynamic = true;
  setup.ring.stall_timeout_ms = 0;
  live->add(std::move(setup));
}

class Attempt {
 public:
  Attempt(const LiveSession& live, const std::string& name, uint32_t uid = 65534)
      : client_("device_intruder", {live.path(1), "--attempt", name, "--uid", std::to_string(uid)}),
        tried_(client_.line_with("\"event\"", kDeadline)),
        scope_(name + " said " + tried_) {
    CHECK(tried_.find("\"tried\"") != std::string::npos);
  }

  /// "EBUSY", or "" where it was granted.
  std::string error() const { return text("errno"); }
  std::string text(const std::string& key) const {
    const std::string mark = "\"" + key + "\":\"";
    const size_t at = tried_.find(mark);
    if (at == std::string::npos) return "";
    const size_t start = at + mark.size();
    return tried_.substr(start, tried_.find('"', start) - start);
  }
  long long number(const std::string& key) const { return number_in(tried_, key); }
  void end() {
    client_.signal(SIGTERM);
    CHECK_EQ(client_.wait(kDeadline), 0);
  }
  ClientProcess& client() { return client_; }

 private:
  ClientProcess client_;
  std::string tried_;
  check::Scope scope_;
};

// Runs `body` in every mode that is granted, on a session that must be at rest afterwards.
void in_every_mode(const std::function<void(LiveSession&)>& body) {
  for (IoMode mode : granted_modes()) {
    const check::Scope scope(io_mode_name(mode));
    LiveSession live(mode);
    add_device(&live);
    body(live);
    eventually("all openers are gone", [&] { return live.openers() == 0; });
    Attempt(live, "reset").end();
    check_frames_pass(live, 1);
  }
}

}  // namespace

TEST(buffersAreRefusedWhileAReadWaits) {
  in_every_mode([](LiveSession& live) {
    Attempt attempt(live, "buffers-while-reading");
    CHECK_EQ(attempt.error(), "EBUSY");
    CHECK_EQ(attempt.text("create"), "EBUSY");
    check_frames_pass(live, 1);
    attempt.end();
  });
}

TEST(buffersAreRefusedWhileAWriteWaits) {
  in_every_mode([](LiveSession& live) {
    Attempt attempt(live, "buffers-while-writing");
    CHECK_EQ(attempt.error(), "EBUSY");
    CHECK_EQ(attempt.text("create"), "EBUSY");
    attempt.end();
  });
}

TEST(aFileThatStreamsCaptureMayHaveBuffersOfOutput) {
  in_every_mode([](LiveSession& live) {
    Attempt attempt(live, "buffers-of-both-directions");
    CHECK_EQ(attempt.error(), "EAGAIN");
    attempt.end();
  });
}

TEST(aDeviceThatWasOpenedToTruncateItCanBeMapped) {
  in_every_mode([](LiveSession& live) { Attempt(live, "truncate-and-map").end(); });
}

TEST(impossibleTimestampsBecomeTheTimeOfPublishing) {
  in_every_mode([](LiveSession& live) {
    Attempt attempt(live, "impossible-times");
    CHECK_EQ(attempt.error(), "");
    attempt.end();
  });
}

TEST(aBufferThatIsTooSmallForAFrameIsNotQueued) {
  in_every_mode([](LiveSession& live) {
    Attempt attempt(live, "buffers-too-small");
    CHECK_EQ(attempt.error(), "EINVAL");
    attempt.end();
  });
}

TEST(aTimeoutImageThatWasBegunInAnotherFormatTakesNoMemory) {
  in_every_mode([](LiveSession& live) {
    const size_t before = resident_bytes();
    Attempt attempt(live, "image-of-another-format");
    CHECK(resident_bytes() < before + 32 * kMiB);
    attempt.end();
  });
}

TEST(writersOfTimeoutImagesCountAsUsers) {
  in_every_mode([](LiveSession& live) {
    Attempt attempt(live, "many-images");
    CHECK_EQ(attempt.error(), "EBUSY");
    CHECK_EQ(attempt.number("accepted"), 100);
    attempt.end();
  });
}

TEST(subscriptionsDoNotAddUp) {
  in_every_mode([](LiveSession& live) {
    Attempt attempt(live, "many-subscriptions");
    CHECK_EQ(attempt.number("accepted"), 1);
    attempt.end();
  });
}

TEST(writesThatWaitTakeTheMemoryOfOne) {
  in_every_mode([](LiveSession& live) {
    const size_t before = resident_bytes();
    Attempt attempt(live, "many-writes");
    CHECK(resident_bytes() < before + 32 * kMiB);
    attempt.end();
  });
}

TEST(splicesOfADeviceHoldUpNobody) {
  in_every_mode([](LiveSession& live) {
    Attempt attempt(live, "many-splices");
    // A close is a request that the kernel sends in the background, as those of splice.
    const uint32_t openers = live.openers();
    check_frames_pass(live, 1);
    eventually("who closes is gone", [&] { return live.openers() == openers; });
    attempt.end();
  });
}

TEST(aDequeueBehindAnEpollDoesNotStopTheSession) {
  in_every_mode([](LiveSession& live) {
    Attempt attempt(live, "dequeue-behind-epoll");
    CHECK_EQ(attempt.error(), "EAGAIN");
    attempt.end();
  });
}

TEST(aVectorInAMappedBufferDoesNotStopTheSession) {
  in_every_mode([](LiveSession& live) {
    Attempt attempt(live, "vector-in-a-buffer");
    attempt.end();
  });
}

TEST(controlsThatCannotBeReadHoldUpNobodyElse) {
  in_every_mode([](LiveSession& live) {
    const size_t before = threads();
    // Only root may have a page that the kernel waits for.
    Attempt attempt(live, "controls-in-the-dark", 0);
    CHECK(threads() < before + 40);
    Attempt other(live, "one-control");
    CHECK_EQ(other.error(), "");
    other.end();
    attempt.client().signal(SIGKILL);
    CHECK_EQ(attempt.client().wait(kDeadline), 128 + SIGKILL);
    eventually("its threads are gone", [&] { return threads() <= before + 2; });
  });
}

TEST(theSessionEndsWhileControlsCannotBeRead) {
  for (IoMode mode : granted_modes()) {
    const check::Scope scope(io_mode_name(mode));
    LiveSession live(mode);
    add_device(&live);
    const size_t before = threads();
    Attempt attempt(live, "controls-in-the-dark", 0);
    live.stop();
    attempt.client().signal(SIGKILL);
    attempt.client().wait(kDeadline);
    eventually("its threads are gone", [&] { return threads() < before; });
  }
}

TEST(theSessionEndsWhilePagesAreFaultedAndShown) {
  for (IoMode mode : granted_modes()) {
    for (int round = 0; round < 10; ++round) {
      const check::Scope scope(io_mode_name(mode));
      LiveSession live(mode);
      add_device(&live);
      ClientProcess producer("frame_producer", {live.path(1), "--size", "64x48"});
      producer.line_with("\"ready\"", kDeadline);
      Attempt first(live, "fault-all-the-time"), second(live, "fault-all-the-time");
      live.stop();
      CHECK_EQ(first.client().wait(kDeadline), 0);
      CHECK_EQ(second.client().wait(kDeadline), 0);
      producer.wait(kDeadline);
    }
  }
}

TEST(openFilesLeaveDescriptorsToTheRestOfTheProcess) {
  in_every_mode([](LiveSession& live) {
    rlimit before;
    getrlimit(RLIMIT_NOFILE, &before);
    const rlimit tight{open_descriptors() + 400, before.rlim_max};
    setrlimit(RLIMIT_NOFILE, &tight);
    std::unique_ptr<Attempt> attempt;
    try {
      attempt = std::make_unique<Attempt>(live, "many-opens");
    } catch (...) {
      setrlimit(RLIMIT_NOFILE, &before);
      throw;
    }
    setrlimit(RLIMIT_NOFILE, &before);
    CHECK_EQ(attempt->error(), "ENFILE");
    CHECK(attempt->number("opened") >= 100);
    CHECK_EQ(attempt->text("dequeue"), "EAGAIN");
    attempt->end();
  });
}
