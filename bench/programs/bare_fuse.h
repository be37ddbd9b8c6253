// The least that a device served by FUSE can be: frames of one size through four buffers, one
// thread, no ring, no V4L2. What it costs is the kernel's protocol, whoever speaks it.
//
//   write(2) ─▶ WRITE ─ readv ─▶ one of four buffers ─ a pipe ─▶ READ ─▶ read(2)
//
// One producer, one consumer. A frame goes out as a device's does (native/reply_pipe.h).
#pragma once

#include <errno.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <deque>
#include <vector>

#include "../../native/fuse_protocol.h"
#include "../../native/reply_pipe.h"

class BareFuse {
 public:
  static constexpr const char* kFile = "frames";

  BareFuse(int fd, size_t bytes) : fd_(fd), bytes_(bytes) {
    const size_t room = (bytes + kPage - 1) / kPage * kPage;
    for (auto& buffer : buffers_) buffer = static_cast<uint8_t*>(aligned_alloc(kPage, room));
  }

  virtual ~BareFuse() {
    for (uint8_t* const buffer : buffers_) free(buffer);
  }
  BareFuse(const BareFuse&) = delete;
  BareFuse& operator=(const BareFuse&) = delete;

  /// Until the mount ends.
  virtual void serve() {
    while (serve_one()) continue;
  }

 protected:
  static constexpr size_t kPage = 4096;
  static constexpr size_t kMaxWrite = 256 * kPage;
  static constexpr size_t kWorthThePipe = 64 * 1024;

  /// The next request of /dev/fuse; false when the mount has ended.
  bool serve_one() {
    iovec parts[3] = {
        {header_.data(), header_.size()}, {landing(), room()}, {rest_.data(), rest_.size()}};
    ssize_t size = 0;
    do size = readv(fd_, parts, 3);
    while (size < 0 && (errno == EINTR || errno == ENOENT || errno == EAGAIN));
    if (size < static_cast<ssize_t>(sizeof(fuse_in_header))) return false;
    const auto* in = reinterpret_cast<const fuse_in_header*>(header_.data());
    answer(*in, header_.data() + sizeof *in);
    return true;
  }

  /// Where the next bytes of the frame being written belong, and how many it still wants.
  uint8_t* landing() const { return buffers_[written_ % kBuffers] + filled_; }
  size_t room() const { return bytes_ - filled_; }

  virtual void send(uint64_t unique, int error, const void* data = nullptr, size_t size = 0) {
    fuse_out_header header{static_cast<uint32_t>(sizeof header + size), -error, unique};
    if (size >= kWorthThePipe && pipe_.send(fd_, header, data, size)) return;
    iovec parts[2] = {{&header, sizeof header}, {const_cast<void*>(data), size}};
    [[maybe_unused]] const ssize_t sent = writev(fd_, parts, size > 0 ? 2 : 1);
  }

  void answer(const fuse_in_header& in, const uint8_t* body) {
    switch (in.opcode) {
      case FUSE_INIT:
        return initialize(in, *reinterpret_cast<const fuse_init_in*>(body));
      case FUSE_LOOKUP: {
        fuse_entry_out out{};
        out.nodeid = kFileNode;
        out.attr = attributes(kFileNode);
        return send(in.unique, 0, &out, sizeof out);
      }
      case FUSE_GETATTR: {
        fuse_attr_out out{};
        out.attr = attributes(in.nodeid);
        return send(in.unique, 0, &out, sizeof out);
      }
      case FUSE_OPEN: {
        fuse_open_out out{};
        out.open_flags = FOPEN_DIRECT_IO | FOPEN_NOFLUSH;
        return send(in.unique, 0, &out, sizeof out);
      }
      case FUSE_WRITE:
        return write({in.unique, reinterpret_cast<const fuse_write_in*>(body)->size});
      case FUSE_READ:
        reads_.push_back({in.unique, reinterpret_cast<const fuse_read_in*>(body)->size});
        return deliver();
      case FUSE_RELEASE:
        return send(in.unique, 0);
      case FUSE_FORGET:
      case FUSE_BATCH_FORGET:
      case FUSE_INTERRUPT:
        return;
      default:
        return send(in.unique, ENOSYS);
    }
  }

  const int fd_;
  loopback::ReplyPipe pipe_;
  uint64_t flags_ = FUSE_BIG_WRITES | FUSE_MAX_PAGES;  // Of INIT, as far as the kernel has them.

 private:
  static constexpr uint64_t kBuffers = 4;
  static constexpr uint64_t kFileNode = 2;

  struct Waiting {
    uint64_t unique = 0;
    size_t size = 0;
  };

  void initialize(const fuse_in_header& in, const fuse_init_in& offered) {
    loopback::WireInitOut out{};
    out.major = 7;
    out.minor = std::min<uint32_t>(offered.minor, 38);
    out.flags = offered.flags & static_cast<uint32_t>(flags_);
    out.flags2 = offered.flags2 & static_cast<uint32_t>(flags_ >> 32);
    out.max_background = 16;
    out.max_write = kMaxWrite;
    out.max_pages = kMaxWrite / kPage;
    out.time_gran = 1;
    send(in.unique, 0, &out, sizeof out);
  }

  static fuse_attr attributes(uint64_t node) {
    fuse_attr out{};
    out.ino = node;
    out.mode = node == kFileNode ? S_IFREG | 0600 : S_IFDIR | 0700;
    out.nlink = 1;
    out.uid = getuid();
    out.gid = getgid();
    // Larger than all that is ever written: a file that grows is locked for it.
    out.size = node == kFileNode ? uint64_t{1} << 62 : 0;
    return out;
  }

  // The last write of a frame waits until there is a buffer for the next.
  void write(Waiting request) {
    filled_ += request.size;
    if (filled_ < bytes_) return written(request);
    filled_ = 0;
    ++written_;
    const bool full = written_ - taken_ >= kBuffers;
    if (full) full_ = request;
    // The reader first, as the device does it: to wake the producer costs what the reader waits.
    deliver();
    if (!full) written(request);
  }

  void deliver() {
    while (!reads_.empty() && taken_ < written_) {
      const Waiting request = reads_.front();
      reads_.pop_front();
      const size_t size = std::min(request.size, bytes_ - offset_);
      send(request.unique, 0, buffers_[taken_ % kBuffers] + offset_, size);
      offset_ += size;
      if (offset_ < bytes_) continue;
      offset_ = 0;
      ++taken_;
      if (full_.size != 0) written(full_);
      full_ = {};
    }
  }

  void written(const Waiting& request) {
    fuse_write_out out{static_cast<uint32_t>(request.size), 0};
    send(request.unique, 0, &out, sizeof out);
  }

  const size_t bytes_;
  uint8_t* buffers_[kBuffers];
  size_t filled_ = 0;     // Of the frame that is being written.
  size_t offset_ = 0;     // Of the frame that is being read.
  uint64_t written_ = 0;  // Whole frames.
  uint64_t taken_ = 0;
  std::deque<Waiting> reads_;
  Waiting full_;
  std::vector<uint8_t> header_ = std::vector<uint8_t>(loopback::kWriteHeaderBytes);
  std::vector<uint8_t> rest_ = std::vector<uint8_t>(kMaxWrite + kPage);
};
