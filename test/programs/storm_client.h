// What a client of kill_storm does until it is killed: it moves frames, in one of several ways,
// and keeps in shared memory what it is doing and what it has found.
#pragma once

#include <signal.h>
#include <time.h>

#include <atomic>
#include <random>
#include <vector>

#include "marked_frame.h"
#include "v4l2_device.h"

// Where a client is; what it was when it was killed is counted.
enum class Stage : uint32_t {
  kStart,
  kOpen,
  kSetUp,
  kFill,
  kWrite,
  kRead,
  kQueue,
  kDequeue,
  kPoll
};
constexpr const char* kStageNames[] = {"start", "open",  "setUp",   "fill", "write",
                                       "read",  "queue", "dequeue", "poll"};
constexpr size_t kStages = std::size(kStageNames);

// Shared between the storm and all its clients.
struct Shared {
  std::atomic<uint64_t> written{0}, taken{0}, torn{0};
};

enum class Kind : uint32_t { kWrite, kStreamOut, kRead, kStreamIn, kBoth, kPoll };
constexpr const char* kKindNames[] = {"write", "streamOut", "read", "streamIn", "both", "poll"};
constexpr size_t kKinds = std::size(kKindNames);

class StormClient {
 public:
  StormClient(const char* device, Kind kind, uint32_t id, uint64_t seed, Shared* shared,
              std::atomic<Stage>* stage)
      : device_(device), kind_(kind), id_(id), random_(seed), shared_(shared), stage_(stage) {}

  // It kills itself so long after it was set up, wherever it then is.
  void die_after_set_up(int64_t life_us) { life_us_ = life_us; }

  // Returns where something failed: the errno.
  int run() {
    enter(Stage::kOpen);
    fd_ = open(device_, O_RDWR | O_CLOEXEC);
    if (fd_ < 0) return errno;
    enter(Stage::kSetUp);
    v4l2_format format{};
    format.type = kind_ == Kind::kRead || kind_ == Kind::kStreamIn ? V4L2_BUF_TYPE_VIDEO_CAPTURE
                                                                   : V4L2_BUF_TYPE_VIDEO_OUTPUT;
    if (const int error = call_ioctl(fd_, VIDIOC_G_FMT, &format)) return error;
    frame_.resize(format.fmt.pix.sizeimage);
    switch (kind_) {
      case Kind::kWrite:
        return repeat([this] { return write_frame(); });
      case Kind::kRead:
        return repeat([this] { return read_frame(); });
      case Kind::kStreamOut:
        return stream(V4L2_BUF_TYPE_VIDEO_OUTPUT);
      case Kind::kStreamIn:
        return stream(V4L2_BUF_TYPE_VIDEO_CAPTURE);
      case Kind::kBoth:
        return repeat([this] {
          const int error = write_frame();
          return error != 0 ? error : read_frame();
        });
      case Kind::kPoll:
        return repeat([this] { return poll_once(); });
    }
    return EINVAL;
  }

 private:
  void enter(Stage stage) { stage_->store(stage); }

  template <typename Step>
  int repeat(Step step) {
    if (life_us_ >= 0) start_to_die();
    for (;;) {
      if (const int error = step()) return error;
    }
  }

  void start_to_die() {
    sigevent event{};
    event.sigev_notify = SIGEV_SIGNAL;
    event.sigev_signo = SIGKILL;
    timer_t timer;
    timer_create(CLOCK_MONOTONIC, &event, &timer);
    itimerspec when{};
    when.it_value = {life_us_ / 1'000'000, life_us_ % 1'000'000 * 1000 + 1};
    timer_settime(timer, 0, &when, nullptr);
  }

  uint64_t pick(uint64_t most) { return random_() % (most + 1); }

  // In pieces of random length, so that most kills find a frame begun.
  int write_frame() {
    enter(Stage::kFill);
    mark_frame(frame_.data(), frame_.size(), id_, number_++);
    enter(Stage::kWrite);
    for (size_t sent = 0; sent < frame_.size();) {
      const size_t asked = std::min(frame_.size() - sent, 4096 + pick(frame_.size()));
      const ssize_t step = write(fd_, frame_.data() + sent, asked);
      if (step < 0) return errno;
      sent += static_cast<size_t>(step);
    }
    ++shared_->written;
    return 0;
  }

  void check(const uint8_t* bytes, size_t length) {
    FrameHeader header;
    if (!frame_is_whole(bytes, length, &header)) ++shared_->torn;
    ++shared_->taken;
  }

  int read_frame() {
    for (size_t got = 0; got < frame_.size();) {
      enter(Stage::kRead);
      const size_t asked = std::min(frame_.size() - got, 4096 + pick(frame_.size()));
      const ssize_t step = read(fd_, frame_.data() + got, asked);
      if (step < 0) return errno;
      if (step == 0) return ENODATA;
      got += static_cast<size_t>(step);
    }
    check(frame_.data(), frame_.size());
    return 0;
  }

  // A poll makes it a consumer, which then takes nothing.
  int poll_once() {
    enter(Stage::kPoll);
    int16_t revents = 0;
    const int error = wait_for(fd_, POLLIN, 1, &revents);
    return error == ETIMEDOUT ? 0 : error;
  }

  int queue(uint32_t type, uint32_t index) {
    v4l2_buffer buffer{};
    buffer.type = type;
    buffer.memory = V4L2_MEMORY_MMAP;
    buffer.index = index;
    if (type == V4L2_BUF_TYPE_VIDEO_OUTPUT) {
      enter(Stage::kFill);
      buffer.bytesused = static_cast<uint32_t>(frame_.size());
      mark_frame(buffers_[index].start, frame_.size(), id_, number_++);
      ++shared_->written;
    }
    enter(Stage::kQueue);
    return call_ioctl(fd_, VIDIOC_QBUF, &buffer);
  }

  int stream(uint32_t type) {
    v4l2_requestbuffers request{};
    request.count = static_cast<uint32_t>(2 + pick(4));
    request.type = type;
    request.memory = V4L2_MEMORY_MMAP;
    if (const int error = call_ioctl(fd_, VIDIOC_REQBUFS, &request)) return error;
    if (const int error = map_buffers(fd_, type, PROT_READ | PROT_WRITE, &buffers_)) return error;
    for (uint32_t index = 0; index < buffers_.size(); ++index) {
      if (const int error = queue(type, index)) return error;
    }
    if (const int error = call_ioctl(fd_, VIDIOC_STREAMON, &type)) return error;
    return repeat([this, type] {
      enter(Stage::kDequeue);
      v4l2_buffer buffer{};
      buffer.type = type;
      buffer.memory = V4L2_MEMORY_MMAP;
      if (const int error = call_ioctl(fd_, VIDIOC_DQBUF, &buffer)) return error;
      if (type == V4L2_BUF_TYPE_VIDEO_CAPTURE)
        check(buffers_[buffer.index].start, buffer.bytesused);
      return queue(type, buffer.index);
    });
  }

  const char* device_;
  const Kind kind_;
  const uint32_t id_;
  std::mt19937_64 random_;
  Shared* shared_;
  std::atomic<Stage>* stage_;
  int64_t life_us_ = -1;
  int fd_ = -1;
  uint64_t number_ = 0;
  std::vector<uint8_t> frame_;
  std::vector<MappedBuffer> buffers_;
};
