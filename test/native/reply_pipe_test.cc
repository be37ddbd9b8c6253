#include "reply_pipe.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cstdint>
#include <string>
#include <vector>

#include "check.h"
#include "live_session.h"

using namespace loopback;

namespace {

const std::string kHeader = "sixteen bytes of";

// What takes pages from a pipe as /dev/fuse does.
class Sink {
 public:
  Sink() : fd_(memfd_create("replies", MFD_CLOEXEC)) {}
  ~Sink() { close(fd_); }
  int fd() const { return fd_; }

  // All that has come since the last time.
  std::string taken() {
    const off_t end = lseek(fd_, 0, SEEK_CUR);
    std::string bytes(static_cast<size_t>(end - taken_), '\0');
    if (pread(fd_, bytes.data(), bytes.size(), taken_) != static_cast<ssize_t>(bytes.size()))
      return "";
    taken_ = end;
    return bytes;
  }

 private:
  const int fd_;
  off_t taken_ = 0;
};

std::string bytes_of_frame(size_t size, uint32_t seed) {
  std::string bytes(size, '\0');
  for (char& byte : bytes) byte = static_cast<char>((seed = seed * 1664525 + 1013904223) >> 24);
  return bytes;
}

bool sent(ReplyPipe* pipe, int fd, const std::string& data) {
  return pipe->send(fd, kHeader.data(), kHeader.size(), data.data(), data.size());
}

}  // namespace

TEST(aReplyIsWholeWhateverItsSizeAndWhereverItLies) {
  ReplyPipe pipe;
  Sink sink;
  uint32_t seed = 1;
  for (const size_t size : {size_t{1}, size_t{4095}, size_t{4096}, size_t{614400},
                            ReplyPipe::most_bytes() - 1, ReplyPipe::most_bytes()}) {
    for (const size_t offset : {size_t{0}, size_t{1}, size_t{100}, size_t{4095}}) {
      const std::string memory = bytes_of_frame(offset + size, ++seed);
      CHECK(pipe.send(sink.fd(), kHeader.data(), kHeader.size(), memory.data() + offset, size));
      CHECK(sink.taken() == kHeader + memory.substr(offset));
    }
  }
}

TEST(aReplyMayBeOverwrittenOnceItIsSent) {
  ReplyPipe pipe;
  Sink sink;
  std::string data = bytes_of_frame(614400, 7);
  const std::string before = data;
  CHECK(sent(&pipe, sink.fd(), data));
  data.assign(data.size(), 'x');
  CHECK(sink.taken() == kHeader + before);
}

TEST(aReplyThatIsTooLargeIsLeftToTheCaller) {
  ReplyPipe pipe;
  Sink sink;
  CHECK(!sent(&pipe, sink.fd(), bytes_of_frame(ReplyPipe::most_bytes() + 1, 1)));
  CHECK_EQ(sink.taken().size(), 0);
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
    CHECK(sink.taken() == kHeader + data);
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
