#include "keeper.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "character_devices.h"
#include "failure.h"
#include "namespaces.h"
#include "places.h"

namespace loopback {

namespace {

constexpr int kDaemonEndSeconds = 10;
/// How soon devices that come and go are seen in /dev.
constexpr int kFollowMs = 1000;

/// The keeper's descriptors: all else that was inherited is closed, since a program that reads the
/// command's output to its end must not wait for us.
constexpr int kSocket = 3;
constexpr int kCommandEnded = 4;

void keep_only(int socket, int command_ended) {
  const int high_socket = fcntl(socket, F_DUPFD, 10);
  const int high_ended = fcntl(command_ended, F_DUPFD, 10);
  dup3(high_socket, kSocket, O_CLOEXEC);
  dup3(high_ended, kCommandEnded, O_CLOEXEC);
  syscall(SYS_close_range, 5u, ~0u, 0u);
  const int null = open("/dev/null", O_RDWR | O_CLOEXEC);
  dup2(null, STDIN_FILENO);
  dup2(null, STDOUT_FILENO);
}

/// The daemon's pid, with what it writes to standard output at `output`; -1.
pid_t start_daemon(const std::vector<std::string>& words, int* output) {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) return -1;
  const pid_t keeper = getpid();
  const pid_t daemon = fork();
  if (daemon != 0) {
    close(ends[1]);
    *output = ends[0];
    return daemon;
  }
  dup2(ends[1], STDOUT_FILENO);
  keep_capabilities_over_exec();
  prctl(PR_SET_PDEATHSIG, SIGTERM);
  if (getppid() != keeper) _exit(1);
  std::vector<char*> arguments;
  for (const std::string& word : words) arguments.push_back(const_cast<char*>(word.c_str()));
  arguments.push_back(nullptr);
  execv(arguments[0], arguments.data());
  dprintf(STDERR_FILENO, "v4l2loopback-fuse: can't start %s: %s\n", arguments[0], strerror(errno));
  _exit(1);
}

/// 0 when it has greeted, which it does when everything is mounted; else its exit code.
int wait_for_greeting(pid_t daemon, int output) {
  char byte;
  ssize_t got;
  do {
    got = read(output, &byte, 1);
  } while (got < 0 && errno == EINTR);
  if (got == 1) return 0;
  int status = 0;
  waitpid(daemon, &status, 0);
  const int code = WIFEXITED(status) ? WEXITSTATUS(status) : 1;
  return code == 0 ? 1 : code;
}

void end_daemon(pid_t daemon) {
  kill(daemon, SIGTERM);
  for (int waited = 0; waitpid(daemon, nullptr, WNOHANG) == 0; ++waited) {
    if (waited == kDaemonEndSeconds * 100) kill(daemon, SIGKILL);
    usleep(10000);
  }
}

/// False: the other end has gone.
bool receive(int socket, int* descriptor) {
  char byte;
  iovec data{&byte, 1};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))];
  msghdr message{};
  message.msg_iov = &data;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof control;
  if (recvmsg(socket, &message, MSG_CMSG_CLOEXEC) != 1) return false;
  const cmsghdr* brought = CMSG_FIRSTHDR(&message);
  if (brought != nullptr && brought->cmsg_type == SCM_RIGHTS)
    memcpy(descriptor, CMSG_DATA(brought), sizeof *descriptor);
  return true;
}

void hand_over(int socket, int descriptor) {
  char byte = 0;
  iovec data{&byte, 1};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))]{};
  msghdr message{};
  message.msg_iov = &data;
  message.msg_iovlen = 1;
  if (descriptor >= 0) {
    message.msg_control = control;
    message.msg_controllen = sizeof control;
    cmsghdr* brought = CMSG_FIRSTHDR(&message);
    brought->cmsg_level = SOL_SOCKET;
    brought->cmsg_type = SCM_RIGHTS;
    brought->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(brought), &descriptor, sizeof descriptor);
  }
  if (sendmsg(socket, &message, MSG_NOSIGNAL) != 1) throw failure("the keeper has gone");
}

/// Until the command, all that it started and the daemon have ended.
[[noreturn]] void keep(int socket, pid_t command, const std::string& root,
                       const std::vector<std::string>& words) {
  setsid();
  prctl(PR_SET_NAME, "v4l2-keeper");
  keep_only(socket, static_cast<int>(syscall(SYS_pidfd_open, command, 0)));
  pid_t daemon = -1;
  if (!words.empty()) {
    int output;
    daemon = start_daemon(words, &output);
    const int code = daemon < 0 ? 1 : wait_for_greeting(daemon, output);
    const auto told = static_cast<unsigned char>(code);
    if (write(kSocket, &told, 1) != 1 || code != 0) _exit(code);
  }
  // Standard error is the command's from now on; the daemon has its own copy.
  dup2(STDIN_FILENO, STDERR_FILENO);
  int listener = -1;
  if (receive(kSocket, &listener) && listener >= 0) answer_stat_calls(listener);
  const char ready = 0;
  [[maybe_unused]] const ssize_t told = write(kSocket, &ready, 1);
  close(kSocket);
  pollfd watched = {kCommandEnded, POLLIN, 0};
  Places places(root);
  for (int happened = 0; happened == 0 || (happened < 0 && errno == EINTR);) {
    happened = poll(&watched, 1, kFollowMs);
    if (happened == 0) places.follow_devices();
  }
  if (daemon > 0) end_daemon(daemon);
  // Children that the command left behind still ask; the last one's end hangs up.
  watched = {listener, 0, 0};
  while (listener >= 0 && (poll(&watched, 1, -1) < 0 ? errno == EINTR : false)) {
  }
  _exit(0);
}

}  // namespace

Keeper::Keeper(const std::string& root, const std::vector<std::string>& daemon) {
  int ends[2];
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0)
    throw failure("can't make a socket");
  socket_ = ends[0];
  const pid_t command = getpid();
  // Forked twice: a command that waits for its children must not meet one that it does not know.
  const pid_t between = fork();
  if (between < 0) throw failure("can't start the keeper");
  if (between == 0) {
    const pid_t keeper = fork();
    if (keeper == 0) keep(ends[1], command, root, daemon);
    _exit(keeper < 0 ? 1 : 0);
  }
  close(ends[1]);
  waitpid(between, nullptr, 0);
  if (daemon.empty()) return;
  unsigned char code = 1;
  failed_ = read(socket_, &code, 1) == 1 ? code : 1;
}

Keeper::~Keeper() { close(socket_); }

void Keeper::answer(int listener) {
  hand_over(socket_, listener);
  char ready;
  if (read(socket_, &ready, 1) != 1) throw failure("the keeper has gone");
}

}  // namespace loopback
