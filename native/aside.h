// Work that may have to wait for a caller: reading its memory, or what /proc says of it.
//
// The page may be one that only the session can bring, or one that nobody ever brings; a file of
// /proc may wait for a lock that the caller holds. So none of it is done on the session's thread,
// but on a few threads that come as they are needed and go when they are not. Of one user's work
// only a little is done at a time: who makes it wait for ever holds up nobody else's.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>

namespace loopback {

class Aside {
 public:
  Aside();
  /// As `end`.
  ~Aside();
  Aside(const Aside&) = delete;

  /// Runs `work` on another thread, in turn. False: the system refuses even one thread.
  bool run(uint64_t id, uint32_t user, std::function<void()> work);
  /// Takes out what has not begun yet.
  void withdraw(uint64_t id);
  /// Nothing begins any more. Waits a moment for what has begun; what waits for ever is left.
  void end();

 private:
  // Outlives this object as long as a thread waits.
  struct State;
  static void serve(std::shared_ptr<State> state);
  std::shared_ptr<State> state_;
};

}  // namespace loopback
