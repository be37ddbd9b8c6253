// A pipe through which a frame goes to the kernel.
#pragma once

#include <linux/fuse.h>

#include <cstddef>

namespace loopback {

/// Of one thread. writev(2) to /dev/fuse has the kernel look up our pages one by one while it
/// copies; vmsplice(2) looks them up many at a time, and splice(2) then copies out of them. The
/// copies are the same. (fuse_dev_splice_write in the kernel's fs/fuse/dev.c: without
/// SPLICE_F_MOVE no page changes hands.)
class ReplyPipe {
 public:
  /// What an ordinary user's pipe holds (fs.pipe-max-size), less one page for the header and one
  /// because the bytes need not begin at a page's start: 254 pages of 4 KiB.
  static size_t most_bytes();

  /// Takes two descriptors, and 1 MiB of what an ordinary user's pipes may hold together
  /// (fs.pipe-user-pages-soft, 64 MiB by default). Without them it sends nothing.
  ReplyPipe() { open(); }
  ~ReplyPipe() { close(); }
  ReplyPipe(const ReplyPipe&) = delete;
  ReplyPipe& operator=(const ReplyPipe&) = delete;

  /// `header` and `size` bytes of `data` in one piece to `fd`, which must take pages from a pipe.
  /// Both may be used anew afterwards. False: it can't be sent this way, and the caller writes it.
  /// True as well where the kernel says that the request was given up meanwhile.
  bool send(int fd, const fuse_out_header& header, const void* data, size_t size);

 private:
  void open();
  void close();
  void empty();

  int ends_[2] = {-1, -1};  // To read from, to write to.
};

}  // namespace loopback
