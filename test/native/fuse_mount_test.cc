#include "fuse_mount.h"

#include <fcntl.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <fstream>
#include <string>

#include "check.h"
#include "fuse_protocol.h"
#include "temporary_directory.h"

using namespace loopback;

namespace {

MountOptions options_for(const std::string& mountpoint) {
  MountOptions options;
  options.mountpoint = mountpoint;
  return options;
}

std::string mount_line(const std::string& mountpoint) {
  std::ifstream mounts("/proc/self/mountinfo");
  std::string line;
  while (std::getline(mounts, line)) {
    if (line.find(" " + mountpoint + " ") != std::string::npos) return line;
  }
  return "";
}

MountError failure_of(const MountOptions& options) {
  try {
    close(mount_fuse(options));
    unmount_fuse(options.mountpoint);
  } catch (const MountError& error) {
    return error;
  }
  check::fail(__FILE__, __LINE__, "the mount succeeded");
}

bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

// A stand-in for the setuid helper, which says something and fails.
std::string helper(const TemporaryDirectory& files, const std::string& script) {
  const std::string path = files.write("helper", "#!/bin/sh\n" + script + "\n");
  chmod(path.c_str(), 0755);
  return path;
}

bool mounts_directly() { return geteuid() == 0 && access("/dev/fuse", R_OK | W_OK) == 0; }

}  // namespace

TEST(mountShowsItsNamesAndGoesWithoutATrace) {
  if (!mounts_directly()) SKIP("needs root and /dev/fuse");
  const TemporaryDirectory files;
  const std::string point = files.path() + "/a b$(x)";
  mkdir(point.c_str(), 0755);
  int session;
  try {
    session = mount_fuse(options_for(point));
  } catch (const MountError& error) {
    SKIP(error.what());
  }
  CHECK((fcntl(session, F_GETFD) & FD_CLOEXEC) != 0);
  // The kernel's first request is INIT.
  alignas(8) char request[8192 + 4096];
  const ssize_t got = read(session, request, sizeof(request));
  const std::string line = mount_line(files.path() + "/a\\040b$(x)");
  const int unmounted = unmount_fuse(point);
  close(session);
  CHECK(got >= static_cast<ssize_t>(sizeof(fuse_in_header)));
  CHECK_EQ(reinterpret_cast<fuse_in_header*>(request)->opcode, FUSE_INIT);
  CHECK(contains(line, " - fuse.v4l2loopback v4l2loopback "));
  CHECK(contains(line, "default_permissions"));
  CHECK_EQ(unmounted, 0);
  CHECK_EQ(mount_line(files.path() + "/a\\040b$(x)"), "");
  CHECK_EQ(unmount_fuse(point), EINVAL);
}

TEST(aDeadMountIsNamedAndCanBeCleared) {
  if (!mounts_directly()) SKIP("needs root and /dev/fuse");
  const TemporaryDirectory files;
  const std::string point = files.path() + "/m";
  mkdir(point.c_str(), 0755);
  try {
    close(mount_fuse(options_for(point)));
  } catch (const MountError& error) {
    SKIP(error.what());
  }
  const MountError error = failure_of(options_for(point));
  const int cleared = unmount_fuse(point);
  CHECK_EQ(error.error(), ENOTCONN);
  CHECK(contains(error.what(), "a dead mount lies on " + point));
  CHECK_EQ(cleared, 0);
}

TEST(badMountpointsAreRefusedByName) {
  const TemporaryDirectory files;
  const std::string file = files.write("file", "x");
  CHECK_EQ(failure_of(options_for(file)).error(), ENOTDIR);
  CHECK(contains(failure_of(options_for(file)).what(), file));
  CHECK_EQ(failure_of(options_for(files.path() + "/none")).error(), ENOENT);
  MountOptions options = options_for(files.path());
  options.fsname = "a,allow_other";
  CHECK_EQ(failure_of(options).error(), EINVAL);
  CHECK_EQ(unmount_fuse(files.path() + "/none"), ENOENT);
}

// What an ordinary user meets. The tests run as root, so a child gives its rights away first.
namespace {

// A /dev/fuse in a mount namespace of the child's own. Everybody may open the one that udev makes.
struct FuseNode {
  std::string path;
  mode_t mode = 0666;
};

bool replace_the_device(const FuseNode& node) {
  return unshare(CLONE_NEWNS) == 0 &&
         mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0 &&
         mknod(node.path.c_str(), S_IFCHR | node.mode, makedev(10, 229)) == 0 &&
         chmod(node.path.c_str(), node.mode) == 0 &&
         mount(node.path.c_str(), "/dev/fuse", nullptr, MS_BIND, nullptr) == 0;
}

// The sentence of the error, or "mounted".
std::string attempt_as_nobody(MountOptions options, const FuseNode& node = {}) {
  int ends[2];
  CHECK_EQ(pipe(ends), 0);
  const pid_t child = fork();
  if (child == 0) {
    std::string text = "mounted";
    if (!node.path.empty() && !replace_the_device(node)) _exit(1);
    if (setgid(65534) != 0 || setuid(65534) != 0) _exit(1);
    try {
      const int session = mount_fuse(options);
      text += mount_line(options.mountpoint).empty() ? ", but not listed" : "";
      const int unmounted = unmount_fuse(options.mountpoint);
      if (unmounted != 0) text += ", but not unmounted: " + std::to_string(unmounted);
      if (!mount_line(options.mountpoint).empty()) text += ", but still listed";
      close(session);
    } catch (const MountError& error) {
      text = error.what();
    }
    (void)!write(ends[1], text.data(), text.size());
    _exit(0);
  }
  close(ends[1]);
  std::string text;
  char piece[1024];
  ssize_t got;
  while ((got = read(ends[0], piece, sizeof(piece))) > 0) {
    text.append(piece, static_cast<size_t>(got));
  }
  close(ends[0]);
  waitpid(child, nullptr, 0);
  umount2(options.mountpoint.c_str(), MNT_DETACH);
  return text;
}

struct OrdinaryUser {
  TemporaryDirectory files;
  MountOptions options;
  OrdinaryUser() {
    if (geteuid() != 0) SKIP("needs root, to become an ordinary user");
    chmod(files.path().c_str(), 0755);
    options.mountpoint = files.path() + "/m";
    mkdir(options.mountpoint.c_str(), 0755);
    CHECK_EQ(chown(options.mountpoint.c_str(), 65534, 65534), 0);
  }
};

}  // namespace

TEST(anOrdinaryUserIsToldThatFusermount3IsNotInstalled) {
  OrdinaryUser user;
  user.options.fusermount = "fusermount3-that-is-not-there";
  const std::string text = attempt_as_nobody(user.options);
  const check::Scope scope(text);
  CHECK(contains(text, "fusermount3-that-is-not-there"));
  CHECK(contains(text, "is not installed"));
}

TEST(anOrdinaryUserIsToldWhatFusermount3Said) {
  OrdinaryUser user;
  user.options.fusermount = helper(user.files, "echo no such luck >&2; exit 1");
  const std::string text = attempt_as_nobody(user.options);
  const check::Scope scope(text);
  CHECK(contains(text, "could not mount on " + user.options.mountpoint + ": no such luck"));
}

TEST(anOrdinaryUserIsToldOfUserAllowOther) {
  OrdinaryUser user;
  user.options.allow_other = true;
  user.options.fusermount =
      helper(user.files,
             "echo \"fusermount3: option allow_other only allowed if 'user_allow_other' is set in "
             "/etc/fuse.conf\" >&2; exit 1");
  const std::string text = attempt_as_nobody(user.options);
  const check::Scope scope(text);
  CHECK(contains(text, "add the line user_allow_other to /etc/fuse.conf"));
}

TEST(theHelperGetsItsArgumentsWithoutAShell) {
  OrdinaryUser user;
  user.options.fusermount =
      helper(user.files, "echo \"$_FUSE_COMMFD|$*|$(readlink /proc/$$/fd/0)\" >&2; exit 1");
  const std::string text = attempt_as_nobody(user.options);
  const check::Scope scope(text);
  CHECK(contains(text,
                 "3|-o default_permissions,rw,nosuid,nodev,fsname=v4l2loopback,subtype="
                 "v4l2loopback -- " +
                     user.options.mountpoint + "|/dev/null"));
}

TEST(anOrdinaryUserIsToldTheModeOfTheDevice) {
  OrdinaryUser user;
  if (access("/dev/fuse", R_OK | W_OK) != 0) SKIP("there is no /dev/fuse");
  user.options.fusermount = helper(user.files, "exit 1");
  const std::string text = attempt_as_nobody(user.options, {user.files.path() + "/fuse", 0600});
  const check::Scope scope(text);
  CHECK(contains(text, "ordinary users need 0666"));
}

TEST(anOrdinaryUserMountsThroughFusermount3) {
  OrdinaryUser user;
  struct stat status;
  if (stat("/usr/bin/fusermount3", &status) != 0 || (status.st_mode & S_ISUID) == 0) {
    SKIP("fusermount3 is not installed setuid");
  }
  if (access("/dev/fuse", R_OK | W_OK) != 0) SKIP("there is no /dev/fuse");
  CHECK_EQ(attempt_as_nobody(user.options, {user.files.path() + "/fuse"}), "mounted");
}
