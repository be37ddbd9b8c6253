#include "reply_pipe.h"

#include <fcntl.h>
#include <sys/uio.h>
#include <unistd.h>

namespace loopback {

namespace {
constexpr size_t kPipeBytes = size_t{1} << 20;
}

size_t ReplyPipe::most_bytes() {
  static const size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  return kPipeBytes - 2 * page;
}

void ReplyPipe::open() {
  if (pipe2(ends_, O_CLOEXEC) != 0) return;
  if (fcntl(ends_[1], F_SETPIPE_SZ, static_cast<int>(kPipeBytes)) < 0) close();
}

void ReplyPipe::close() {
  for (int& end : ends_) {
    if (end >= 0) ::close(end);
    end = -1;
  }
}

bool ReplyPipe::send(int fd, const void* header, size_t header_size, const void* data,
                     size_t size) {
  if (size > most_bytes()) return false;
  if (ends_[0] < 0) return false;
  const iovec parts[2] = {{const_cast<void*>(header), header_size},
                          {const_cast<void*>(data), size}};
  const ssize_t whole = static_cast<ssize_t>(header_size + size);
  if (vmsplice(ends_[1], parts, 2, SPLICE_F_NONBLOCK) == whole &&
      splice(ends_[0], nullptr, fd, nullptr, static_cast<size_t>(whole), 0) == whole)
    return true;
  // Something may be left in it: of a request that nobody waits for any more, for instance.
  close();
  open();
  return false;
}

}  // namespace loopback
