// A real session on a mountpoint of its own, for tests with client processes.
#pragma once

#include <chrono>
#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "fuse_session.h"
#include "temporary_directory.h"

class LiveSession {
 public:
  /// Skips the test where the kernel refuses the mode, or the mount.
  explicit LiveSession(loopback::IoMode mode);
  ~LiveSession();
  LiveSession(const LiveSession&) = delete;
  LiveSession& operator=(const LiveSession&) = delete;

  loopback::FuseSession& session() { return *session_; }
  std::string path(uint32_t number) const;
  std::string control_path() const;

  /// Small frames, so that a test is quick.
  static loopback::DeviceSetup small_device(uint32_t number);
  void add(loopback::DeviceSetup setup);
  /// Openers of all devices.
  uint32_t openers();
  loopback::RingCounters counters(uint32_t number);
  std::vector<loopback::ConsumerReport> reports(uint32_t number);
  /// Runs `step` on the device, under the session's lock; false where there is none.
  bool with(uint32_t number, const std::function<void(loopback::V4l2Device&)>& step);
  /// Ends the session; the destructor does it otherwise.
  void stop();

  /// Devices that clients added through the control device have numbers from here on.
  static constexpr uint32_t kFirstAdded = 50;
  static constexpr uint32_t kMostAdded = 6;

 private:
  void answer_controls();
  int32_t answer(const loopback::ControlCall& call);

  TemporaryDirectory files_;
  std::string mountpoint_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<loopback::ControlCall> calls_;
  bool ended_ = false;
  std::optional<loopback::FuseSession> session_;
  std::thread control_;
};

/// Every mode of mapping buffers that this kernel grants; skips the test where there is none.
std::vector<loopback::IoMode> granted_modes();

/// Whole frames pass through the device, by mmap in both directions.
void check_frames_pass(const LiveSession& live, uint32_t number);

/// Waits until `holds`; fails the test with `what` where that does not come.
void eventually(const std::string& what, const std::function<bool()>& holds,
                std::chrono::seconds deadline = std::chrono::seconds(60));

size_t open_descriptors();
/// The housekeeper opens files of /proc and closes them at once: the fewest of many looks.
size_t descriptors_at_rest();
size_t threads();
/// Bytes of this process that are in memory.
size_t resident_bytes();
/// How much larger tests may be here than under ThreadSanitizer, which is some ten times slower.
bool under_thread_sanitizer();
