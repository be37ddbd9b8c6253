#include "caller.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cinttypes>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <vector>

namespace loopback {
namespace {

// The most bytes that the kernel takes in one read or write: INT_MAX in whole pages.
constexpr uint64_t kMostBytesAtOnce = 0x7ffff000;
constexpr uint64_t kMostVectors = 1024;  // UIO_MAXIOV

std::string proc_path(pid_t id, const char* rest) {
  return "/proc/" + std::to_string(id) + "/" + rest;
}

// A whole small file of /proc; empty where it may not be read.
std::string contents(const std::string& path) {
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return "";
  std::string text;
  char piece[4096];
  ssize_t got;
  while ((got = read(fd, piece, sizeof(piece))) > 0 || (got < 0 && errno == EINTR)) {
    if (got > 0) text.append(piece, static_cast<size_t>(got));
  }
  close(fd);
  return got < 0 ? "" : text;
}

// The number behind "key:" at the start of a line.
std::optional<uint64_t> field(const std::string& text, const char* key, int base) {
  const size_t length = std::strlen(key);
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find('\n', at), text.size());
    if (text.compare(at, length, key) == 0) {
      return std::strtoull(text.c_str() + at + length, nullptr, base);
    }
    at = end + 1;
  }
  return std::nullopt;
}

struct SystemCall {
  uint64_t number;
  std::array<uint64_t, 6> arguments;
};

// What the thread is blocked in. It may still be on its way to sleep while its request is already
// with us, and /proc then says "running": who needs the answer asks a few times, 50 µs apart.
constexpr int kPatiently = 20;

std::optional<SystemCall> present_call(pid_t tid, int attempts) {
  const std::string path = proc_path(tid, "syscall");
  for (int attempt = 1;; ++attempt) {
    const std::string text = contents(path);
    if (text.empty()) return std::nullopt;
    if (text.compare(0, 7, "running") != 0) {
      SystemCall call;
      int64_t number;
      if (std::sscanf(text.c_str(),
                      "%" SCNd64 " %" SCNx64 " %" SCNx64 " %" SCNx64 " %" SCNx64 " %" SCNx64
                      " %" SCNx64,
                      &number, &call.arguments[0], &call.arguments[1], &call.arguments[2],
                      &call.arguments[3], &call.arguments[4], &call.arguments[5]) != 7 ||
          number < 0) {
        return std::nullopt;
      }
      call.number = static_cast<uint64_t>(number);
      return call;
    }
    if (attempt >= attempts) return std::nullopt;
    const timespec pause{0, 50000};
    nanosleep(&pause, nullptr);
  }
}

// Calls whose first argument is the descriptor that they work on.
bool names_a_descriptor(uint64_t number) {
  switch (number) {
    case SYS_ioctl:
    case SYS_read:
    case SYS_write:
    case SYS_readv:
    case SYS_writev:
    case SYS_pread64:
    case SYS_pwrite64:
    case SYS_preadv:
    case SYS_pwritev:
    case SYS_preadv2:
    case SYS_pwritev2:
      return true;
    default:
      return false;
  }
}

// The st_dev of a mount by its id, as the thread's own mount namespace numbers it; 0 if unknown.
uint64_t device_of_mount(pid_t tid, uint64_t mount_id) {
  const std::string text = contents(proc_path(tid, "mountinfo"));
  for (size_t at = 0; at < text.size(); at = std::min(text.find('\n', at), text.size()) + 1) {
    uint64_t id;
    unsigned parent, major_number, minor_number;
    if (std::sscanf(text.c_str() + at, "%" SCNu64 " %u %u:%u", &id, &parent, &major_number,
                    &minor_number) == 4 &&
        id == mount_id) {
      return makedev(major_number, minor_number);
    }
  }
  return 0;
}

std::optional<int> flags_if_ours(pid_t tid, int fd, uint64_t ino, uint64_t device) {
  // Never stat through /proc/TID/fd: it would send a request to ourselves and wait for it.
  const std::string info = contents(proc_path(tid, ("fdinfo/" + std::to_string(fd)).c_str()));
  if (info.empty() || field(info, "ino:", 10) != ino) return std::nullopt;
  if (device != 0) {
    const std::optional<uint64_t> mount_id = field(info, "mnt_id:", 10);
    const uint64_t found = mount_id ? device_of_mount(tid, *mount_id) : 0;
    // A detached mount has an id that mountinfo does not list: it may well be ours.
    if (found != 0 && found != device) return std::nullopt;
  }
  const std::optional<uint64_t> flags = field(info, "flags:", 8);
  if (!flags) return std::nullopt;
  return static_cast<int>(*flags);
}

// Which descriptors a thread has; sorted. Empty where that may not be read.
std::vector<int> descriptors_of(pid_t tid) {
  std::vector<int> descriptors;
  const std::unique_ptr<DIR, int (*)(DIR*)> directory(opendir(proc_path(tid, "fdinfo").c_str()),
                                                      closedir);
  if (!directory) return descriptors;
  while (const dirent* entry = readdir(directory.get())) {
    char* end;
    const long fd = std::strtol(entry->d_name, &end, 10);
    if (end != entry->d_name && *end == '\0') descriptors.push_back(static_cast<int>(fd));
  }
  std::sort(descriptors.begin(), descriptors.end());
  return descriptors;
}

std::optional<uint64_t> vector_bytes(pid_t tid, uint64_t address, uint64_t count) {
  if (count > kMostVectors) return std::nullopt;
  std::vector<iovec> vectors(count);
  if (count != 0 && read_caller_memory(tid, address, vectors.data(), count * sizeof(iovec)) != 0) {
    return std::nullopt;
  }
  uint64_t bytes = 0;
  for (const iovec& vector : vectors) {
    bytes += std::min<uint64_t>(vector.iov_len, kMostBytesAtOnce);
  }
  return bytes;
}

int errno_of_transfer(ssize_t moved, size_t length) {
  if (moved < 0) return errno;
  return static_cast<size_t>(moved) == length ? 0 : EFAULT;
}

}  // namespace

std::optional<int> descriptor_flags(pid_t tid, uint64_t ino, uint64_t device) {
  if (tid <= 0) return std::nullopt;
  // The search below finds it too, unless several open files have the inode; but it reads a file of
  // /proc for each descriptor of the caller's.
  const std::optional<SystemCall> call = present_call(tid, kPatiently);
  if (call && names_a_descriptor(call->number)) {
    const int fd = static_cast<int>(call->arguments[0]);
    if (const std::optional<int> flags = flags_if_ours(tid, fd, ino, device)) return flags;
  }
  for (const int fd : descriptors_of(tid)) {
    if (const std::optional<int> flags = flags_if_ours(tid, fd, ino, device)) return flags;
  }
  return std::nullopt;
}

std::optional<uint64_t> write_byte_count(pid_t tid) {
  if (tid <= 0) return std::nullopt;
  const std::optional<SystemCall> call = present_call(tid, kPatiently);
  if (!call) return std::nullopt;
  std::optional<uint64_t> bytes;
  switch (call->number) {
    case SYS_write:
    case SYS_pwrite64:
      bytes = call->arguments[2];
      break;
    case SYS_writev:
    case SYS_pwritev:
    case SYS_pwritev2:
      bytes = vector_bytes(tid, call->arguments[1], call->arguments[2]);
      break;
  }
  if (!bytes) return std::nullopt;
  return std::min(*bytes, kMostBytesAtOnce);
}

std::optional<uint64_t> present_write_bytes(pid_t tid) {
  if (tid <= 0) return std::nullopt;
  const std::optional<SystemCall> call = present_call(tid, 1);
  if (!call || (call->number != SYS_write && call->number != SYS_pwrite64)) return std::nullopt;
  return std::min(call->arguments[2], kMostBytesAtOnce);
}

std::string command_of(pid_t pid) {
  std::string command = pid > 0 ? contents(proc_path(pid, "comm")) : "";
  if (!command.empty() && command.back() == '\n') command.pop_back();
  if (command.empty()) return "?";
  for (char& c : command) {
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) c = ' ';
  }
  return command;
}

pid_t process_of(pid_t tid) {
  if (tid <= 0) return tid;
  const std::optional<uint64_t> process = field(contents(proc_path(tid, "status")), "Tgid:", 10);
  return process && *process != 0 ? static_cast<pid_t>(*process) : tid;
}

int read_caller_memory(pid_t pid, uint64_t address, void* to, size_t length) {
  if (length == 0) return 0;
  const iovec local{to, length};
  const iovec remote{reinterpret_cast<void*>(address), length};
  return errno_of_transfer(process_vm_readv(pid, &local, 1, &remote, 1, 0), length);
}

int write_caller_memory(pid_t pid, uint64_t address, const void* from, size_t length) {
  if (length == 0) return 0;
  const iovec local{const_cast<void*>(from), length};
  const iovec remote{reinterpret_cast<void*>(address), length};
  return errno_of_transfer(process_vm_writev(pid, &local, 1, &remote, 1, 0), length);
}

}  // namespace loopback
