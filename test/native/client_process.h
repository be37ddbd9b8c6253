// A program of test/programs in a process of its own, as a session's clients must be: who serves a
// mount never reads it.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <string>
#include <vector>

class ClientProcess {
 public:
  /// Starts the program; throws where it cannot be started.
  ClientProcess(const std::string& program, std::vector<std::string> arguments);
  /// Kills it, with what it forked, and waits for it.
  ~ClientProcess();
  ClientProcess(const ClientProcess&) = delete;
  ClientProcess& operator=(const ClientProcess&) = delete;

  pid_t pid() const { return pid_; }
  void signal(int number) const;
  bool ended();
  /// Its exit status, or 128 and the signal that ended it. A client that is not gone in time fails
  /// the test: it hangs.
  int wait(std::chrono::seconds deadline);
  /// What it wrote so far, to standard output and error.
  std::string output() const;
  /// Waits for a line with `part` in it, and returns it; fails the test where it does not come, or
  /// the program ends without.
  std::string line_with(const std::string& part, std::chrono::seconds deadline);

 private:
  std::string name_;
  pid_t pid_ = -1;
  int output_ = -1;
  int status_ = -1;
};

/// The number behind `"key":` in a line of JSON; fails the test where there is none.
long long number_in(const std::string& line, const std::string& key);
