// Requests that are looked into aside (aside.h), and answered from there.
//
// While such a request has not been answered, the kernel holds its file open: its opener and its
// device are there. So a step runs only as long as an answer is owed, and whoever answers first,
// ends it.
#include <errno.h>

#include "fuse_session.h"

namespace loopback {

namespace {
// How long an interrupted request may still be finished: no kernel answers EINTR to an ioctl that
// is done at once.
constexpr Nanoseconds kGrace = 100 * kMillisecond;
}  // namespace

bool FuseSession::run_aside(const Request& request, AsideWork work) {
  owed_[request.unique] = {};
  const Locked locked = [gate = gate_, unique = request.unique](const std::function<void()>& step) {
    std::lock_guard entered(gate->mutex);
    return gate->session != nullptr && gate->session->step_aside(unique, step);
  };
  if (aside_.run(request.unique, request.uid, [work = std::move(work), locked] { work(locked); }))
    return true;
  owed_.erase(request.unique);
  return false;
}

bool FuseSession::step_aside(uint64_t unique, const std::function<void()>& step) {
  auto guard = lock();
  const auto owed = owed_.find(unique);
  if (stopping_ || owed == owed_.end()) return false;
  owed->second.begun = true;
  step();
  return true;
}

// Its work may wait for ever: then the caller must be free to go all the same. Once a step has been
// done it is answered: memory of the caller's is written then, who must still be there.
void FuseSession::interrupt_aside(uint64_t unique) {
  if (!owed_.contains(unique)) return;
  interrupted_.push_back({monotonic_now() + kGrace, unique});
  wake_at(interrupted_.back().at);
}

void FuseSession::give_up_aside(Nanoseconds now) {
  while (!interrupted_.empty() && interrupted_.front().at <= now) {
    const uint64_t unique = interrupted_.front().unique;
    interrupted_.pop_front();
    const auto owed = owed_.find(unique);
    if (owed == owed_.end() || owed->second.begun) continue;
    aside_.withdraw(unique);
    Request request;
    request.unique = unique;
    reply_error(request, EINTR);
  }
}

}  // namespace loopback
