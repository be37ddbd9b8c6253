// One side of many devices at once, a thread for each: few processes, so that the clients are not
// most of what is measured.
//
//   many_devices source|sink --path PREFIX --first NUMBER --devices N --frames N --fps F
//
// The devices are PREFIX and a number. {"event":"ready"} once all have their format or stream;
// nothing is sent or taken until standard input has a line or ends. A source writes 640x480 YUYV at
// --fps, each device at its own moment; a sink streams by mmap, and sees whether any frame is
// missing.
#include <atomic>
#include <latch>
#include <memory>
#include <thread>

#include "../../test/programs/json_line.h"
#include "../../test/programs/stop_signals.h"
#include "../../test/programs/v4l2_device.h"
#include "samples.h"
#include "stamped_frame.h"

namespace {

[[noreturn]] void fail(const std::string& path, const char* at, int error) {
  JsonLine().text("event", "done").error(error).text("at", path + " " + at).print();
  _exit(1);
}

struct Plan {
  std::string path;
  uint64_t first, devices, frames;
  double fps;
};

// One thread for each device: `prepare` returns what it needs to `work` once all may begin.
class Crowd {
 public:
  explicit Crowd(const Plan& plan) : plan_(plan), ready_(static_cast<ptrdiff_t>(plan.devices)) {}

  template <typename Prepare, typename Work>
  void run(Prepare prepare, Work work) {
    std::vector<std::thread> threads;
    for (uint64_t each = 0; each < plan_.devices; ++each) {
      threads.emplace_back([&, each] {
        auto opened = prepare(plan_.path + std::to_string(plan_.first + each));
        ready_.count_down();
        begin_.wait();
        work(each, opened);
      });
    }
    ready_.wait();
    JsonLine().text("event", "ready").print();
    char line[8];
    if (read(STDIN_FILENO, line, sizeof line) < 0) exit(1);
    start_ns_ = now_ns();
    const int64_t start_cpu_ns = cpu_ns();
    begin_.count_down();
    for (std::thread& thread : threads) thread.join();
    elapsed_ns_ = now_ns() - start_ns_;
    cpu_ns_ = cpu_ns() - start_cpu_ns;
  }

  int64_t start_ns() const { return start_ns_; }

  JsonLine summary() const {
    JsonLine line;
    line.text("event", "done").error(0).number("elapsedNs", elapsed_ns_).number("cpuNs", cpu_ns_);
    return line;
  }

 private:
  const Plan& plan_;
  std::latch ready_;
  std::latch begin_{1};
  int64_t start_ns_ = 0;
  int64_t elapsed_ns_ = 0;
  int64_t cpu_ns_ = 0;
};

struct Opened {
  std::string path;
  int fd = -1;
  size_t sizeimage = 0;
  std::vector<MappedBuffer> buffers;
};

void call(const Opened& opened, unsigned long request, const char* name, void* argument) {
  if (const int error = call_ioctl(opened.fd, request, argument)) fail(opened.path, name, error);
}

Opened open_device(const std::string& path, uint32_t type) {
  Opened opened;
  opened.path = path;
  opened.fd = open(path.c_str(), O_RDWR | O_CLOEXEC);
  if (opened.fd < 0) fail(path, "open", errno);
  v4l2_format format{};
  format.type = type;
  call(opened, VIDIOC_G_FMT, "G_FMT", &format);
  if (type == V4L2_BUF_TYPE_VIDEO_OUTPUT) {
    format.fmt.pix.width = 640;
    format.fmt.pix.height = 480;
    format.fmt.pix.pixelformat = V4L2_PIX_FMT_YUYV;
    call(opened, VIDIOC_S_FMT, "S_FMT", &format);
  }
  opened.sizeimage = format.fmt.pix.sizeimage;
  return opened;
}

int source(const Plan& plan) {
  Crowd crowd(plan);
  const double period_ns = 1e9 / plan.fps;
  crowd.run(
      [](const std::string& path) { return open_device(path, V4L2_BUF_TYPE_VIDEO_OUTPUT); },
      [&](uint64_t each, const Opened& opened) {
        std::vector<uint8_t> frame(opened.sizeimage, 1);
        const double phase_ns =
            period_ns * static_cast<double>(each) / static_cast<double>(plan.devices);
        for (uint64_t number = 0; number < plan.frames; ++number) {
          sleep_until(crowd.start_ns() +
                      static_cast<int64_t>(phase_ns + period_ns * static_cast<double>(number)));
          put_stamp(frame.data(), {0, number, now_ns()});
          const ssize_t written = write(opened.fd, frame.data(), frame.size());
          if (written != static_cast<ssize_t>(frame.size()))
            fail(opened.path, "write", written < 0 ? errno : EIO);
        }
      });
  crowd.summary().print();
  return 0;
}

Opened open_stream(const std::string& path) {
  Opened opened = open_device(path, V4L2_BUF_TYPE_VIDEO_CAPTURE);
  v4l2_requestbuffers request{};
  request.count = 4;
  request.type = V4L2_BUF_TYPE_VIDEO_CAPTURE;
  request.memory = V4L2_MEMORY_MMAP;
  call(opened, VIDIOC_REQBUFS, "REQBUFS", &request);
  if (const int error = map_buffers(opened.fd, request.type, PROT_READ, &opened.buffers))
    fail(path, "mmap", error);
  for (uint32_t index = 0; index < opened.buffers.size(); ++index) {
    v4l2_buffer buffer{};
    buffer.type = request.type;
    buffer.memory = V4L2_MEMORY_MMAP;
    buffer.index = index;
    call(opened, VIDIOC_QBUF, "QBUF", &buffer);
  }
  call(opened, VIDIOC_STREAMON, "STREAMON", &request.type);
  return opened;
}

int sink(const Plan& plan) {
  Crowd crowd(plan);
  std::atomic<uint64_t> frames = 0;
  std::atomic<uint64_t> gaps = 0;
  std::vector<std::unique_ptr<Samples>> ages(plan.devices);
  crowd.run(open_stream, [&](uint64_t each, const Opened& opened) {
    ages[each] = std::make_unique<Samples>(plan.frames);
    for (uint64_t number = 0; number < plan.frames; ++number) {
      v4l2_buffer buffer{};
      buffer.type = V4L2_BUF_TYPE_VIDEO_CAPTURE;
      buffer.memory = V4L2_MEMORY_MMAP;
      call(opened, VIDIOC_DQBUF, "DQBUF", &buffer);
      ages[each]->add(now_ns() - buffer.timestamp.tv_sec * 1'000'000'000LL -
                      buffer.timestamp.tv_usec * 1000LL);
      if (stamp_of(opened.buffers[buffer.index].start).number != number ||
          buffer.bytesused != opened.sizeimage)
        ++gaps;
      ++frames;
      call(opened, VIDIOC_QBUF, "QBUF", &buffer);
    }
  });
  std::string all;
  for (const auto& each : ages) all += (all.empty() ? "" : ",") + each->json();
  crowd.summary().count("frames", frames).count("gaps", gaps).raw("ageNs", "[" + all + "]").print();
  return 0;
}

}  // namespace

int main(int count, char** arguments) {
  const Options options(count, arguments, {"path=", "first=", "devices=", "frames=", "fps="});
  const Plan plan{options.text("path", ""), static_cast<uint64_t>(options.number("first", 0)),
                  static_cast<uint64_t>(options.number("devices", 1)),
                  static_cast<uint64_t>(options.number("frames", 1)), options.real("fps", 30)};
  if (options.device() == "source") return source(plan);
  if (options.device() == "sink") return sink(plan);
  fprintf(stderr, "%s: source or sink is wanted\n", options.device().c_str());
  return 2;
}
