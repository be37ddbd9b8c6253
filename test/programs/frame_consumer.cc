// A V4L2 consumer: takes frames by read(2) or by CAPTURE streaming, checks every one against the
// mark of its producer, and says in JSON lines what it found.
//
//   frame_consumer DEVICE [--method read|mmap|mmap-poll|read-poll] [--nonblock [--spin]] [--buffers
//   N]
//     [--count N] [--idle-ms M] [--delay-ms D] [--stop-after-frames N [--hold]] [--no-verify]
//     [--read-bytes N]
//
// --spin: after EAGAIN asks again at once, instead of waiting for a frame.
// --read-bytes: a read(2) asks for no more, and --delay-ms passes after each.
// --hold: after --stop-after-frames takes nothing more ({"event":"holding"}) but keeps the device
// open; SIGUSR1 lets it go on ({"event":"resumed"}), SIGTERM ends it.
#include <map>

#include "json_line.h"
#include "marked_frame.h"
#include "stop_signals.h"
#include "v4l2_device.h"

namespace {

constexpr uint32_t kType = V4L2_BUF_TYPE_VIDEO_CAPTURE;
constexpr size_t kLongestFrame = size_t{1} << 30;

volatile sig_atomic_t g_resume = 0;

struct FromProducer {
  uint64_t first = 0;
  uint64_t last = 0;
  uint64_t count = 0;
  uint64_t gaps = 0;
};

class Consumer {
 public:
  explicit Consumer(const Options& options)
      : options_(options),
        method_(options.text("method", "mmap")),
        polls_(method_ == "mmap-poll" || method_ == "read-poll"),
        count_(static_cast<uint64_t>(options.number("count", 0))),
        stop_after_(static_cast<uint64_t>(options.number("stop-after-frames", 0))),
        idle_ms_(static_cast<int>(options.number("idle-ms", 0))),
        delay_ms_(options.number("delay-ms", 0)),
        read_bytes_(static_cast<size_t>(options.number("read-bytes", 0))),
        verify_(!options.has("no-verify")) {}

  int run() {
    last_frame_ns_ = now_ns();
    error_ = open_device();
    if (error_ == 0) error_ = method_.rfind("mmap", 0) == 0 ? stream_frames() : read_frames();
    if (error_ == EINTR && g_stop != 0) error_ = 0;
    if (error_ == ETIMEDOUT && idle_) error_ = 0;
    summarize();
    return error_ == 0 ? 0 : 1;
  }

 private:
  int open_device() {
    at_ = "open";
    const int nonblock = options_.has("nonblock") ? O_NONBLOCK : 0;
    fd_ = open(options_.device().c_str(), O_RDWR | O_CLOEXEC | nonblock);
    if (fd_ < 0) return errno;
    at_ = "G_FMT";
    v4l2_format format{};
    format.type = kType;
    if (const int error = call_ioctl(fd_, VIDIOC_G_FMT, &format)) return error;
    frame_.resize(std::max<size_t>(format.fmt.pix.sizeimage, kSmallestFrame));
    return 0;
  }

  // ETIMEDOUT once no frame has come for --idle-ms, EINTR once asked to stop, else 0.
  int may_go_on() {
    if (g_stop != 0) return EINTR;
    if (idle_ms_ > 0 && now_ns() - last_frame_ns_ >= idle_ms_ * 1'000'000LL) {
      idle_ = true;
      return ETIMEDOUT;
    }
    return 0;
  }

  int wait_for_frame() {
    for (;;) {
      if (const int end = may_go_on()) return end;
      int16_t revents = 0;
      const int timeout_ms = idle_ms_ > 0 ? std::max(1, idle_ms_ / 4) : -1;
      const int error = wait_for(fd_, POLLIN, timeout_ms, &revents);
      if (error == 0) {
        poll_failed_ = (revents & (POLLERR | POLLHUP)) != 0;
        return 0;
      }
      if (error != EINTR && error != ETIMEDOUT) return error;
    }
  }

  // Decides after a call failed with `error`: 0 to try again.
  int after_failure(int error) {
    if (error == EAGAIN) {
      ++again_;
      // An error event and yet nothing to say about it: waiting again would spin.
      if (options_.has("spin")) return may_go_on();
      return poll_failed_ ? EAGAIN : wait_for_frame();
    }
    return error == EINTR ? may_go_on() : error;
  }

  void arm_idle() {
    if (idle_ms_ > 0) interrupt_calls(idle_ms_, std::max(10, idle_ms_ / 4));
  }

  void took(const uint8_t* bytes, size_t length) {
    last_frame_ns_ = now_ns();
    if (frames_++ == 0) {
      first_frame_ns_ = last_frame_ns_;
      JsonLine().text("event", "first").count("bytesused", length).print();
    }
    bytes_ += length;
    if (verify_) check(bytes, length);
    if (delay_ms_ > 0) sleep_until(now_ns() + delay_ms_ * 1'000'000);
    if (delay_ms_ > 0) last_frame_ns_ = now_ns();
  }

  void check(const uint8_t* bytes, size_t length) {
    FrameHeader header{};
    if (!frame_is_whole(bytes, length, &header)) {
      ++torn_;
      return;
    }
    const auto [found, is_new] = producers_.try_emplace(header.id);
    FromProducer& producer = found->second;
    ++producer.count;
    if (is_new) {
      producer.first = producer.last = header.number;
    } else if (header.number <= producer.last) {
      ++reordered_;
    } else {
      producer.gaps += header.number - producer.last - 1;
      producer.last = header.number;
    }
  }

  // Whether to go on; holds first, where --hold says so.
  bool goes_on() {
    if (g_stop != 0 || (count_ > 0 && frames_ >= count_)) return false;
    if (stop_after_ == 0 || frames_ < stop_after_) return true;
    if (!options_.has("hold")) return false;
    interrupt_calls(0, 0);
    JsonLine().text("event", "holding").count("frames", frames_).print();
    while (g_stop == 0 && g_resume == 0) poll(nullptr, 0, 100);
    if (g_stop != 0) return false;
    stop_after_ = 0;
    last_frame_ns_ = now_ns();
    JsonLine().text("event", "resumed").print();
    return true;
  }

  int read_some(size_t offset, size_t end, size_t* got) {
    at_ = "read";
    for (;;) {
      if (polls_) {
        if (const int error = wait_for_frame()) return error;
      }
      const size_t asked = read_bytes_ > 0 ? std::min(read_bytes_, end - offset) : end - offset;
      const ssize_t step = read(fd_, frame_.data() + offset, asked);
      if (step == 0) return ENODATA;
      if (step > 0) {
        *got = static_cast<size_t>(step);
        return 0;
      }
      if (const int error = after_failure(errno)) return error;
    }
  }

  int read_frames() {
    JsonLine().text("event", "ready").print();
    last_frame_ns_ = now_ns();
    while (goes_on()) {
      arm_idle();
      size_t length = 0;
      if (const int error = read_some(0, frame_.size(), &length)) return error;
      // A call may give a part of a frame only: the header says how much belongs to it.
      FrameHeader header{};
      while (verify_ && read_header(frame_.data(), length, &header) && header.length > length &&
             header.length <= kLongestFrame) {
        ++parts_;
        if (read_bytes_ > 0 && delay_ms_ > 0) sleep_until(now_ns() + delay_ms_ * 1'000'000);
        if (frame_.size() < header.length) frame_.resize(header.length);
        size_t more = 0;
        if (const int error = read_some(length, header.length, &more)) {
          ++torn_;
          return error;
        }
        length += more;
      }
      took(frame_.data(), length);
    }
    return 0;
  }

  int queue(uint32_t index) {
    at_ = "QBUF";
    v4l2_buffer buffer{};
    buffer.type = kType;
    buffer.memory = V4L2_MEMORY_MMAP;
    buffer.index = index;
    return call_ioctl(fd_, VIDIOC_QBUF, &buffer);
  }

  int dequeue(v4l2_buffer* buffer) {
    at_ = "DQBUF";
    for (;;) {
      if (polls_) {
        if (const int error = wait_for_frame()) return error;
      }
      *buffer = {};
      buffer->type = kType;
      buffer->memory = V4L2_MEMORY_MMAP;
      const int error = call_ioctl(fd_, VIDIOC_DQBUF, buffer);
      if (error == 0) return 0;
      if (const int end = after_failure(error)) return end;
    }
  }

  void note_order(const v4l2_buffer& buffer) {
    const int64_t timestamp_us = buffer.timestamp.tv_sec * 1'000'000LL + buffer.timestamp.tv_usec;
    if (frames_ > 0) {
      if (buffer.sequence > last_sequence_) {
        sequence_gaps_ += buffer.sequence - last_sequence_ - 1;
      } else {
        sequence_advances_ = false;
      }
      if (timestamp_us < last_timestamp_us_) timestamps_advance_ = false;
      if (timestamp_us == last_timestamp_us_) ++timestamps_repeated_;
    } else {
      first_sequence_ = buffer.sequence;
      first_timestamp_us_ = timestamp_us;
    }
    last_sequence_ = buffer.sequence;
    last_timestamp_us_ = timestamp_us;
    if ((buffer.flags & V4L2_BUF_FLAG_ERROR) != 0) ++flagged_;
  }

  int stream_frames() {
    at_ = "REQBUFS";
    v4l2_requestbuffers request{};
    request.count = static_cast<uint32_t>(options_.number("buffers", 4));
    request.type = kType;
    request.memory = V4L2_MEMORY_MMAP;
    if (const int error = call_ioctl(fd_, VIDIOC_REQBUFS, &request)) return error;
    at_ = "mmap";
    if (const int error = map_buffers(fd_, kType, PROT_READ | PROT_WRITE, &buffers_)) return error;
    for (uint32_t index = 0; index < buffers_.size(); ++index) {
      if (const int error = queue(index)) return error;
    }
    at_ = "STREAMON";
    uint32_t type = kType;
    if (const int error = call_ioctl(fd_, VIDIOC_STREAMON, &type)) return error;
    JsonLine().text("event", "ready").print();
    last_frame_ns_ = now_ns();
    while (goes_on()) {
      arm_idle();
      v4l2_buffer buffer{};
      if (const int error = dequeue(&buffer)) return error;
      note_order(buffer);
      if (buffer.index >= buffers_.size() || buffer.bytesused > buffers_[buffer.index].length) {
        return EBADMSG;
      }
      took(buffers_[buffer.index].start, buffer.bytesused);
      if (const int error = queue(buffer.index)) return error;
    }
    return 0;
  }

  void summarize() const {
    uint64_t gaps = 0;
    JsonLine producers;
    for (const auto& [id, producer] : producers_) {
      JsonLine one;
      one.count("first", producer.first).count("last", producer.last);
      one.count("count", producer.count).count("gaps", producer.gaps);
      producers.raw(std::to_string(id), one.object());
      gaps += producer.gaps;
    }
    JsonLine line;
    line.text("event", "done").count("frames", frames_).count("bytes", bytes_);
    line.count("torn", torn_).count("gaps", gaps).count("reordered", reordered_);
    line.raw("producers", producers.object());
    line.count("firstSequence", first_sequence_).count("sequenceGaps", sequence_gaps_);
    line.flag("sequenceAdvances", sequence_advances_);
    line.flag("timestampsAdvance", timestamps_advance_);
    line.count("timestampsRepeated", timestamps_repeated_);
    line.number("firstTimestampUs", first_timestamp_us_);
    line.number("lastTimestampUs", last_timestamp_us_).count("flagged", flagged_);
    line.count("again", again_).count("parts", parts_).flag("idle", idle_);
    // From the first frame to the last.
    line.seconds("seconds",
                 static_cast<double>(last_frame_ns_ - first_frame_ns_) * (frames_ > 0 ? 1e-9 : 0));
    line.error(error_);
    if (error_ != 0) line.text("at", at_);
    line.print();
  }

  const Options& options_;
  const std::string method_;
  const bool polls_;
  const uint64_t count_;
  uint64_t stop_after_;
  const int idle_ms_;
  const int64_t delay_ms_;
  const size_t read_bytes_;
  const bool verify_;
  const char* at_ = "";
  int fd_ = -1;
  int error_ = 0;
  bool idle_ = false;
  bool poll_failed_ = false;
  int64_t first_frame_ns_ = 0;
  int64_t last_frame_ns_ = 0;
  uint64_t frames_ = 0;
  uint64_t bytes_ = 0;
  uint64_t torn_ = 0;
  uint64_t reordered_ = 0;
  uint64_t again_ = 0;
  uint64_t parts_ = 0;
  uint64_t flagged_ = 0;
  uint64_t sequence_gaps_ = 0;
  uint32_t first_sequence_ = 0;
  uint32_t last_sequence_ = 0;
  int64_t first_timestamp_us_ = 0;
  int64_t last_timestamp_us_ = 0;
  uint64_t timestamps_repeated_ = 0;
  bool sequence_advances_ = true;
  bool timestamps_advance_ = true;
  std::map<uint32_t, FromProducer> producers_;
  std::vector<uint8_t> frame_;
  std::vector<MappedBuffer> buffers_;
};

}  // namespace

int main(int count, char** arguments) {
  const Options options(count, arguments,
                        {"method=", "nonblock", "spin", "buffers=", "count=", "idle-ms=",
                         "delay-ms=", "stop-after-frames=", "hold", "no-verify", "read-bytes="});
  catch_stop_signals();
  set_handler(SIGUSR1, [](int) { g_resume = 1; });
  return Consumer(options).run();
}
