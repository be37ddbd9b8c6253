// A V4L2 producer: sends marked frames by write(2) or by OUTPUT streaming, and says in JSON lines
// what came of it.
//
//   frame_producer DEVICE [--size WxH] [--fourcc YUYV] [--count N] [--id K] [--fps F]
//     [--method write|mmap] [--buffers N] [--chunk BYTES] [--nonblock] [--half-frame-then-wait]
//     [--no-s-fmt] [--bytesused N] [--hold]
//
// --count 0 (the default) goes on until SIGTERM; with --half-frame-then-wait it is the number of
// whole frames before the half one. --hold keeps the device open, after the last frame, until
// SIGTERM ({"event":"holding"}).
#include <memory>

#include "json_line.h"
#include "marked_frame.h"
#include "stop_signals.h"
#include "v4l2_device.h"

namespace {

constexpr uint32_t kType = V4L2_BUF_TYPE_VIDEO_OUTPUT;

class Producer {
 public:
  explicit Producer(const Options& options)
      : options_(options),
        count_(static_cast<uint64_t>(options.number("count", 0))),
        id_(static_cast<uint32_t>(options.number("id", 1))),
        fps_(options.real("fps", 0)),
        chunk_(static_cast<size_t>(options.number("chunk", 0))),
        longest_(static_cast<size_t>(options.number("bytesused", 0))) {}

  int run() {
    start_ns_ = now_ns();
    error_ = open_device();
    start_ns_ = now_ns();
    if (error_ == 0) {
      error_ = options_.text("method", "write") == "mmap" ? stream_frames() : write_frames();
    }
    const int64_t end_ns = now_ns();
    if (error_ == EINTR && g_stop != 0) error_ = 0;
    if (error_ == 0 && options_.has("hold") && g_stop == 0) {
      JsonLine().text("event", "holding").count("frames", frames_).print();
      wait_for_stop();
    }
    JsonLine summary;
    summary.text("event", "done").count("frames", frames_).count("bytes", bytes_).error(error_);
    if (error_ != 0) summary.text("at", at_);
    summary.count("again", again_).count("shortWrites", short_writes_);
    summary.seconds("seconds", static_cast<double>(end_ns - start_ns_) / 1e9).print();
    return error_ == 0 ? 0 : 1;
  }

 private:
  int open_device() {
    at_ = "open";
    const int nonblock = options_.has("nonblock") ? O_NONBLOCK : 0;
    fd_ = open(options_.device().c_str(), O_RDWR | O_CLOEXEC | nonblock);
    if (fd_ < 0) return errno;
    v4l2_format format{};
    format.type = kType;
    at_ = "G_FMT";
    if (const int error = call_ioctl(fd_, VIDIOC_G_FMT, &format)) return error;
    if (!options_.has("no-s-fmt")) {
      at_ = "S_FMT";
      v4l2_pix_format& pix = format.fmt.pix;
      const std::string size = options_.text("size", "");
      if (!size.empty() && !parse_size(size, &pix.width, &pix.height)) return EINVAL;
      pix.pixelformat = fourcc_of(options_.text("fourcc", "YUYV"));
      pix.field = V4L2_FIELD_NONE;
      pix.bytesperline = 0;
      pix.sizeimage = static_cast<uint32_t>(longest_);
      if (const int error = call_ioctl(fd_, VIDIOC_S_FMT, &format)) return error;
    }
    sizeimage_ = format.fmt.pix.sizeimage;
    at_ = "sizeimage";
    return sizeimage_ < kSmallestFrame || longest_ > sizeimage_ ? EMSGSIZE : 0;
  }

  bool more() const { return g_stop == 0 && (count_ == 0 || number_ < count_); }

  // The length of the frame with number `number_`: spread over all that is allowed.
  size_t next_length() const {
    if (longest_ == 0) return sizeimage_;
    return kSmallestFrame + mixed(number_ + 1) % (longest_ - kSmallestFrame + 1);
  }

  void keep_pace() const {
    if (fps_ > 0) {
      sleep_until(start_ns_ + static_cast<int64_t>(static_cast<double>(number_) * 1e9 / fps_));
    }
  }

  void accepted(size_t length) {
    ++frames_;
    bytes_ += length;
    if (frames_ == 1) JsonLine().text("event", "ready").print();
  }

  int wait_for_room() {
    ++again_;
    int16_t revents = 0;
    int error = EINTR;
    while (error == EINTR && g_stop == 0) error = wait_for(fd_, POLLOUT, -1, &revents);
    return g_stop != 0 ? EINTR : error;
  }

  int write_bytes(const uint8_t* bytes, size_t length) {
    at_ = "write";
    for (size_t sent = 0; sent < length;) {
      const size_t asked = chunk_ > 0 ? std::min(chunk_, length - sent) : length - sent;
      const ssize_t step = write(fd_, bytes + sent, asked);
      if (step < 0 && errno == EAGAIN) {
        if (const int error = wait_for_room()) return error;
        continue;
      }
      if (step < 0 && errno == EINTR && g_stop == 0) continue;
      if (step < 0) return errno;
      if (static_cast<size_t>(step) < asked) ++short_writes_;
      sent += static_cast<size_t>(step);
    }
    return 0;
  }

  int write_frames() {
    const auto frame = std::make_unique<uint8_t[]>(sizeimage_);
    const bool half = options_.has("half-frame-then-wait");
    while (half ? number_ < count_ && g_stop == 0 : more()) {
      keep_pace();
      if (g_stop != 0) return 0;
      const size_t length = next_length();
      mark_frame(frame.get(), length, id_, number_);
      if (const int error = write_bytes(frame.get(), length)) return error;
      ++number_;
      accepted(length);
    }
    if (!half || g_stop != 0) return 0;
    mark_frame(frame.get(), sizeimage_, id_, number_);
    if (const int error = write_bytes(frame.get(), sizeimage_ / 2)) return error;
    JsonLine().text("event", "half").count("bytes", sizeimage_ / 2).print();
    wait_for_stop();
    return 0;
  }

  int queue(uint32_t index) {
    at_ = "QBUF";
    const size_t length = next_length();
    if (length > buffers_[index].length) return EMSGSIZE;
    mark_frame(buffers_[index].start, length, id_, number_);
    v4l2_buffer buffer{};
    buffer.type = kType;
    buffer.memory = V4L2_MEMORY_MMAP;
    buffer.index = index;
    buffer.bytesused = static_cast<uint32_t>(length);
    buffer.field = V4L2_FIELD_NONE;
    if (const int error = call_ioctl(fd_, VIDIOC_QBUF, &buffer)) return error;
    lengths_[index] = length;
    ++number_;
    return 0;
  }

  int dequeue(uint32_t* index) {
    at_ = "DQBUF";
    for (;;) {
      v4l2_buffer buffer{};
      buffer.type = kType;
      buffer.memory = V4L2_MEMORY_MMAP;
      const int error = call_ioctl(fd_, VIDIOC_DQBUF, &buffer);
      if (error == 0) {
        *index = buffer.index;
        accepted(lengths_[buffer.index]);
        return 0;
      }
      if (error == EAGAIN) {
        if (const int waited = wait_for_room()) return waited;
      } else if (error != EINTR || g_stop != 0) {
        return error;
      }
    }
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
    lengths_.resize(buffers_.size());
    std::vector<uint32_t> free;
    for (uint32_t index = 0; index < buffers_.size(); ++index) free.push_back(index);

    // The first frame goes alone, so that "ready" can be said as soon as it is taken.
    if (const int error = queue(free.back())) return error;
    free.pop_back();
    at_ = "STREAMON";
    uint32_t type = kType;
    if (const int error = call_ioctl(fd_, VIDIOC_STREAMON, &type)) return error;
    uint32_t index = 0;
    if (const int error = dequeue(&index)) return error;
    free.push_back(index);

    while (more()) {
      keep_pace();
      if (g_stop != 0) break;
      if (free.empty()) {
        if (const int error = dequeue(&index)) return error;
        free.push_back(index);
      }
      if (const int error = queue(free.back())) return error;
      free.pop_back();
    }
    // Closing would abort what is still queued.
    while (g_stop == 0 && free.size() < buffers_.size()) {
      if (const int error = dequeue(&index)) return error;
      free.push_back(index);
    }
    return 0;
  }

  const Options& options_;
  const uint64_t count_;
  const uint32_t id_;
  const double fps_;
  const size_t chunk_;
  const size_t longest_;
  const char* at_ = "";
  int fd_ = -1;
  int error_ = 0;
  size_t sizeimage_ = 0;
  uint64_t number_ = 0;
  uint64_t frames_ = 0;
  uint64_t bytes_ = 0;
  uint64_t again_ = 0;
  uint64_t short_writes_ = 0;
  int64_t start_ns_ = 0;
  std::vector<MappedBuffer> buffers_;
  std::vector<size_t> lengths_;
};

}  // namespace

int main(int count, char** arguments) {
  const Options options(
      count, arguments,
      {"size=", "fourcc=", "count=", "id=", "fps=", "method=", "buffers=", "chunk=", "nonblock",
       "half-frame-then-wait", "no-s-fmt", "bytesused=", "hold"});
  if (const int64_t longest = options.number("bytesused", 0);
      longest != 0 && longest < static_cast<int64_t>(kSmallestFrame)) {
    fprintf(stderr, "--bytesused %lld: at least %zu is wanted\n", static_cast<long long>(longest),
            kSmallestFrame);
    return 2;
  }
  catch_stop_signals();
  return Producer(options).run();
}
