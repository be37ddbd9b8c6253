// A pipe through which a frame goes to the kernel.
#pragma once

#include <sys/types.h>

#include <cstddef>

namespace loopback {

/// Of one thread. writev(2) to /dev/fuse has the kernel look up our pages one by one while it
/// copies; vmsplice(2) looks them up many at a time, and splice(2) then copies out of them. The
/// copies are the same. (fuse_dev_splice_write in the kernel's fs/fuse/dev.c: without
/// SPLICE_F_MOVE no page changes hands.)
class ReplyPipe {
 public:
  /// What an ordinary user's pipe holds (fs.pipe-max-size), less one page for the header and one
  /// because the bytes need not begin at a page's start.
  static size_t most_bytes();

  /// Two descriptors. Without them, or with a smaller pipe than that (an ordinary user's pipes are
  /// counted: fs.pipe-user-pages-soft), `send` refuses.
  ReplyPipe() { open(); }
  ~ReplyPipe() { close(); }
  ReplyPipe(const ReplyPipe&) = delete;
  ReplyPipe& operator=(const ReplyPipe&) = delete;

  /// `header` and `data` in one piece to `fd`, which must take pages from a pipe. Both may be used
  /// anew afterwards. False: nothing was sent, and the caller writes it.
  bool send(int fd, const void* header, size_t header_size, const void* data, size_t size);

 private:
  void open();
  void close();

  int ends_[2] = {-1, -1};  // To read from, to write to.
};

}  // namespace loopback
