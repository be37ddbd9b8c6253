// device_intruder: what would take memory, threads or descriptors of the session without end.
#pragma once

#include <sys/resource.h>

#include "intruder.h"

constexpr uint32_t kTimeoutImageIo = (V4L2_CID_USER_BASE | 0xf000) + 3;

inline void press_timeout_image(int fd) {
  v4l2_control control{kTimeoutImageIo, 1};
  must(call_ioctl(fd, VIDIOC_S_CTRL, &control), "S_CTRL");
}

inline void may_open_many() {
  rlimit limit;
  getrlimit(RLIMIT_NOFILE, &limit);
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
}

// Part of a timeout image, then a smaller format, then more of it than any image has.
inline void image_of_another_format(const std::string& path) {
  const int fd = open_device(path);
  const int other = open_device(path);
  uint32_t size;
  must(set_format(other, 64, 48, V4L2_PIX_FMT_YUYV, &size), "S_FMT");
  close(other);
  press_timeout_image(fd);
  const std::vector<char> bytes(1 << 20);
  if (write(fd, bytes.data(), size - 100) < 0) give_up("write");
  const int small = open_device(path);
  must(set_format(small, 16, 16, V4L2_PIX_FMT_YUYV, &size), "S_FMT");
  for (int i = 0; i < 64; ++i) {
    if (write(fd, bytes.data(), bytes.size()) < 0) give_up("write");
  }
  JsonLine().text("event", "tried").error(0).print();
  wait_for_stop();
}

// Timeout images, all but a byte, from as many files as there may be.
inline void many_images(const std::string& path) {
  uint64_t accepted = 0;
  uint32_t size;
  must(set_format(open_device(path), 64, 48, V4L2_PIX_FMT_YUYV, &size), "S_FMT");
  const std::vector<char> bytes(size - 1);
  int error = 0;
  for (int i = 0; i < 300; ++i) {
    const int fd = open_device(path);
    press_timeout_image(fd);
    if (write(fd, bytes.data(), bytes.size()) < 0) {
      error = errno;
      break;
    }
    ++accepted;
  }
  JsonLine().text("event", "tried").error(error).count("accepted", accepted).print();
}

inline void many_subscriptions(const std::string& path) {
  const int fd = open_device(path);
  uint64_t accepted = 0;
  for (uint32_t id = 0; id < 20000; ++id) {
    v4l2_event_subscription wanted{};
    wanted.type = V4L2_EVENT_PRIVATE_START + 0x08e00001;
    wanted.id = id;
    if (call_ioctl(fd, VIDIOC_SUBSCRIBE_EVENT, &wanted) == 0) ++accepted;
  }
  JsonLine().text("event", "tried").error(0).count("accepted", accepted).print();
}

// Many threads pwrite(2) to one file while there is no room.
inline void many_writes(const std::string& path) {
  const int fd = open_device(path);
  uint32_t size;
  must(set_format(fd, 64, 48, V4L2_PIX_FMT_YUYV, &size), "S_FMT");
  const int reader = idle_reader(path);
  static char bytes[1 << 20];
  std::vector<std::unique_ptr<Waiting>> writers;
  for (int i = 0; i < 100; ++i) {
    writers.push_back(std::make_unique<Waiting>([fd] {
      while (g_stop == 0 && pwrite(fd, bytes, sizeof bytes, 0) >= 0) {
      }
    }));
  }
  for (const auto& writer : writers) writer->until_in(SYS_pwrite64);
  // Requests are answered in turn: those writes that are requests have been looked at.
  v4l2_format format{};
  format.type = kOutput;
  must(call_ioctl(reader, VIDIOC_G_FMT, &format), "G_FMT");
  JsonLine().text("event", "tried").error(0).print();
  wait_for_stop();
  _exit(0);
}

inline void many_opens(const std::string& path) {
  may_open_many();
  std::vector<int> files;
  int error = 0;
  while (files.size() < 5000) {
    const int fd = open(path.c_str(), O_RDWR | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) {
      error = errno;
      break;
    }
    files.push_back(fd);
  }
  // The last of them works as any: it is told that nothing is there, and does not wait.
  must(request_buffers(files.back(), kCapture, 2), "REQBUFS");
  must(queue_buffer(files.back(), kCapture, 0), "QBUF");
  must(stream(files.back(), kCapture, true), "STREAMON");
  v4l2_buffer buffer = mmap_buffer(kCapture);
  const int empty = call_ioctl(files.back(), VIDIOC_DQBUF, &buffer);
  JsonLine line;
  line.text("event", "tried").error(error).count("opened", files.size());
  line.text("dequeue", strerrorname_np(empty)).print();
}
