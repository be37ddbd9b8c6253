#include "namespaces.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "failure.h"

namespace loopback {

namespace {

void write_file(const char* path, const std::string& text) {
  const int fd = open(path, O_WRONLY | O_CLOEXEC);
  if (fd < 0) throw failure(std::string("can't open ") + path);
  const ssize_t written = write(fd, text.data(), text.size());
  const int error = errno;
  close(fd);
  if (written != static_cast<ssize_t>(text.size())) {
    errno = error;
    throw failure(std::string("can't write ") + path);
  }
}

// What keeps ordinary users from namespaces differs: each has a setting of its own.
constexpr char kSettings[] =
    "an ordinary user needs user namespaces for run (user.max_user_namespaces above 0; on Debian "
    "kernel.unprivileged_userns_clone=1; on Ubuntu kernel.apparmor_restrict_unprivileged_userns=0; "
    "in a container a seccomp profile that allows unshare)";

void enter_user_namespace() {
  const uid_t uid = geteuid();
  const gid_t gid = getegid();
  if (unshare(CLONE_NEWUSER | CLONE_NEWNS) != 0) throw failure(kSettings);
  // Without it no ordinary user may map a group (user_namespaces(7)).
  write_file("/proc/self/setgroups", "deny");
  write_file("/proc/self/uid_map", std::to_string(uid) + " " + std::to_string(uid) + " 1");
  write_file("/proc/self/gid_map", std::to_string(gid) + " " + std::to_string(gid) + " 1");
}

}  // namespace

void enter_private_namespace() {
  if (unshare(CLONE_NEWNS) != 0) {
    if (errno != EPERM) throw failure("can't make a mount namespace");
    enter_user_namespace();
  }
  if (mount(nullptr, "/", nullptr, MS_REC | MS_SLAVE, nullptr) != 0) {
    if (errno == EPERM || errno == EACCES) throw failure(kSettings);
    throw failure("can't make the mounts private");
  }
}

void keep_capabilities_over_exec() {
  if (geteuid() == 0) return;
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct data[2]{};
  if (syscall(SYS_capget, &header, data) != 0) return;
  for (const int capability : {CAP_SYS_ADMIN, CAP_SYS_PTRACE})
    data[CAP_TO_INDEX(capability)].inheritable |= CAP_TO_MASK(capability);
  if (syscall(SYS_capset, &header, data) != 0) return;
  for (const int capability : {CAP_SYS_ADMIN, CAP_SYS_PTRACE})
    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, capability, 0, 0);
}

}  // namespace loopback
