// One thread for all rings: what may take time is done here, off the frame path.
#pragma once

#include <condition_variable>
#include <map>
#include <memory>
#include <mutex>
#include <thread>

#include "ring.h"

namespace loopback {

class Housekeeper {
 public:
  /// The process has one; its thread runs while somebody holds it.
  static std::shared_ptr<Housekeeper> shared();
  Housekeeper();
  ~Housekeeper();

  /// Keeps house for the ring until `remove`, which waits until nobody works on it.
  void add(Ring* ring);
  void remove(Ring* ring);
  /// The ring has work. May be called under the ring's lock.
  void wake(Ring* ring);

 private:
  void run();

  std::mutex mutex_;
  std::condition_variable changed_;
  std::map<Ring*, Nanoseconds> due_;
  Ring* busy_ = nullptr;
  bool ended_ = false;
  std::thread thread_;
};

}  // namespace loopback
