#include "live_session.h"

#include <signal.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <filesystem>
#include <fstream>

#include "check.h"
#include "client_process.h"
#include "fuse_mount.h"

using namespace loopback;

LiveSession::LiveSession(IoMode mode) {
  if (geteuid() != 0) SKIP("needs root, to have clients of other users");
  // Clients are ordinary users.
  chmod(files_.path().c_str(), 0755);
  mountpoint_ = files_.path() + "/dev";
  mkdir(mountpoint_.c_str(), 0755);
  SessionOptions options;
  options.mountpoint = mountpoint_;
  options.allow_other = true;
  options.mode = 0666;
  options.io_mode = mode;
  options.log = [](LogLevel, int, const std::string&) {};
  options.control = [this](const ControlCall& call) {
    std::lock_guard lock(mutex_);
    calls_.push_back(call);
    changed_.notify_one();
  };
  try {
    session_.emplace(std::move(options));
  } catch (const MountError& error) {
    SKIP(error.what());
  }
  control_ = std::thread([this] { answer_controls(); });
}

LiveSession::~LiveSession() { stop(); }

void LiveSession::stop() {
  if (!session_) return;
  {
    std::lock_guard lock(mutex_);
    ended_ = true;
    changed_.notify_one();
  }
  if (control_.joinable()) control_.join();
  session_->stop();
}

std::string LiveSession::path(uint32_t number) const {
  return mountpoint_ + "/video" + std::to_string(number);
}

std::string LiveSession::control_path() const { return mountpoint_ + "/" + kControlName; }

DeviceSetup LiveSession::small_device(uint32_t number) {
  DeviceSetup setup;
  setup.number = setup.minor = number;
  setup.card_label = "device " + std::to_string(number);
  setup.max_openers = 100;
  setup.max_width = 64;
  setup.max_height = 48;
  setup.ring.max = 1 << 20;
  setup.ring.shrink_delay_ms = 100;
  return setup;
}

void LiveSession::add(DeviceSetup setup) { CHECK_EQ(session_->add_device(std::move(setup)), ""); }

uint32_t LiveSession::openers() {
  uint32_t sum = 0;
  for (uint32_t number : session_->device_numbers()) {
    with(number, [&](V4l2Device& device) { sum += device.open_count(); });
  }
  return sum;
}

RingCounters LiveSession::counters(uint32_t number) {
  RingCounters counters{};
  CHECK(with(number,
             [&](V4l2Device& device) { counters = device.ring().counters(monotonic_now()); }));
  return counters;
}

std::vector<ConsumerReport> LiveSession::reports(uint32_t number) {
  std::vector<ConsumerReport> reports;
  CHECK(with(number, [&](V4l2Device& device) {
    reports = device.ring().consumer_reports(monotonic_now());
  }));
  return reports;
}

bool LiveSession::with(uint32_t number, const std::function<void(V4l2Device&)>& step) {
  auto guard = session_->lock();
  V4l2Device* device = session_->device(number);
  if (device == nullptr) return false;
  step(*device);
  return true;
}

void LiveSession::answer_controls() {
  std::unique_lock lock(mutex_);
  while (true) {
    changed_.wait(lock, [this] { return ended_ || !calls_.empty(); });
    if (ended_) return;
    const ControlCall call = calls_.front();
    calls_.pop_front();
    lock.unlock();
    session_->answer_control(call.ticket, answer(call));
    lock.lock();
  }
}

// As the program's own list of devices does it, but for fewer and smaller ones.
int32_t LiveSession::answer(const ControlCall& call) {
  const ControlConfig& config = call.config;
  if (!call.adds) {
    const auto number = static_cast<uint32_t>(config.output_nr);
    if (number < kFirstAdded) return -EPERM;
    return -session_->remove_device(number);
  }
  uint32_t number = config.output_nr < 0 ? kFirstAdded : static_cast<uint32_t>(config.output_nr);
  if (number < kFirstAdded || number >= kFirstAdded + kMostAdded) return -EINVAL;
  const auto exists = [this](uint32_t each) { return with(each, [](V4l2Device&) {}); };
  while (config.output_nr < 0 && number < kFirstAdded + kMostAdded && exists(number)) ++number;
  if (number == kFirstAdded + kMostAdded) return -ENFILE;
  if (exists(number)) return -EEXIST;
  DeviceSetup setup = small_device(number);
  setup.exclusive_caps = config.announce_all_caps == 0;
  setup.ring.dynamic = number % 2 == 0;
  if (config.min_width > 0) setup.min_width = config.min_width;
  if (config.min_height > 0) setup.min_height = config.min_height;
  setup.max_width = std::max(setup.max_width, setup.min_width);
  setup.max_height = std::max(setup.max_height, setup.min_height);
  if (config.max_openers > 0) setup.max_openers = static_cast<uint32_t>(config.max_openers);
  setup.card_label.assign(config.card_label, strnlen(config.card_label, sizeof config.card_label));
  return session_->add_device(std::move(setup)).empty() ? static_cast<int32_t>(number) : -EINVAL;
}

std::vector<IoMode> granted_modes() {
  std::vector<IoMode> modes;
  for (IoMode mode : {IoMode::kPassthrough, IoMode::kPageCache}) {
    try {
      LiveSession probe(mode);
      modes.push_back(mode);
    } catch (const check::Skip& skip) {
      std::printf("      without %s: %s\n", io_mode_name(mode), skip.what());
    }
  }
  if (modes.empty()) SKIP("no mode is granted");
  return modes;
}

void check_frames_pass(const LiveSession& live, uint32_t number) {
  const check::Scope scope("video" + std::to_string(number));
  const std::chrono::seconds deadline(120);
  ClientProcess producer(
      "frame_producer", {live.path(number), "--size", "64x48", "--method", "mmap", "--fps", "200"});
  producer.line_with("\"ready\"", deadline);
  ClientProcess consumer("frame_consumer", {live.path(number), "--count", "20"});
  const std::string done = consumer.line_with("\"done\"", deadline);
  const check::Scope said(done);
  CHECK_EQ(consumer.wait(deadline), 0);
  CHECK_EQ(number_in(done, "frames"), 20);
  CHECK_EQ(number_in(done, "torn"), 0);
  producer.signal(SIGTERM);
  CHECK_EQ(producer.wait(deadline), 0);
}

void eventually(const std::string& what, const std::function<bool()>& holds,
                std::chrono::seconds deadline) {
  const auto until = std::chrono::steady_clock::now() + deadline;
  while (!holds()) {
    if (std::chrono::steady_clock::now() >= until) {
      check::fail(__FILE__, __LINE__, "never came true: " + what);
    }
    const timespec pause{0, 5000000};
    nanosleep(&pause, nullptr);
  }
}

namespace {

size_t entries_of(const char* folder) {
  size_t count = 0;
  for ([[maybe_unused]] const auto& entry : std::filesystem::directory_iterator(folder)) ++count;
  return count;
}

}  // namespace

size_t open_descriptors() { return entries_of("/proc/self/fd"); }
size_t descriptors_at_rest() {
  size_t fewest = open_descriptors();
  for (int look = 0; look < 200; ++look) {
    const timespec pause{0, 1000000};
    nanosleep(&pause, nullptr);
    fewest = std::min(fewest, open_descriptors());
  }
  return fewest;
}

size_t threads() { return entries_of("/proc/self/task"); }

size_t resident_bytes() {
  size_t total = 0, resident = 0;
  std::ifstream("/proc/self/statm") >> total >> resident;
  return resident * static_cast<size_t>(sysconf(_SC_PAGESIZE));
}

bool under_thread_sanitizer() {
#ifdef __SANITIZE_THREAD__
  return true;
#else
  return false;
#endif
}
