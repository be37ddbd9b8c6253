// The process that stands beside a command in `run`: it starts the command's own daemon, answers
// its stat calls, and ends the daemon when the command has ended. The command itself is exec'd in
// the process that the user started, so that its terminal, signals and exit code are its own.
//
//   shell ── run ═ exec ═▶ command ── its children
//             └ keeper (a session of its own, nobody's child)
//                  └ daemon: mount …
#pragma once

#include <string>
#include <vector>

namespace loopback {

class Keeper {
 public:
  /// `root` is where the daemon's `dev` is. Starts it, and with it the daemon's command line, if
  /// there is one; returns when the daemon has mounted. `failed` is then its exit code, if it has
  /// not.
  Keeper(const std::string& root, const std::vector<std::string>& daemon);
  ~Keeper();
  Keeper(const Keeper&) = delete;

  int failed() const { return failed_; }
  /// Hands over what `install_stat_filter` gave; returns when calls are answered.
  void answer(int listener);

 private:
  int socket_ = -1;
  int failed_ = 0;
};

}  // namespace loopback
