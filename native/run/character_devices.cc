#include "character_devices.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/magic.h>
#include <linux/openat2.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "../control_device.h"
#include "../device_inode.h"

// Debian 12's headers lack the newest.
#ifndef SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV
#define SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV (1UL << 5)
#endif

namespace loopback {

namespace {

#if defined(__x86_64__)
constexpr uint32_t kArchitecture = AUDIT_ARCH_X86_64;
#elif defined(__aarch64__)
constexpr uint32_t kArchitecture = AUDIT_ARCH_AARCH64;
#elif defined(__riscv) && __riscv_xlen == 64
constexpr uint32_t kArchitecture = AUDIT_ARCH_RISCV64;
#else
#error "the stat family's calls of this architecture are not known here"
#endif

constexpr int kWatched[] = {
#ifdef SYS_stat
    SYS_stat,       SYS_lstat,
#endif
    SYS_newfstatat, SYS_fstat, SYS_statx, SYS_statfs, SYS_fstatfs,
};

constexpr int kMostThreads = 64;

class Descriptor {
 public:
  explicit Descriptor(int fd) : fd_(fd) {}
  Descriptor(Descriptor&& other) noexcept : fd_(other.fd_) { other.fd_ = -1; }
  Descriptor(const Descriptor&) = delete;
  ~Descriptor() {
    if (fd_ >= 0) close(fd_);
  }
  int get() const { return fd_; }

 private:
  int fd_;
};

/// What a call asks about.
struct Question {
  pid_t tid;
  bool by_path;
  int directory = AT_FDCWD;  // Of a path; else the descriptor asked about.
  std::string path;
  bool follow = true;
};

bool read_string(pid_t tid, uint64_t address, std::string* text) {
  char buffer[PATH_MAX];
  size_t length = 0;
  // A page at a time: what follows the string may not be mapped.
  while (length < sizeof buffer) {
    const size_t piece = std::min<size_t>(sizeof buffer - length, 4096 - (address + length) % 4096);
    iovec local{buffer + length, piece};
    iovec remote{reinterpret_cast<void*>(address + length), piece};
    const ssize_t got = process_vm_readv(tid, &local, 1, &remote, 1, 0);
    if (got <= 0) return false;
    if (const void* end = memchr(buffer + length, 0, static_cast<size_t>(got))) {
      text->assign(buffer, static_cast<size_t>(static_cast<const char*>(end) - buffer));
      return true;
    }
    length += static_cast<size_t>(got);
  }
  return false;
}

bool write_memory(pid_t tid, uint64_t address, const void* data, size_t size) {
  iovec local{const_cast<void*>(data), size};
  iovec remote{reinterpret_cast<void*>(address), size};
  return process_vm_writev(tid, &local, 1, &remote, 1, 0) == static_cast<ssize_t>(size);
}

/// Names that mean something else to each process, as one that means the same to us.
std::string from_everywhere(const Question& asked) {
  const std::string process = "/proc/" + std::to_string(asked.tid);
  if (!asked.by_path) return process + "/fd/" + std::to_string(asked.directory);
  const std::string& path = asked.path;
  if (path.starts_with("/proc/self/")) return process + path.substr(strlen("/proc/self"));
  if (path.starts_with("/dev/fd/")) return process + path.substr(strlen("/dev"));
  const char* const standard[] = {"/dev/stdin", "/dev/stdout", "/dev/stderr"};
  for (int fd = 0; fd < 3; ++fd) {
    if (path == standard[fd] && asked.follow) return process + "/fd/" + std::to_string(fd);
  }
  if (path.starts_with("/")) return path;
  const std::string base =
      process + (asked.directory == AT_FDCWD ? "/cwd" : "/fd/" + std::to_string(asked.directory));
  return path.empty() ? base : base + "/" + path;
}

std::string link_at(const std::string& path) {
  char target[PATH_MAX];
  const ssize_t length = readlink(path.c_str(), target, sizeof target);
  return length < 0 ? "" : std::string(target, static_cast<size_t>(length));
}

/// Whether the caller sees the same files as we do: it may be in a sandbox, or in a `run` in ours.
bool shares_our_view(pid_t tid) {
  static const std::string ours = link_at("/proc/self/ns/mnt");
  const std::string process = "/proc/" + std::to_string(tid);
  return link_at(process + "/ns/mnt") == ours && link_at(process + "/root") == "/";
}

/// The file asked about, without opening it.
Descriptor find(const Question& asked) {
  const int flags = O_PATH | O_CLOEXEC | (asked.follow ? 0 : O_NOFOLLOW);
  const std::string path = from_everywhere(asked);
  if (path != asked.path || shares_our_view(asked.tid))
    return Descriptor(open(path.c_str(), flags));
  const std::string root = "/proc/" + std::to_string(asked.tid) + "/root";
  const Descriptor directory(open(root.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  open_how how{};
  how.flags = static_cast<uint64_t>(flags);
  how.resolve = RESOLVE_IN_ROOT;
  return Descriptor(
      static_cast<int>(syscall(SYS_openat2, directory.get(), path.c_str(), &how, sizeof how)));
}

/// Nothing: the file is not a device of ours.
std::optional<DeviceInode> device_of(int file, struct stat* found) {
  if (fstat(file, found) != 0 || !S_ISREG(found->st_mode)) return std::nullopt;
  const auto device = from_inode(found->st_ino);
  struct statfs system;
  if (!device.has_value() || fstatfs(file, &system) != 0 || system.f_type != FUSE_SUPER_MAGIC)
    return std::nullopt;
  return device;
}

bool answer_stat(const Question& asked, uint64_t address) {
  const Descriptor file = find(asked);
  struct stat found;
  const auto device = device_of(file.get(), &found);
  if (!device.has_value()) return false;
  found.st_mode = S_IFCHR | (found.st_mode & 07777);
  found.st_rdev = makedev(device->major, device->minor);
  found.st_size = 0;
  found.st_blocks = 0;
  // On these architectures the C library's struct is the kernel's.
  return write_memory(asked.tid, address, &found, sizeof found);
}

bool answer_statx(const Question& asked, uint32_t mask, uint64_t address) {
  const Descriptor file = find(asked);
  struct stat found;
  const auto device = device_of(file.get(), &found);
  if (!device.has_value()) return false;
  struct statx told;
  if (statx(file.get(), "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, mask, &told) != 0) return false;
  told.stx_mode = static_cast<uint16_t>(S_IFCHR | (told.stx_mode & 07777));
  told.stx_rdev_major = device->major;
  told.stx_rdev_minor = device->minor;
  told.stx_size = 0;
  told.stx_blocks = 0;
  return write_memory(asked.tid, address, &told, sizeof told);
}

bool answer_statfs(const Question& asked, uint64_t address) {
  const Descriptor file = find(asked);
  struct statfs told;
  if (fstatfs(file.get(), &told) != 0 ||
      (told.f_type != FUSE_SUPER_MAGIC && told.f_type != OVERLAYFS_SUPER_MAGIC &&
       told.f_type != TMPFS_MAGIC))
    return false;
  if (!link_at("/proc/self/fd/" + std::to_string(file.get())).starts_with("/sys/")) return false;
  told.f_type = SYSFS_MAGIC;
  return write_memory(asked.tid, address, &told, sizeof told);
}

/// v4l2loopback-ctl names the device to remove by the argument itself, and asks for a new one by
/// NULL, though both request numbers claim a pointer: of a file of ours the kernel would read that
/// address, and refuse. A pointer that can be read is the kernel's to bring.
bool answer_control(const Question& asked, unsigned request, uint64_t argument,
                    seccomp_notif_resp* response) {
  const Descriptor file = find(asked);
  struct stat found;
  const auto device = device_of(file.get(), &found);
  if (!device.has_value() || to_inode(*device) != to_inode(kControlInode)) return false;
  char byte;
  iovec local{&byte, 1};
  iovec remote{reinterpret_cast<void*>(argument), 1};
  if (process_vm_readv(asked.tid, &local, 1, &remote, 1, 0) == 1) return false;
  if (request == kControlAdd && argument != 0) return false;
  const Descriptor control(open(from_everywhere(asked).c_str(), O_RDONLY | O_CLOEXEC));
  ControlConfig defaults;
  const int result = request == kControlAdd ? ioctl(control.get(), kControlAdd, &defaults)
                                            : ioctl(control.get(), kControlRemoveByValue, argument);
  response->val = result;
  response->error = result < 0 ? -errno : 0;
  return true;
}

/// True: the call has its answer.
bool answer(const seccomp_notif& notice, seccomp_notif_resp* response) {
  const auto& args = notice.data.args;
  Question asked{static_cast<pid_t>(notice.pid), true, AT_FDCWD, "", true};
  const auto path_at = [&](int index) { return read_string(asked.tid, args[index], &asked.path); };
  // A path that is empty asks about the descriptor, where the flags say so.
  const auto at = [&](uint64_t flags) {
    asked.directory = static_cast<int>(args[0]);
    asked.follow = (flags & AT_SYMLINK_NOFOLLOW) == 0;
    // NULL for an empty path is taken since Linux 6.11.
    if (args[1] != 0 && !path_at(1)) return false;
    if (!asked.path.empty()) return true;
    if ((flags & AT_EMPTY_PATH) == 0) return false;
    asked.by_path = asked.directory == AT_FDCWD;
    asked.follow = true;
    return true;
  };
  switch (notice.data.nr) {
#ifdef SYS_stat
    case SYS_stat:
      return path_at(0) && answer_stat(asked, args[1]);
    case SYS_lstat:
      asked.follow = false;
      return path_at(0) && answer_stat(asked, args[1]);
#endif
    case SYS_newfstatat:
      return at(args[3]) && answer_stat(asked, args[2]);
    case SYS_fstat:
      asked.by_path = false;
      asked.directory = static_cast<int>(args[0]);
      return answer_stat(asked, args[1]);
    case SYS_statx:
      return at(args[2]) && answer_statx(asked, static_cast<uint32_t>(args[3]), args[4]);
    case SYS_statfs:
      return path_at(0) && answer_statfs(asked, args[1]);
    case SYS_fstatfs:
      asked.by_path = false;
      asked.directory = static_cast<int>(args[0]);
      return answer_statfs(asked, args[1]);
    case SYS_ioctl:
      asked.by_path = false;
      asked.directory = static_cast<int>(args[0]);
      return answer_control(asked, static_cast<unsigned>(args[1]), args[2], response);
    default:
      return false;
  }
}

class Answering {
 public:
  explicit Answering(int listener) : listener_(listener) {
    seccomp_notif_sizes sizes{};
    syscall(SYS_seccomp, SECCOMP_GET_NOTIF_SIZES, 0, &sizes);
    notice_size_ = std::max<size_t>(sizes.seccomp_notif, sizeof(seccomp_notif));
    response_size_ = std::max<size_t>(sizes.seccomp_notif_resp, sizeof(seccomp_notif_resp));
    add_thread();
  }

 private:
  void add_thread() {
    ++threads_;
    std::thread([this] { run(); }).detach();
  }

  void run() {
    std::vector<uint64_t> notice_bytes(notice_size_ / 8 + 1);
    std::vector<uint64_t> response_bytes(response_size_ / 8 + 1);
    auto& notice = *reinterpret_cast<seccomp_notif*>(notice_bytes.data());
    auto& response = *reinterpret_cast<seccomp_notif_resp*>(response_bytes.data());
    for (;;) {
      // The kernel insists on zeros.
      std::fill(notice_bytes.begin(), notice_bytes.end(), 0);
      if (ioctl(listener_, SECCOMP_IOCTL_NOTIF_RECV, &notice) != 0) {
        // ENOENT: the caller was killed meanwhile.
        if (errno == EINTR || errno == ENOENT) continue;
        return;
      }
      if (++busy_ == threads_ && threads_ < kMostThreads) add_thread();
      std::fill(response_bytes.begin(), response_bytes.end(), 0);
      response.id = notice.id;
      if (!answer(notice, &response)) response.flags = SECCOMP_USER_NOTIF_FLAG_CONTINUE;
      ioctl(listener_, SECCOMP_IOCTL_NOTIF_SEND, &response);
      --busy_;
    }
  }

  const int listener_;
  size_t notice_size_, response_size_;
  std::atomic<int> threads_{0};
  std::atomic<int> busy_{0};
};

}  // namespace

int install_stat_filter() {
  const sock_filter allow = BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
  const sock_filter notify = BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_USER_NOTIF);
  std::vector<sock_filter> program = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, arch)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, kArchitecture, 1, 0),
      allow,
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
  };
  for (const int number : kWatched) {
    program.push_back(BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, static_cast<uint32_t>(number), 0, 1));
    program.push_back(notify);
  }
  // Of ioctls, two requests alone.
  program.push_back(BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_ioctl, 0, 4));
  program.push_back(BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, args[1])));
  program.push_back(BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, kControlRemove, 1, 0));
  program.push_back(BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, kControlAdd, 0, 1));
  program.push_back(notify);
  program.push_back(allow);
  sock_fprog filter{static_cast<unsigned short>(program.size()), program.data()};
  // Without the first, a program that takes many signals may never get its answer (Linux 5.19);
  // the second spares it a slow-down that has nothing to do with us.
  const unsigned long flags = SECCOMP_FILTER_FLAG_NEW_LISTENER | SECCOMP_FILTER_FLAG_SPEC_ALLOW;
  for (const unsigned long more : {SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV, 0ul}) {
    const long listener = syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags | more, &filter);
    if (listener >= 0) return static_cast<int>(listener);
    if (errno != EINVAL) return -1;
  }
  return -1;
}

void answer_stat_calls(int listener) {
  // Lives as long as the process: its threads never end.
  new Answering(listener);
}

}  // namespace loopback
