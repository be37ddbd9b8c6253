// A consumer that is measured: receives frames and prints how long each call took, and how old the
// frame was by then.
//
//   frame_sink DEVICE --frames N [--warmup N] [--method read|mmap] [--buffers N]
//     [--fps F | --load FILE] [--wait]
//
// {"event":"ready"} once it is a consumer; with --wait nothing is taken until standard input has a
// line or ends. With a pace it takes no more than so many a second.
//
// For read, callNs is the read(2) into a user buffer; for mmap, DQBUF and the QBUF that gives the
// buffer back. ageNs is DQBUF's return less the frame's V4L2 timestamp (CLOCK_MONOTONIC at
// publishing), sentNs the same less the moment at which the producer began to send it.
#include "../../test/programs/json_line.h"
#include "../../test/programs/stop_signals.h"
#include "../../test/programs/v4l2_device.h"
#include "arena.h"
#include "pace.h"
#include "samples.h"
#include "stamped_frame.h"

namespace {

constexpr uint32_t kType = V4L2_BUF_TYPE_VIDEO_CAPTURE;

class Sink {
 public:
  explicit Sink(const Options& options)
      : options_(options),
        frames_(static_cast<uint64_t>(options.number("frames", 0))),
        warmup_(static_cast<uint64_t>(options.number("warmup", 0))),
        pace_(Pace::Side::kConsumer, options.real("fps", 0), options.text("load", "")),
        calls_(frames_),
        ages_(frames_),
        sents_(frames_) {}

  int run() {
    int error = open_device();
    if (error == 0) {
      error = options_.text("method", "read") == "mmap" ? stream_frames() : read_frames();
    }
    const int64_t end_ns = now_ns();
    JsonLine summary;
    summary.text("event", "done").count("frames", number_).count("gaps", gaps_).error(error);
    if (error != 0) summary.text("at", at_);
    summary.number("elapsedNs", end_ns - start_ns_).number("cpuNs", cpu_ns() - start_cpu_ns_);
    summary.raw("callNs", calls_.json()).raw("ageNs", ages_.json()).raw("sentNs", sents_.json());
    summary.print();
    return error == 0 ? 0 : 1;
  }

 private:
  int open_device() {
    at_ = "open";
    fd_ = open(options_.device().c_str(), O_RDWR | O_CLOEXEC);
    if (fd_ < 0) return errno;
    at_ = "G_FMT";
    v4l2_format format{};
    format.type = kType;
    if (const int error = call_ioctl(fd_, VIDIOC_G_FMT, &format)) return error;
    sizeimage_ = format.fmt.pix.sizeimage;
    return 0;
  }

  void wait_to_start() {
    JsonLine().text("event", "ready").print();
    char line[8];
    if (options_.has("wait") && read(STDIN_FILENO, line, sizeof line) < 0) exit(1);
    begin_ns_ = now_ns();
  }

  void start() {
    start_ns_ = now_ns();
    start_cpu_ns_ = cpu_ns();
  }

  bool more() {
    if (g_stop != 0 || number_ == warmup_ + frames_) return false;
    if (number_ == warmup_) start();
    if (!pace_.is_free()) {
      // What was missed is not made up for.
      due_ns_ = std::max(pace_.after(due_ns_), now_ns() - begin_ns_);
      sleep_until(begin_ns_ + due_ns_);
    }
    return g_stop == 0;
  }

  void took(const Stamp& stamp, int64_t call_ns, int64_t at_ns, int64_t published_ns) {
    if (stamp.source >= next_numbers_.size()) next_numbers_.resize(stamp.source + 1);
    if (stamp.number != next_numbers_[stamp.source]) ++gaps_;
    next_numbers_[stamp.source] = stamp.number + 1;
    if (number_++ < warmup_) return;
    calls_.add(call_ns);
    if (published_ns != 0) ages_.add(at_ns - published_ns);
    sents_.add(at_ns - stamp.sent_ns);
  }

  int read_frames() {
    at_ = "read";
    Arena arena(sizeimage_);
    // A poll for input makes it a reader.
    int16_t revents = 0;
    wait_for(fd_, POLLIN, 0, &revents);
    wait_to_start();
    while (more()) {
      uint8_t* frame = arena.next();
      const int64_t before = now_ns();
      for (size_t done = 0; done < sizeimage_;) {
        const ssize_t step = read(fd_, frame + done, sizeimage_ - done);
        if (step < 0) return errno;
        if (step == 0) return ENODATA;
        done += static_cast<size_t>(step);
      }
      const int64_t after = now_ns();
      took(stamp_of(frame), after - before, after, 0);
    }
    return 0;
  }

  int stream_frames() {
    at_ = "REQBUFS";
    v4l2_requestbuffers request{};
    request.count = static_cast<uint32_t>(options_.number("buffers", 4));
    request.type = kType;
    request.memory = V4L2_MEMORY_MMAP;
    if (const int error = call_ioctl(fd_, VIDIOC_REQBUFS, &request)) return error;
    at_ = "mmap";
    std::vector<MappedBuffer> buffers;
    if (const int error = map_buffers(fd_, kType, PROT_READ | PROT_WRITE, &buffers)) return error;
    for (MappedBuffer& buffer : buffers) memset(buffer.start, 1, buffer.length);
    v4l2_buffer buffer{};
    for (uint32_t index = 0; index < buffers.size(); ++index) {
      if (const int error = call(VIDIOC_QBUF, "QBUF", &buffer, index)) return error;
    }
    at_ = "STREAMON";
    uint32_t type = kType;
    if (const int error = call_ioctl(fd_, VIDIOC_STREAMON, &type)) return error;
    wait_to_start();
    while (more()) {
      const int64_t before = now_ns();
      if (const int error = call(VIDIOC_DQBUF, "DQBUF", &buffer, 0)) return error;
      const int64_t after = now_ns();
      const int64_t published_ns =
          buffer.timestamp.tv_sec * 1'000'000'000LL + buffer.timestamp.tv_usec * 1000LL;
      const uint32_t index = buffer.index;
      if (buffer.bytesused != sizeimage_) return EBADMSG;
      const Stamp stamp = stamp_of(buffers[index].start);
      const int64_t giving_back = now_ns();
      if (const int error = call(VIDIOC_QBUF, "QBUF", &buffer, index)) return error;
      took(stamp, after - before + now_ns() - giving_back, after, published_ns);
    }
    return 0;
  }

  int call(unsigned long request, const char* name, v4l2_buffer* buffer, uint32_t index) {
    at_ = name;
    *buffer = {};
    buffer->type = kType;
    buffer->memory = V4L2_MEMORY_MMAP;
    buffer->index = index;
    return call_ioctl(fd_, request, buffer);
  }

  const Options& options_;
  const uint64_t frames_;
  const uint64_t warmup_;
  const Pace pace_;
  Samples calls_;
  Samples ages_;
  Samples sents_;
  const char* at_ = "";
  int fd_ = -1;
  size_t sizeimage_ = 0;
  uint64_t number_ = 0;
  std::vector<uint64_t> next_numbers_;  // Of each producer.
  uint64_t gaps_ = 0;
  int64_t due_ns_ = 0;
  int64_t begin_ns_ = 0;
  int64_t start_ns_ = 0;
  int64_t start_cpu_ns_ = 0;
};

}  // namespace

int main(int count, char** arguments) {
  const Options options(count, arguments,
                        {"frames=", "warmup=", "method=", "buffers=", "fps=", "load=", "wait"});
  catch_stop_signals();
  return Sink(options).run();
}
