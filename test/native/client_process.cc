#include "client_process.h"

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <stdexcept>

#include "check.h"

namespace {

using Clock = std::chrono::steady_clock;

void pause_shortly() {
  const timespec pause{0, 5000000};
  nanosleep(&pause, nullptr);
}

std::string path_of(const std::string& program) {
  const char* folder = getenv("LOOPBACK_TEST_PROGRAMS");
  if (folder == nullptr) throw std::runtime_error("LOOPBACK_TEST_PROGRAMS names no folder");
  return std::string(folder) + "/" + program;
}

}  // namespace

ClientProcess::ClientProcess(const std::string& program, std::vector<std::string> arguments)
    : name_(program) {
  for (const std::string& argument : arguments) name_ += " " + argument;
  const std::string path = path_of(program);
  // A file rather than a pipe: nobody has to read it for the client to go on.
  output_ = memfd_create("client-output", MFD_CLOEXEC);
  std::vector<char*> words{const_cast<char*>(path.c_str())};
  for (std::string& argument : arguments) words.push_back(argument.data());
  words.push_back(nullptr);
  posix_spawn_file_actions_t files;
  posix_spawn_file_actions_init(&files);
  posix_spawn_file_actions_addopen(&files, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_adddup2(&files, output_, STDOUT_FILENO);
  posix_spawn_file_actions_adddup2(&files, output_, STDERR_FILENO);
  posix_spawnattr_t attributes;
  posix_spawnattr_init(&attributes);
  posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGMASK);
  sigset_t none;
  sigemptyset(&none);
  posix_spawnattr_setsigmask(&attributes, &none);
  posix_spawnattr_setpgroup(&attributes, 0);
  const int error = posix_spawn(&pid_, path.c_str(), &files, &attributes, words.data(), environ);
  posix_spawnattr_destroy(&attributes);
  posix_spawn_file_actions_destroy(&files);
  if (error != 0) {
    close(output_);
    throw std::runtime_error(path + ": " + strerror(error));
  }
}

ClientProcess::~ClientProcess() {
  if (!ended()) {
    kill(-pid_, SIGKILL);
    // It may wait for the session in a way that only the session's end undoes: no longer than this.
    const auto until = Clock::now() + std::chrono::seconds(20);
    while (!ended() && Clock::now() < until) pause_shortly();
  }
  close(output_);
}

void ClientProcess::signal(int number) const {
  if (status_ < 0) kill(pid_, number);
}

bool ClientProcess::ended() {
  if (status_ >= 0) return true;
  int status;
  if (waitpid(pid_, &status, WNOHANG) != pid_) return false;
  status_ = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  return true;
}

int ClientProcess::wait(std::chrono::seconds deadline) {
  const auto until = Clock::now() + deadline;
  while (!ended()) {
    if (Clock::now() >= until) {
      check::fail(__FILE__, __LINE__, name_ + " hangs; it said: " + output());
    }
    pause_shortly();
  }
  return status_;
}

std::string ClientProcess::output() const {
  std::string text;
  char piece[4096];
  ssize_t got;
  while ((got = pread(output_, piece, sizeof piece, static_cast<off_t>(text.size()))) > 0) {
    text.append(piece, static_cast<size_t>(got));
  }
  return text;
}

std::string ClientProcess::line_with(const std::string& part, std::chrono::seconds deadline) {
  const auto until = Clock::now() + deadline;
  while (true) {
    const bool was_ended = ended();
    const std::string text = output();
    const size_t found = text.find(part);
    const size_t end = found == std::string::npos ? found : text.find('\n', found);
    if (end != std::string::npos) {
      const size_t before = text.rfind('\n', found);
      const size_t start = before == std::string::npos ? 0 : before + 1;
      return text.substr(start, end - start);
    }
    if (was_ended || Clock::now() >= until) {
      check::fail(__FILE__, __LINE__,
                  name_ + (was_ended ? " ended (" + std::to_string(status_) + ")" : " hangs") +
                      " without '" + part + "'; it said: " + text);
    }
    pause_shortly();
  }
}

long long number_in(const std::string& line, const std::string& key) {
  const std::string mark = "\"" + key + "\":";
  const size_t at = line.find(mark);
  if (at == std::string::npos) {
    check::fail(__FILE__, __LINE__, "no " + key + " in " + line);
  }
  return strtoll(line.c_str() + at + mark.size(), nullptr, 10);
}
