// Many clients of a device at once, each killed by SIGKILL after a short random time, and replaced.
// The time runs from its start or, for half of them, from the moment it is set up.
//
//   kill_storm DEVICE [--kills N] [--seed S] [--at-once N] [--longest-us N] [--may-be-busy]
//
// Says the seed first, so that what it did can be done again; and at the end how many were killed,
// as what and doing what, how many frames they moved, and how many of those they took were torn. A
// client that ends by itself has failed: its errno is shown. --may-be-busy: not with EBUSY, which a
// static ring gives to a second producer.
#include <sys/prctl.h>
#include <sys/wait.h>

#include <array>
#include <map>

#include "json_line.h"
#include "stop_signals.h"
#include "storm_client.h"

namespace {

// Ids of frames; the witnesses' producers have smaller ones.
constexpr uint32_t kFirstId = 1000;

struct Client {
  pid_t pid = 0;
  Kind kind = Kind::kWrite;
  int64_t dies_at_ns = 0;  // Where it does not before.
};

class Storm {
 public:
  explicit Storm(const Options& options)
      : device_(options.device()),
        kills_(static_cast<uint64_t>(options.number("kills", 1000))),
        longest_us_(static_cast<uint64_t>(options.number("longest-us", 20000))),
        seed_(static_cast<uint64_t>(options.number("seed", now_ns()))),
        may_be_busy_(options.has("may-be-busy")),
        random_(seed_),
        clients_(static_cast<size_t>(options.number("at-once", 8))) {
    const size_t bytes = sizeof(Shared) + clients_.size() * sizeof(std::atomic<Stage>);
    void* memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) exit(3);
    shared_ = new (memory) Shared;
    stages_ = reinterpret_cast<std::atomic<Stage>*>(shared_ + 1);
  }

  int run() {
    JsonLine().text("event", "ready").count("seed", seed_).print();
    sigset_t child;
    sigemptyset(&child);
    sigaddset(&child, SIGCHLD);
    sigprocmask(SIG_BLOCK, &child, nullptr);
    uint64_t serial = 0;
    while (killed_ < kills_ && g_stop == 0 && failed_.empty()) {
      int64_t next_ns = INT64_MAX;
      for (size_t at = 0; at < clients_.size(); ++at) {
        if (clients_[at].pid == 0 && killed_ + running() < kills_) start(at, serial++);
        if (clients_[at].pid != 0) next_ns = std::min(next_ns, clients_[at].dies_at_ns);
      }
      const int64_t wait_ns = std::max<int64_t>(next_ns - now_ns(), 0);
      const timespec timeout{wait_ns / 1'000'000'000, wait_ns % 1'000'000'000};
      sigtimedwait(&child, nullptr, &timeout);
      reap();
    }
    for (Client& client : clients_) client.dies_at_ns = 0;
    while (running() > 0) reap();
    summarize();
    return failed_.empty() && shared_->torn == 0 ? 0 : 1;
  }

 private:
  uint64_t running() const {
    return static_cast<uint64_t>(std::count_if(clients_.begin(), clients_.end(),
                                               [](auto& client) { return client.pid != 0; }));
  }

  void start(size_t at, uint64_t serial) {
    Client& client = clients_[at];
    client.kind = static_cast<Kind>(random_() % kKinds);
    const uint64_t seed = random_();
    const auto life_us = static_cast<int64_t>(random_() % longest_us_);
    const bool from_set_up = random_() % 2 == 0;
    client.dies_at_ns = now_ns() + (from_set_up ? 10'000'000 : life_us) * 1000;
    stages_[at] = Stage::kStart;
    client.pid = fork();
    if (client.pid < 0) exit(3);
    if (client.pid > 0) return;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    const auto id = static_cast<uint32_t>(kFirstId + serial);
    StormClient self(device_.c_str(), client.kind, id, seed, shared_, &stages_[at]);
    if (from_set_up) self.die_after_set_up(life_us);
    _exit(self.run());
  }

  void reap() {
    for (size_t at = 0; at < clients_.size(); ++at) {
      Client& client = clients_[at];
      if (client.pid == 0) continue;
      const bool over = now_ns() >= client.dies_at_ns;
      if (over) kill(client.pid, SIGKILL);
      int status = 0;
      if (waitpid(client.pid, &status, over ? 0 : WNOHANG) != client.pid) continue;
      client.pid = 0;
      ended(client.kind, stages_[at], status);
    }
  }

  void ended(Kind as_kind, Stage as_stage, int status) {
    const auto kind = static_cast<size_t>(as_kind);
    const auto stage = static_cast<size_t>(as_stage);
    if (WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL) {
      ++by_kind_[kind];
      ++by_stage_[stage];
      ++killed_;
      return;
    }
    if (may_be_busy_ && WIFEXITED(status) && WEXITSTATUS(status) == EBUSY) {
      ++busy_;
      return;
    }
    const char* error = WIFEXITED(status) ? strerrorname_np(WEXITSTATUS(status)) : nullptr;
    ++failed_[std::string(kKindNames[kind]) + " " + kStageNames[stage] + " " +
              (error != nullptr ? error : "?")];
  }

  void summarize() const {
    JsonLine kinds, stages, failed;
    for (size_t i = 0; i < kKinds; ++i) kinds.count(kKindNames[i], by_kind_[i]);
    for (size_t i = 0; i < kStages; ++i) stages.count(kStageNames[i], by_stage_[i]);
    for (const auto& [what, count] : failed_) failed.count(what, count);
    JsonLine line;
    line.text("event", "done").error(0).count("seed", seed_).count("killed", killed_);
    line.count("busy", busy_);
    line.count("written", shared_->written).count("taken", shared_->taken);
    line.count("torn", shared_->torn).raw("kinds", kinds.object());
    line.raw("stages", stages.object()).raw("failed", failed.object()).print();
  }

  const std::string device_;
  const uint64_t kills_;
  const uint64_t longest_us_;
  const uint64_t seed_;
  const bool may_be_busy_;
  std::mt19937_64 random_;
  std::vector<Client> clients_;
  Shared* shared_;
  std::atomic<Stage>* stages_;
  uint64_t killed_ = 0, busy_ = 0;
  std::array<uint64_t, kKinds> by_kind_{};
  std::array<uint64_t, kStages> by_stage_{};
  std::map<std::string, uint64_t> failed_;
};

}  // namespace

int main(int count, char** arguments) {
  const Options options(count, arguments,
                        {"kills=", "seed=", "at-once=", "longest-us=", "may-be-busy"});
  catch_stop_signals();
  return Storm(options).run();
}
