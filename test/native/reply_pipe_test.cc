#include "reply_pipe.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "check.h"
#include "fuse_mount.h"
#include "fuse_protocol.h"
#include "live_session.h"
#include "temporary_directory.h"

using namespace loopback;

namespace {

std::string bytes_of_frame(size_t size, uint32_t seed) {
  std::string bytes(size, '\0');
  for (char& byte : bytes) byte = static_cast<char>((seed = seed * 1664525 + 1013904223) >> 24);
  return bytes;
}

fuse_out_header header_of(const std::string& data) {
  return {static_cast<uint32_t>(sizeof(fuse_out_header) + data.size()), 0, 42};
}

// A file that takes what a pipe holds.
class Sink {
 public:
  Sink() : fd_(memfd_create("replies", MFD_CLOEXEC)) {}
  ~Sink() { close(fd_); }
  int fd() const { return fd_; }

  // Whether this, behind its header, is all that has come since the last time.
  bool got(const std::string& data) {
    const off_t end = lseek(fd_, 0, SEEK_CUR);
    std::string bytes(static_cast<size_t>(end - taken_), '\0');
    const ssize_t read = pread(fd_, bytes.data(), bytes.size(), taken_);
    taken_ = end;
    const fuse_out_header header = header_of(data);
    return read == static_cast<ssize_t>(bytes.size()) &&
           bytes == std::string(reinterpret_cast<const char*>(&header), sizeof header) + data;
  }
  bool got_nothing() const { return lseek(fd_, 0, SEEK_CUR) == taken_; }

 private:
  const int fd_;
  off_t taken_ = 0;
};

bool sent(ReplyPipe* pipe, int fd, const std::string& data) {
  return pipe->send(fd, header_of(data), data.data(), data.size());
}

// A mount with a file whose reads `answer` answers, on a thread of its own.
class OneFile {
 public:
  using Answer = std::function<void(int fd, uint64_t unique, size_t size)>;

  explicit OneFile(Answer answer) : answer_(std::move(answer)) {
    MountOptions options;
    options.mountpoint = directory_.path();
    options.max_read = ReplyPipe::most_bytes();
    fd_ = mount_fuse(options);
    server_ = std::thread([this] { serve(); });
  }
  ~OneFile() {
    unmount_fuse(directory_.path());
    server_.join();
    close(fd_);
  }
  std::string path() const { return directory_.path() + "/file"; }

 private:
  void serve() {
    std::vector<uint8_t> request((1 << 20) + 4096);
    while (true) {
      const ssize_t size = read(fd_, request.data(), request.size());
      if (size < 0 && (errno == EINTR || errno == ENOENT || errno == EAGAIN)) continue;
      if (size < static_cast<ssize_t>(sizeof(fuse_in_header))) return;
      const auto* in = reinterpret_cast<const fuse_in_header*>(request.data());
      dispatch(*in, request.data() + sizeof *in);
    }
  }

  void dispatch(const fuse_in_header& in, const uint8_t* body) {
    fuse_attr attributes{};
    attributes.ino = in.nodeid;
    attributes.mode =
        in.nodeid == FUSE_ROOT_ID && in.opcode != FUSE_LOOKUP ? S_IFDIR | 0700 : S_IFREG | 0600;
    attributes.nlink = 1;
    attributes.uid = getuid();
    attributes.gid = getgid();
    switch (in.opcode) {
      case FUSE_INIT: {
        const auto* offered = reinterpret_cast<const fuse_init_in*>(body);
        WireInitOut out{};
        out.major = 7;
        out.minor = std::min<uint32_t>(offered->minor, 38);
        out.flags = offered->flags & FUSE_MAX_PAGES;
        out.max_write = 4096;
        out.max_pages = 256;
        return reply(in.unique, 0, &out, sizeof out);
      }
      case FUSE_LOOKUP: {
        fuse_entry_out out{};
        out.nodeid = FUSE_ROOT_ID + 1;
        out.attr = attributes;
        return reply(in.unique, 0, &out, sizeof out);
      }
      case FUSE_GETATTR: {
        fuse_attr_out out{};
        out.attr = attributes;
        return reply(in.unique, 0, &out, sizeof out);
      }
      case FUSE_OPEN: {
        fuse_open_out out{};
        out.open_flags = FOPEN_DIRECT_IO;
        return reply(in.unique, 0, &out, sizeof out);
      }
      case FUSE_READ:
        return answer_(fd_, in.unique, reinterpret_cast<const fuse_read_in*>(body)->size);
      case FUSE_FORGET:
      case FUSE_BATCH_FORGET:
      case FUSE_INTERRUPT:
        return;
      default:
        return reply(in.unique, in.opcode == FUSE_RELEASE ? 0 : -ENOSYS, nullptr, 0);
    }
  }

  void reply(uint64_t unique, int error, const void* data, size_t size) {
    const fuse_out_header header{static_cast<uint32_t>(sizeof header + size), error, unique};
    const iovec parts[2] = {{const_cast<fuse_out_header*>(&header), sizeof header},
                            {const_cast<void*>(data), size}};
    [[maybe_unused]] const ssize_t written = writev(fd_, parts, 2);
  }

  const TemporaryDirectory directory_;
  const Answer answer_;
  int fd_ = -1;
  std::thread server_;
};

}  // namespace

TEST(aReplyIsWholeWhateverItsSizeAndWhereverItLies) {
  ReplyPipe pipe;
  Sink sink;
  uint32_t seed = 1;
  for (const size_t size : {size_t{1}, size_t{4095}, size_t{4096}, size_t{614400},
                            ReplyPipe::most_bytes() - 1, ReplyPipe::most_bytes()}) {
    for (const size_t offset : {size_t{0}, size_t{1}, size_t{100}, size_t{4095}}) {
      const std::string memory = bytes_of_frame(offset + size, ++seed);
      const std::string data = memory.substr(offset);
      CHECK(pipe.send(sink.fd(), header_of(data), memory.data() + offset, size));
      CHECK(sink.got(data));
    }
  }
}

TEST(aReplyToTheKernelIsTakenFromAPipeAndItsMemoryMayBeUsedAnew) {
  size_t through_pipe = 0, written = 0;
  ReplyPipe pipe;
  std::string slot;
  const auto answer = [&](int fd, uint64_t unique, size_t size) {
    slot = bytes_of_frame(size, static_cast<uint32_t>(size));
    const fuse_out_header header{static_cast<uint32_t>(sizeof header + size), 0, unique};
    if (pipe.send(fd, header, slot.data(), size)) {
      ++through_pipe;
    } else {
      ++written;
      const fuse_out_header failed{sizeof failed, -EIO, unique};
      [[maybe_unused]] const ssize_t told = write(fd, &failed, sizeof failed);
    }
    memset(slot.data(), 'x', size);
  };
  try {
    OneFile file(answer);
    const int fd = open(file.path().c_str(), O_RDONLY | O_CLOEXEC);
    CHECK(fd >= 0);
    for (const size_t size : {size_t{1}, size_t{65536}, size_t{614400}, ReplyPipe::most_bytes()}) {
      std::string got(size + 1, '\0');
      // Neither side's pages begin where the bytes do.
      CHECK_EQ(read(fd, got.data() + 1, size), static_cast<ssize_t>(size));
      CHECK(got.substr(1) == bytes_of_frame(size, static_cast<uint32_t>(size)));
    }
    close(fd);
  } catch (const MountError& error) {
    SKIP(error.what());
  }
  CHECK_EQ(written, 0);
  CHECK_EQ(through_pipe, 4);
}

TEST(aReplyThatNobodyWaitsForAnyMoreIsNoFailure) {
  ReplyPipe pipe;
  bool twice = false;
  const auto answer = [&](int fd, uint64_t unique, size_t size) {
    const std::string data = bytes_of_frame(size, 1);
    const fuse_out_header header{static_cast<uint32_t>(sizeof header + size), 0, unique};
    twice = pipe.send(fd, header, data.data(), size) && pipe.send(fd, header, data.data(), size);
  };
  const uint64_t descriptors = open_descriptors();
  try {
    OneFile file(answer);
    const int fd = open(file.path().c_str(), O_RDONLY | O_CLOEXEC);
    std::string got(614400, '\0');
    for (int round = 0; round < 2; ++round) {
      CHECK_EQ(read(fd, got.data(), got.size()), static_cast<ssize_t>(got.size()));
      CHECK(got == bytes_of_frame(got.size(), 1));
    }
    close(fd);
  } catch (const MountError& error) {
    SKIP(error.what());
  }
  CHECK(twice);
  CHECK_EQ(open_descriptors(), descriptors);
}

TEST(aReplyThatIsTooLargeIsLeftToTheCaller) {
  ReplyPipe pipe;
  Sink sink;
  CHECK(!sent(&pipe, sink.fd(), bytes_of_frame(ReplyPipe::most_bytes() + 1, 1)));
  CHECK(sink.got_nothing());
}

TEST(aReplyThatIsRefusedLeavesNothingInThePipe) {
  ReplyPipe pipe;
  Sink sink;
  const int closed = open("/dev/null", O_RDONLY | O_CLOEXEC);
  const uint64_t descriptors = open_descriptors();
  for (uint32_t round = 0; round < 3; ++round) {
    CHECK(!sent(&pipe, closed, bytes_of_frame(614400, round)));
    const std::string data = bytes_of_frame(4096, 100 + round);
    CHECK(sent(&pipe, sink.fd(), data));
    CHECK(sink.got(data));
  }
  CHECK_EQ(open_descriptors(), descriptors);
  close(closed);
}

TEST(withoutDescriptorsAReplyIsLeftToTheCaller) {
  Sink sink;
  rlimit before;
  getrlimit(RLIMIT_NOFILE, &before);
  const rlimit few{static_cast<rlim_t>(sink.fd()) + 1, before.rlim_max};
  setrlimit(RLIMIT_NOFILE, &few);
  std::vector<int> all;
  for (int fd = dup(sink.fd()); fd >= 0; fd = dup(sink.fd())) all.push_back(fd);
  bool was_sent;
  {
    ReplyPipe pipe;
    was_sent = sent(&pipe, sink.fd(), "data");
  }
  for (const int fd : all) close(fd);
  setrlimit(RLIMIT_NOFILE, &before);
  CHECK(!was_sent);
  ReplyPipe pipe;
  CHECK(sent(&pipe, sink.fd(), "data"));
}
