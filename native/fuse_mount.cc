#include "fuse_mount.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <sstream>
#include <utility>
#include <vector>

extern char** environ;

namespace loopback {
namespace {

constexpr char kFuseDevice[] = "/dev/fuse";
constexpr int kHelperSeconds = 30;

// A descriptor that is closed with its scope.
class Descriptor {
 public:
  Descriptor() = default;
  explicit Descriptor(int fd) : fd_(fd) {}
  Descriptor(Descriptor&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Descriptor& operator=(Descriptor&& other) noexcept {
    reset(std::exchange(other.fd_, -1));
    return *this;
  }
  ~Descriptor() { reset(); }
  int get() const { return fd_; }
  int release() { return std::exchange(fd_, -1); }
  void reset(int fd = -1) {
    if (fd_ >= 0) close(fd_);
    fd_ = fd;
  }

 private:
  int fd_ = -1;
};

// Clear of 0 to 9, so that the child's own numbers can be filled in any order.
Descriptor moved_up(int fd) {
  Descriptor low(fd);
  return Descriptor(fd < 0 ? -1 : fcntl(fd, F_DUPFD_CLOEXEC, 10));
}

struct Pair {
  Descriptor ours;
  Descriptor theirs;
};

Pair socket_pair() {
  int ends[2] = {-1, -1};
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) return {};
  return {moved_up(ends[0]), moved_up(ends[1])};
}

Pair pipe_pair() {
  int ends[2] = {-1, -1};
  if (pipe2(ends, O_CLOEXEC) != 0) return {};
  return {moved_up(ends[0]), moved_up(ends[1])};
}

std::string why(int error) { return std::strerror(error); }

struct HelperResult {
  int spawn_error = 0;  // ENOENT: the helper is not installed.
  bool succeeded = false;
  std::string words;  // What it wrote to its stderr, on one line.
  Descriptor session;
};

int milliseconds_left(const timespec& deadline) {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  const int64_t left =
      (deadline.tv_sec - now.tv_sec) * 1000 + (deadline.tv_nsec - now.tv_nsec) / 1000000;
  return left > 0 ? static_cast<int>(left) : 0;
}

// Takes the descriptor that the helper sends; false at the end of the stream.
bool receive_session(int socket, Descriptor& session) {
  char byte;
  iovec data{&byte, 1};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))];
  msghdr message{};
  message.msg_iov = &data;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof(control);
  const ssize_t got = recvmsg(socket, &message, MSG_CMSG_CLOEXEC);
  if (got < 0) return errno == EINTR;
  if (got == 0) return false;
  for (cmsghdr* header = CMSG_FIRSTHDR(&message); header != nullptr;
       header = CMSG_NXTHDR(&message, header)) {
    if (header->cmsg_level == SOL_SOCKET && header->cmsg_type == SCM_RIGHTS) {
      int fd;
      std::memcpy(&fd, CMSG_DATA(header), sizeof(fd));
      session.reset(fd);
    }
  }
  return true;
}

bool receive_words(int pipe, std::string& words) {
  char piece[512];
  const ssize_t got = read(pipe, piece, sizeof(piece));
  if (got < 0) return errno == EINTR;
  if (got > 0 && words.size() < 4096) words.append(piece, static_cast<size_t>(got));
  return got > 0;
}

void onto_one_line(std::string& words) {
  while (!words.empty() && words.back() == '\n') words.pop_back();
  for (char& c : words) {
    if (static_cast<unsigned char>(c) < 0x20) c = ' ';
  }
}

// The child's environment is ours, but for the one variable by which the helper finds its socket.
std::vector<std::string> environment_with_socket(int socket) {
  constexpr char kVariable[] = "_FUSE_COMMFD=";
  std::vector<std::string> environment;
  for (char** each = environ; *each != nullptr; ++each) {
    if (std::strncmp(*each, kVariable, sizeof(kVariable) - 1) != 0) environment.push_back(*each);
  }
  environment.push_back(kVariable + std::to_string(socket));
  return environment;
}

std::vector<char*> pointers_to(std::vector<std::string>& strings) {
  std::vector<char*> pointers;
  for (std::string& string : strings) pointers.push_back(string.data());
  pointers.push_back(nullptr);
  return pointers;
}

int spawn_helper(std::vector<std::string> arguments, int socket, int words, pid_t* child) {
  constexpr int kSocketInChild = 3;
  std::vector<std::string> environment = environment_with_socket(kSocketInChild);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_addopen(&actions, 1, "/dev/null", O_WRONLY, 0);
  posix_spawn_file_actions_adddup2(&actions, words, 2);
  posix_spawn_file_actions_adddup2(&actions, socket, kSocketInChild);
  // Our threads block signals and Node ignores SIGPIPE: the helper starts with neither.
  posix_spawnattr_t attributes;
  posix_spawnattr_init(&attributes);
  sigset_t none, all;
  sigemptyset(&none);
  sigfillset(&all);
  posix_spawnattr_setsigmask(&attributes, &none);
  posix_spawnattr_setsigdefault(&attributes, &all);
  posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
  const int error = posix_spawn(child, arguments[0].c_str(), &actions, &attributes,
                                pointers_to(arguments).data(), pointers_to(environment).data());
  posix_spawnattr_destroy(&attributes);
  posix_spawn_file_actions_destroy(&actions);
  return error;
}

// Where the helper is. A directory of PATH that we may not look into does not hide it.
std::string found_helper(const std::string& name) {
  if (name.find('/') != std::string::npos) return access(name.c_str(), X_OK) == 0 ? name : "";
  const char* path = std::getenv("PATH");
  std::istringstream directories(std::string(path != nullptr ? path : "") + ":/usr/bin:/bin");
  std::string directory;
  while (std::getline(directories, directory, ':')) {
    const std::string file = directory + "/" + name;
    if (!directory.empty() && access(file.c_str(), X_OK) == 0) return file;
  }
  return "";
}

// Runs the helper to its end, at most kHelperSeconds; it is killed then.
HelperResult run_helper(std::vector<std::string> arguments) {
  HelperResult result;
  arguments[0] = found_helper(arguments[0]);
  if (arguments[0].empty()) {
    result.spawn_error = ENOENT;
    return result;
  }
  Pair socket = socket_pair();
  Pair words = pipe_pair();
  if (socket.theirs.get() < 0 || words.theirs.get() < 0) {
    result.spawn_error = errno;
    return result;
  }
  pid_t child;
  result.spawn_error = spawn_helper(arguments, socket.theirs.get(), words.theirs.get(), &child);
  if (result.spawn_error != 0) return result;
  socket.theirs.reset();
  words.theirs.reset();

  timespec deadline;
  clock_gettime(CLOCK_MONOTONIC, &deadline);
  deadline.tv_sec += kHelperSeconds;
  pollfd watched[2] = {{socket.ours.get(), POLLIN, 0}, {words.ours.get(), POLLIN, 0}};
  while (watched[0].fd >= 0 || watched[1].fd >= 0) {
    const int ready = poll(watched, 2, milliseconds_left(deadline));
    if (ready < 0 && errno == EINTR) continue;
    if (ready <= 0) {
      kill(child, SIGKILL);
      result.words += "no answer within " + std::to_string(kHelperSeconds) + " seconds";
      break;
    }
    if (watched[0].revents != 0 && !receive_session(watched[0].fd, result.session)) {
      watched[0].fd = -1;
    }
    if (watched[1].revents != 0 && !receive_words(watched[1].fd, result.words)) watched[1].fd = -1;
  }
  int status = 0;
  while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  result.succeeded = WIFEXITED(status) && WEXITSTATUS(status) == 0;
  onto_one_line(result.words);
  return result;
}

void check_mountpoint(const std::string& mountpoint) {
  struct stat status;
  if (stat(mountpoint.c_str(), &status) != 0) {
    const int error = errno;
    if (error == ENOTCONN) {
      throw MountError(error, "a dead mount lies on " + mountpoint + ": unmount it first");
    }
    throw MountError(error, "cannot mount on " + mountpoint + ": " + why(error));
  }
  if (!S_ISDIR(status.st_mode)) {
    throw MountError(ENOTDIR, "cannot mount on " + mountpoint + ": it is not a directory");
  }
}

void check_name(const char* what, const std::string& name) {
  if (name.find_first_of(", \t\n\\") != std::string::npos) {
    throw MountError(
        EINVAL, std::string(what) + " '" + name + "' contains a comma, a blank or a backslash");
  }
}

std::string common_options(const MountOptions& options) {
  std::string text = "default_permissions";
  if (options.allow_other) text += ",allow_other";
  if (options.max_read != 0) text += ",max_read=" + std::to_string(options.max_read);
  return text;
}

// Why mount(2) by ourselves was not possible; an errno of 0 means that it was done.
struct DirectResult {
  int error = 0;
  std::string sentence;
  Descriptor session;
};

// Debian's fusermount3 opens it with its caller's rights, not with its own; another may do better,
// so it is tried all the same.
std::string sentence_of_refused_device() {
  struct stat status;
  char mode[8] = "?";
  if (stat(kFuseDevice, &status) == 0) {
    std::snprintf(mode, sizeof(mode), "%04o", static_cast<unsigned>(status.st_mode & 07777));
  }
  return std::string("may not open /dev/fuse: its mode is ") + mode +
         ", ordinary users need 0666 (chmod 0666 /dev/fuse, as udev does)";
}

DirectResult mount_directly(const MountOptions& options) {
  DirectResult result;
  result.session.reset(open(kFuseDevice, O_RDWR | O_CLOEXEC));
  if (result.session.get() < 0) {
    result.error = errno;
    if (result.error == ENOENT) {
      result.sentence =
          "there is no /dev/fuse: load the kernel's module (modprobe fuse), or pass the device on "
          "to the container (--device /dev/fuse)";
    } else if (result.error == ENODEV || result.error == ENXIO) {
      result.sentence =
          "/dev/fuse is there, but the kernel serves no FUSE: load its module (modprobe fuse)";
    } else if (result.error == EACCES) {
      result.sentence = sentence_of_refused_device();
    } else {
      result.sentence = "cannot open /dev/fuse: " + why(result.error);
    }
    return result;
  }
  const std::string type = options.subtype.empty() ? "fuse" : "fuse." + options.subtype;
  // rootmode is octal: a directory.
  const std::string data = "fd=" + std::to_string(result.session.get()) +
                           ",rootmode=40000,user_id=" + std::to_string(geteuid()) +
                           ",group_id=" + std::to_string(getegid()) + "," + common_options(options);
  if (mount(options.fsname.c_str(), options.mountpoint.c_str(), type.c_str(), MS_NOSUID | MS_NODEV,
            data.c_str()) != 0) {
    result.error = errno;
    result.session.reset();
    result.sentence = result.error == EPERM
                          ? "may not mount here: CAP_SYS_ADMIN is missing"
                          : "cannot mount on " + options.mountpoint + ": " + why(result.error);
  }
  return result;
}

[[noreturn]] void throw_helper_error(const MountOptions& options, const DirectResult& direct,
                                     const HelperResult& helper) {
  if (helper.spawn_error == ENOENT) {
    throw MountError(direct.error, direct.sentence + "; and " + options.fusermount +
                                       ", which does it for ordinary users, is not installed "
                                       "(Debian: apt install fuse3)");
  }
  if (helper.spawn_error != 0) {
    throw MountError(helper.spawn_error, direct.sentence + "; and " + options.fusermount +
                                             " cannot be started: " + why(helper.spawn_error));
  }
  if (helper.words.find("user_allow_other") != std::string::npos) {
    throw MountError(EPERM,
                     "allow_other is not permitted to ordinary users here: add the line "
                     "user_allow_other to /etc/fuse.conf, or leave allow_other out (" +
                         helper.words + ")");
  }
  const std::string words = helper.words.empty() ? "it says no more" : helper.words;
  throw MountError(direct.error, direct.sentence + "; and " + options.fusermount +
                                     " could not mount on " + options.mountpoint + ": " + words);
}

}  // namespace

int mount_fuse(const MountOptions& options) {
  check_name("fsname", options.fsname);
  check_name("subtype", options.subtype);
  check_mountpoint(options.mountpoint);

  DirectResult direct = mount_directly(options);
  if (direct.error == 0) return direct.session.release();
  // Only a lack of permission is what the setuid helper can make good.
  if (direct.error != EPERM && direct.error != EACCES) {
    throw MountError(direct.error, direct.sentence);
  }

  std::string text = common_options(options) + ",rw,nosuid,nodev,fsname=" + options.fsname;
  if (!options.subtype.empty()) text += ",subtype=" + options.subtype;
  HelperResult helper = run_helper({options.fusermount, "-o", text, "--", options.mountpoint});
  if (!helper.succeeded || helper.session.get() < 0) throw_helper_error(options, direct, helper);
  return helper.session.release();
}

int unmount_fuse(const std::string& mountpoint, const std::string& fusermount) {
  if (umount2(mountpoint.c_str(), MNT_DETACH | UMOUNT_NOFOLLOW) == 0) return 0;
  const int error = errno;
  if (error != EPERM) return error;
  const HelperResult helper = run_helper({fusermount, "-u", "-z", "--", mountpoint});
  if (helper.succeeded) return 0;
  // "entry for … not found in /etc/mtab"
  return helper.words.find("not found") != std::string::npos ? EINVAL : error;
}

}  // namespace loopback
