// Watches the threads of device_fuzz: a call that does not return in time is told by name, and a
// call that may wait is interrupted every few milliseconds.
#pragma once

#include <pthread.h>
#include <signal.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <thread>
#include <vector>

#include "json_line.h"

inline int64_t monotonic_ns() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * 1'000'000'000LL + now.tv_nsec;
}

// What a thread is in. Entered and left around every call that reaches the device.
class Stamp {
 public:
  explicit Stamp(const char* thread) : thread_(thread) {}

  void enter(const char* call, uint32_t request = 0) {
    call_ = call;
    request_ = request;
    since_ = monotonic_ns();
  }
  void leave() {
    const int64_t took = monotonic_ns() - since_.exchange(0);
    if (took > worst_ns_) worst_ns_ = took;
  }
  int64_t worst_ns() const { return worst_ns_; }

 private:
  friend class Watch;
  const char* thread_;
  std::atomic<const char*> call_{""};
  std::atomic<uint32_t> request_{0};
  std::atomic<int64_t> since_{0};
  std::atomic<int64_t> worst_ns_{0};
};

class Watch {
 public:
  Watch(int deadline_seconds, int tick_ms)
      : deadline_seconds_(deadline_seconds), tick_ms_(tick_ms) {
    struct sigaction action {};
    action.sa_handler = [](int) {};
    sigaction(SIGUSR2, &action, nullptr);
  }

  // For the calling thread; before `start`.
  void add(Stamp* stamp, pthread_t thread) { watched_.push_back({stamp, thread}); }

  void start() {
    thread_ = std::thread([this] { run(); });
  }
  void end() {
    ended_ = true;
    if (thread_.joinable()) thread_.join();
  }

 private:
  struct Watched {
    Stamp* stamp;
    pthread_t thread;
  };

  void run() {
    const timespec tick{0, tick_ms_ * 1'000'000};
    while (!ended_) {
      nanosleep(&tick, nullptr);
      for (const Watched& watched : watched_) {
        const int64_t since = watched.stamp->since_;
        if (since == 0) continue;
        const int64_t waited = monotonic_ns() - since;
        if (waited > deadline_seconds_ * 1'000'000'000LL) tell_stuck(*watched.stamp);
        if (waited > tick_ms_ * 1'000'000LL) pthread_kill(watched.thread, SIGUSR2);
      }
    }
  }

  [[noreturn]] void tell_stuck(const Stamp& stamp) {
    char request[16];
    snprintf(request, sizeof request, "0x%08x", stamp.request_.load());
    JsonLine line;
    line.text("event", "stuck").text("thread", stamp.thread_).text("call", stamp.call_.load());
    line.text("request", request).number("deadlineSeconds", deadline_seconds_).print();
    _exit(4);
  }

  const int deadline_seconds_;
  const int tick_ms_;
  std::vector<Watched> watched_;
  std::atomic<bool> ended_{false};
  std::thread thread_;
};
