#include "housekeeper.h"

#include <pthread.h>
#include <signal.h>

#include <chrono>

namespace loopback {

std::shared_ptr<Housekeeper> Housekeeper::shared() {
  static std::mutex mutex;
  static std::weak_ptr<Housekeeper> existing;
  std::lock_guard lock(mutex);
  std::shared_ptr<Housekeeper> housekeeper = existing.lock();
  if (!housekeeper) existing = housekeeper = std::make_shared<Housekeeper>();
  return housekeeper;
}

Housekeeper::Housekeeper() {
  // Signals are for the thread that runs JavaScript.
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  thread_ = std::thread([this] { run(); });
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

Housekeeper::~Housekeeper() {
  {
    std::lock_guard lock(mutex_);
    ended_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

void Housekeeper::add(Ring* ring) {
  std::lock_guard lock(mutex_);
  due_[ring] = 0;
  changed_.notify_all();
}

void Housekeeper::remove(Ring* ring) {
  std::unique_lock lock(mutex_);
  due_.erase(ring);
  changed_.wait(lock, [this, ring] { return busy_ != ring; });
}

void Housekeeper::wake(Ring* ring) {
  std::lock_guard lock(mutex_);
  const auto found = due_.find(ring);
  if (found == due_.end() || found->second == 0) return;
  found->second = 0;
  changed_.notify_all();
}

void Housekeeper::run() {
  pthread_setname_np(pthread_self(), "v4l2-housekeep");
  std::unique_lock lock(mutex_);
  while (!ended_) {
    Ring* next = nullptr;
    Nanoseconds at = kNever;
    for (const auto& [ring, due] : due_) {
      if (due < at) {
        next = ring;
        at = due;
      }
    }
    const Nanoseconds now = monotonic_now();
    if (next == nullptr) {
      changed_.wait(lock);
      continue;
    }
    if (at > now) {
      changed_.wait_for(lock, std::chrono::nanoseconds(at - now));
      continue;
    }
    due_[next] = kNever;
    busy_ = next;
    lock.unlock();
    const Nanoseconds again = next->housekeep(now);
    lock.lock();
    busy_ = nullptr;
    const auto found = due_.find(next);
    if (found != due_.end()) found->second = std::min(found->second, again);
    changed_.notify_all();
  }
}

}  // namespace loopback
