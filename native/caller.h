#pragma once

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>

/// What the process behind a request is doing, read while the request keeps it waiting. Everything
/// here is read from /proc and may be refused (another user's process, hidepid, Yama) or outdated
/// (the caller was killed): then the answer is "unknown", never an exception. Where it says so, a
/// function may wait for the caller, and even for ever: not to be called where that would matter.
namespace loopback {

/// O_* flags of the descriptor through which thread `tid` reaches inode `ino`, as /proc shows them
/// now, O_NONBLOCK set by fcntl included. `device` is the st_dev of our mount, or 0 for any: an
/// inode number of ours on another file system does not count when it is given. Where several
/// descriptors have that inode, the one that the thread's present system call names is taken, else
/// the lowest. Null where it may not be read or no descriptor matches. May wait: for the lock of an
/// epoll that a thread of the caller's is in.
std::optional<int> descriptor_flags(pid_t tid, uint64_t ino, uint64_t device = 0);

/// Bytes that the thread's present write, pwrite64, writev, pwritev or pwritev2 asks for in all,
/// however many requests the kernel makes of it. Null where it is in another call (also io_uring,
/// splice and a 32-bit program's calls) or that may not be read. May wait: for the memory that a
/// vector lies in, and a little for a thread that is on its way to sleep.
std::optional<uint64_t> write_byte_count(pid_t tid);

/// The same at once, of a write or pwrite64 alone.
std::optional<uint64_t> present_write_bytes(pid_t tid);

/// Name of the command, control characters replaced by blanks; "?" where the process is gone.
std::string command_of(pid_t pid);

/// The process that a thread belongs to; `tid` itself where that cannot be read.
pid_t process_of(pid_t tid);

/// Copies all `length` bytes from or to the caller's memory, or fails: 0 or an errno (EFAULT where
/// a part of the range is not mapped; a write may then have stored the bytes before it). May wait.
int read_caller_memory(pid_t pid, uint64_t address, void* to, size_t length);
int write_caller_memory(pid_t pid, uint64_t address, const void* from, size_t length);

}  // namespace loopback
