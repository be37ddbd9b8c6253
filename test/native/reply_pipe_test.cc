#include "reply_pipe.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include <atomic>
#include <cstdint>
#include <cstring>
#include <functional>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "../../bench/programs/bare_fuse.h"
#include "check.h"
#include "fuse_mount.h"
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

// A file served by FUSE, whose frames go out as `answer` has it.
class Server : public BareFuse {
 public:
  using Answer =
      std::function<void(ReplyPipe* pipe, int fd, const fuse_out_header&, std::string* frame)>;

  Server(int fd, size_t bytes, Answer answer) : BareFuse(fd, bytes), answer_(std::move(answer)) {}

 private:
  void send(uint64_t unique, int error, const void* data, size_t size) override {
    if (size < kWorthThePipe) return BareFuse::send(unique, error, data, size);
    const fuse_out_header header{static_cast<uint32_t>(sizeof header + size), 0, unique};
    std::string frame(static_cast<const char*>(data), size);
    answer_(&pipe_, fd_, header, &frame);
  }

  const Answer answer_;
};

class OneFile {
 public:
  OneFile(size_t bytes, Server::Answer answer) {
    MountOptions options;
    options.mountpoint = directory_.path();
    options.max_read = ReplyPipe::most_bytes();
    fd_ = mount_fuse(options);
    server_.emplace(fd_, bytes, std::move(answer));
    thread_ = std::thread([this] { server_->serve(); });
    const std::string path = directory_.path() + "/" + BareFuse::kFile;
    file_ = open(path.c_str(), O_RDWR | O_CLOEXEC);
  }
  // The mount ends with its last open file, and the server with it.
  ~OneFile() {
    close(file_);
    unmount_fuse(directory_.path());
    thread_.join();
    close(fd_);
  }
  OneFile(const OneFile&) = delete;
  OneFile& operator=(const OneFile&) = delete;

  // In memory whose pages do not begin where the frame does.
  std::string passed(const std::string& frame) {
    std::string got(frame.size() + 1, '\0');
    if (write(file_, frame.data(), frame.size()) != static_cast<ssize_t>(frame.size()) ||
        read(file_, got.data() + 1, frame.size()) != static_cast<ssize_t>(frame.size()))
      return strerror(errno);
    return got.substr(1);
  }

 private:
  const TemporaryDirectory directory_;
  int fd_ = -1, file_ = -1;
  std::optional<Server> server_;
  std::thread thread_;
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
  const auto answer = [](ReplyPipe* pipe, int fd, const fuse_out_header& header,
                         std::string* frame) {
    // Nobody writes it instead.
    if (!pipe->send(fd, header, frame->data(), frame->size())) {
      const fuse_out_header failed{sizeof failed, -EIO, header.unique};
      [[maybe_unused]] const ssize_t told = write(fd, &failed, sizeof failed);
    }
    frame->assign(frame->size(), 'x');
  };
  for (const size_t size : {size_t{65536}, size_t{614400}, ReplyPipe::most_bytes()}) {
    try {
      OneFile file(size, answer);
      const std::string frame = bytes_of_frame(size, static_cast<uint32_t>(size));
      CHECK(file.passed(frame) == frame);
    } catch (const MountError& error) {
      SKIP(error.what());
    }
  }
}

TEST(aReplyThatNobodyWaitsForAnyMoreIsNoFailure) {
  constexpr int kRounds = 3;
  std::atomic<int> sent_twice{0};
  const auto answer = [&](ReplyPipe* pipe, int fd, const fuse_out_header& header,
                          std::string* frame) {
    const auto once = [&] { return pipe->send(fd, header, frame->data(), frame->size()); };
    sent_twice += once() && once();
  };
  try {
    OneFile file(614400, answer);
    for (int round = 0; round < kRounds; ++round) {
      const std::string frame = bytes_of_frame(614400, static_cast<uint32_t>(round));
      CHECK(file.passed(frame) == frame);
    }
  } catch (const MountError& error) {
    SKIP(error.what());
  }
  CHECK_EQ(sent_twice.load(), kRounds);
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
