#include "aside.h"

#include <pthread.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <map>
#include <mutex>
#include <system_error>
#include <thread>
#include <utility>

namespace loopback {

namespace {
constexpr uint32_t kMostThreads = 16;
constexpr uint32_t kOfOneUser = 2;
constexpr std::chrono::seconds kIdle{1};
constexpr std::chrono::seconds kEnd{1};
}  // namespace

struct Aside::State {
  struct Item {
    uint64_t id;
    uint32_t user;
    std::function<void()> work;
  };
  std::mutex mutex;
  std::condition_variable added, left;
  std::deque<Item> waiting;
  std::map<uint32_t, uint32_t> running;  // By user.
  uint32_t threads = 0, idle = 0;
  bool ended = false;

  bool may_begin(uint32_t user) const {
    const auto found = running.find(user);
    return found == running.end() || found->second < kOfOneUser;
  }
  std::deque<Item>::iterator next() {
    return std::find_if(waiting.begin(), waiting.end(),
                        [this](const Item& item) { return may_begin(item.user); });
  }
};

Aside::Aside() : state_(std::make_shared<State>()) {}

Aside::~Aside() { end(); }

bool Aside::run(uint64_t id, uint32_t user, std::function<void()> work) {
  std::lock_guard lock(state_->mutex);
  if (state_->ended) return false;
  state_->waiting.push_back({id, user, std::move(work)});
  if (!state_->may_begin(user)) return true;
  if (state_->idle >= state_->waiting.size()) {
    state_->added.notify_one();
  } else if (state_->threads < kMostThreads) {
    try {
      std::thread([state = state_] { serve(state); }).detach();
      ++state_->threads;
    } catch (const std::system_error&) {
      // Those that there are come to it.
      if (state_->threads > 0) return true;
      state_->waiting.pop_back();
      return false;
    }
  }
  return true;
}

void Aside::withdraw(uint64_t id) {
  std::lock_guard lock(state_->mutex);
  std::erase_if(state_->waiting, [id](const State::Item& item) { return item.id == id; });
}

void Aside::end() {
  std::unique_lock lock(state_->mutex);
  state_->ended = true;
  state_->waiting.clear();
  state_->added.notify_all();
  state_->left.wait_for(lock, kEnd, [this] { return state_->threads == 0; });
}

void Aside::serve(std::shared_ptr<State> state) {
  pthread_setname_np(pthread_self(), "v4l2-aside");
  std::unique_lock lock(state->mutex);
  while (!state->ended) {
    const auto next = state->next();
    if (next == state->waiting.end()) {
      ++state->idle;
      const auto told = state->added.wait_for(lock, kIdle);
      --state->idle;
      if (told == std::cv_status::timeout && state->next() == state->waiting.end()) break;
      continue;
    }
    auto [id, user, work] = std::move(*next);
    state->waiting.erase(next);
    ++state->running[user];
    lock.unlock();
    work();
    work = nullptr;
    lock.lock();
    if (--state->running[user] == 0) state->running.erase(user);
  }
  --state->threads;
  state->left.notify_all();
}

}  // namespace loopback
