// A producer that is measured: sends frames from user buffers and prints how long each call took.
//
//   frame_source DEVICE --frames N [--warmup N] [--size WxH] [--method write|mmap]
//     [--fps F | --load FILE] [--id N] [--wait]
//
// {"event":"ready"} once the format is set; with --wait nothing is sent until standard input has a
// line or ends. Of a frame only the first bytes are written anew: what making a picture costs is
// the program's own. For write, callNs is the write(2) out of a user buffer; for mmap, DQBUF and
// QBUF.
#include "../../test/programs/json_line.h"
#include "../../test/programs/stop_signals.h"
#include "../../test/programs/v4l2_device.h"
#include "arena.h"
#include "pace.h"
#include "samples.h"
#include "stamped_frame.h"

namespace {

constexpr uint32_t kType = V4L2_BUF_TYPE_VIDEO_OUTPUT;

class Source {
 public:
  explicit Source(const Options& options)
      : options_(options),
        frames_(static_cast<uint64_t>(options.number("frames", 0))),
        warmup_(static_cast<uint64_t>(options.number("warmup", 0))),
        id_(static_cast<uint64_t>(options.number("id", 0))),
        pace_(Pace::Side::kProducer, options.real("fps", 0), options.text("load", "")),
        calls_(frames_) {}

  int run() {
    int error = open_device();
    if (error == 0) {
      error = options_.text("method", "write") == "mmap" ? stream_frames() : write_frames();
    }
    const int64_t end_ns = now_ns();
    JsonLine summary;
    summary.text("event", "done").count("frames", number_).error(error);
    if (error != 0) summary.text("at", at_);
    summary.number("elapsedNs", end_ns - start_ns_).number("cpuNs", cpu_ns() - start_cpu_ns_);
    summary.raw("callNs", calls_.json()).print();
    return error == 0 ? 0 : 1;
  }

 private:
  int open_device() {
    at_ = "open";
    fd_ = open(options_.device().c_str(), O_RDWR | O_CLOEXEC);
    if (fd_ < 0) return errno;
    at_ = "S_FMT";
    v4l2_format format{};
    format.type = kType;
    v4l2_pix_format& pix = format.fmt.pix;
    if (!parse_size(options_.text("size", "640x480"), &pix.width, &pix.height)) return EINVAL;
    const uint32_t width = pix.width;
    pix.pixelformat = V4L2_PIX_FMT_YUYV;
    pix.field = V4L2_FIELD_NONE;
    if (const int error = call_ioctl(fd_, VIDIOC_S_FMT, &format)) return error;
    sizeimage_ = pix.sizeimage;
    // A ring whose maximum does not hold two such frames answers with a smaller size.
    return pix.width == width ? 0 : EMSGSIZE;
  }

  void start() {
    start_ns_ = now_ns();
    start_cpu_ns_ = cpu_ns();
  }

  void wait_to_start() {
    JsonLine().text("event", "ready").count("sizeimage", sizeimage_).print();
    char line[8];
    if (options_.has("wait") && read(STDIN_FILENO, line, sizeof line) < 0) exit(1);
    begin_ns_ = now_ns();
  }

  bool more() {
    if (g_stop != 0 || number_ == warmup_ + frames_) return false;
    if (number_ == warmup_) start();
    if (!pace_.is_free()) {
      due_ns_ = pace_.after(due_ns_);
      sleep_until(begin_ns_ + due_ns_);
    }
    return g_stop == 0;
  }

  void sent(int64_t call_ns) {
    if (number_++ >= warmup_) calls_.add(call_ns);
  }

  int write_frames() {
    at_ = "write";
    Arena arena(sizeimage_);
    wait_to_start();
    while (more()) {
      uint8_t* frame = arena.next();
      const int64_t before = now_ns();
      put_stamp(frame, {id_, number_, before});
      for (size_t done = 0; done < sizeimage_;) {
        const ssize_t step = write(fd_, frame + done, sizeimage_ - done);
        if (step < 0) return errno;
        done += static_cast<size_t>(step);
      }
      sent(now_ns() - before);
    }
    return 0;
  }

  int stream_frames() {
    at_ = "REQBUFS";
    v4l2_requestbuffers request{};
    request.count = 4;
    request.type = kType;
    request.memory = V4L2_MEMORY_MMAP;
    if (const int error = call_ioctl(fd_, VIDIOC_REQBUFS, &request)) return error;
    at_ = "mmap";
    std::vector<MappedBuffer> buffers;
    if (const int error = map_buffers(fd_, kType, PROT_READ | PROT_WRITE, &buffers)) return error;
    for (MappedBuffer& buffer : buffers) memset(buffer.start, 1, buffer.length);
    at_ = "STREAMON";
    uint32_t type = kType;
    if (const int error = call_ioctl(fd_, VIDIOC_STREAMON, &type)) return error;
    wait_to_start();
    uint32_t queued = 0;
    v4l2_buffer buffer{};
    while (more()) {
      uint32_t index = queued;
      const int64_t before = now_ns();
      if (queued == buffers.size()) {
        if (const int error = dequeue(&buffer)) return error;
        index = buffer.index;
      } else {
        ++queued;
      }
      put_stamp(buffers[index].start, {id_, number_, now_ns()});
      buffer = {};
      buffer.type = kType;
      buffer.memory = V4L2_MEMORY_MMAP;
      buffer.index = index;
      buffer.bytesused = static_cast<uint32_t>(sizeimage_);
      at_ = "QBUF";
      if (const int error = call_ioctl(fd_, VIDIOC_QBUF, &buffer)) return error;
      sent(now_ns() - before);
    }
    // Closing would abort what is still queued.
    for (; queued > 0; --queued) {
      if (const int error = dequeue(&buffer)) return error;
    }
    return 0;
  }

  int dequeue(v4l2_buffer* buffer) {
    at_ = "DQBUF";
    *buffer = {};
    buffer->type = kType;
    buffer->memory = V4L2_MEMORY_MMAP;
    return call_ioctl(fd_, VIDIOC_DQBUF, buffer);
  }

  const Options& options_;
  const uint64_t frames_;
  const uint64_t warmup_;
  const uint64_t id_;
  const Pace pace_;
  Samples calls_;
  const char* at_ = "";
  int fd_ = -1;
  size_t sizeimage_ = 0;
  uint64_t number_ = 0;
  int64_t begin_ns_ = 0;
  int64_t due_ns_ = 0;
  int64_t start_ns_ = 0;
  int64_t start_cpu_ns_ = 0;
};

}  // namespace

int main(int count, char** arguments) {
  const Options options(count, arguments,
                        {"frames=", "warmup=", "size=", "method=", "fps=", "load=", "id=", "wait"});
  catch_stop_signals();
  return Source(options).run();
}
