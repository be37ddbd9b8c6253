#include "guard.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stddef.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "failure.h"
#include "places.h"

namespace loopback {

namespace {

constexpr int kFollowMs = 1000;

/// One at a time: an abstract name is given back by the kernel, however its holder ends.
void take_turn() {
  const int socket_fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  const std::string name = "v4l2loopback-fuse-system";
  name.copy(address.sun_path + 1, name.size());
  const auto length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + name.size());
  if (bind(socket_fd, reinterpret_cast<const sockaddr*>(&address), length) != 0) {
    if (errno == EADDRINUSE)
      throw std::runtime_error("another daemon has its devices system-wide already");
    throw failure("can't take the system-wide places");
  }
}

}  // namespace

void guard_system(const std::string& root) {
  // What ends the daemon must not end us before we have cleaned up.
  setsid();
  for (const int number : {SIGINT, SIGTERM, SIGHUP, SIGPIPE}) signal(number, SIG_IGN);
  take_turn();
  Places::clear_stale();
  Places places(root);
  try {
    places.link_devices();
    places.show_in_sys();
  } catch (...) {
    places.undo();
    throw;
  }
  [[maybe_unused]] const ssize_t told = write(STDOUT_FILENO, "ready\n", 6);
  pollfd input{STDIN_FILENO, POLLIN, 0};
  for (;;) {
    const int happened = poll(&input, 1, kFollowMs);
    if (happened == 0) places.follow_devices();
    if (happened > 0 || (happened < 0 && errno != EINTR)) break;
  }
  places.undo();
}

}  // namespace loopback
