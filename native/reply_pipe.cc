#include "reply_pipe.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/ioctl.h>
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

// What was not taken would go out before the next header.
void ReplyPipe::empty() {
  int left = 0;
  if (ioctl(ends_[0], FIONREAD, &left) == 0 && left == 0) return;
  close();
  open();
}

bool ReplyPipe::send(int fd, const fuse_out_header& header, const void* data, size_t size) {
  if (ends_[0] < 0 || size > most_bytes()) return false;
  // So that it lies in one page.
  alignas(sizeof header) const fuse_out_header aligned = header;
  const iovec parts[2] = {{const_cast<fuse_out_header*>(&aligned), sizeof aligned},
                          {const_cast<void*>(data), size}};
  const ssize_t whole = static_cast<ssize_t>(sizeof aligned + size);
  ssize_t taken = vmsplice(ends_[1], parts, 2, SPLICE_F_NONBLOCK);
  const bool filled = taken == whole;
  if (filled) taken = splice(ends_[0], nullptr, fd, nullptr, static_cast<size_t>(whole), 0);
  if (filled && taken == whole) return true;
  const bool given_up = filled && taken < 0 && errno == ENOENT;
  empty();
  return given_up;
}

}  // namespace loopback
