// device_intruder: what would make the session wait for its own client.
#pragma once

#include <linux/userfaultfd.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/uio.h>

#include "intruder.h"

// A page that nobody ever brings: whoever touches it waits.
inline void* page_in_the_dark() {
  const int fd = static_cast<int>(syscall(SYS_userfaultfd, O_CLOEXEC));
  if (fd < 0) give_up("userfaultfd");
  uffdio_api api{};
  api.api = UFFD_API;
  void* page = mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  uffdio_register range{};
  range.range = {reinterpret_cast<uint64_t>(page), 4096};
  range.mode = UFFDIO_REGISTER_MODE_MISSING;
  if (ioctl(fd, UFFDIO_API, &api) != 0 || ioctl(fd, UFFDIO_REGISTER, &range) != 0) {
    give_up("UFFDIO_REGISTER");
  }
  return page;
}

// G_EXT_CTRLS from many threads, with arrays whose reading never ends.
inline void controls_in_the_dark(const std::string& path) {
  const int fd = open_device(path);
  void* page = page_in_the_dark();
  for (int i = 0; i < 200; ++i) {
    std::thread([fd, page] {
      v4l2_ext_controls outer{};
      outer.count = 1;
      outer.controls = static_cast<v4l2_ext_control*>(page);
      ioctl(fd, VIDIOC_G_EXT_CTRLS, &outer);
    }).detach();
  }
  poll(nullptr, 0, 500);
  JsonLine().text("event", "tried").error(0).print();
  wait_for_stop();
  _exit(0);
}

inline void one_control(const std::string& path) {
  const int fd = open_device(path);
  v4l2_ext_control control{};
  control.id = (V4L2_CID_USER_BASE | 0xf000) + 2;
  v4l2_ext_controls outer{};
  outer.count = 1;
  outer.controls = &control;
  JsonLine().text("event", "tried").error(call_ioctl(fd, VIDIOC_G_EXT_CTRLS, &outer)).print();
}

// splice(2) of pages that the device does not have, from as many threads as requests may be in the
// background.
inline void many_splices(const std::string& path) {
  const int fd = open_device(path);
  std::atomic<int> error{0};
  std::vector<std::unique_ptr<Waiting>> waiting;
  for (int i = 0; i < 200; ++i) {
    waiting.push_back(std::make_unique<Waiting>([&, i] {
      int ends[2];
      loff_t offset = loff_t{4096} * i * 64;
      if (pipe2(ends, O_CLOEXEC) != 0) give_up("pipe");
      if (splice(fd, &offset, ends[1], nullptr, 4096, 0) < 0) error = errno;
    }));
  }
  for (const auto& each : waiting) each->until_in(SYS_splice);
  JsonLine().text("event", "tried").error(error).print();
  wait_for_stop();
  _exit(0);
}

// The session looks up whether a dequeue may wait, under the descriptor that the call named: by
// then that is an epoll which another thread waits in, and which the kernel lets nobody look at
// meanwhile.
inline void dequeue_behind_epoll(const std::string& path) {
  const int epoll = epoll_create1(EPOLL_CLOEXEC);
  const int fd = open_device(path, O_RDWR | O_NONBLOCK);
  epoll_event event{};
  event.events = EPOLLIN;
  if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) != 0) give_up("epoll_ctl");
  must(request_buffers(fd, kCapture, 2), "REQBUFS");
  must(queue_buffer(fd, kCapture, 0), "QBUF");
  must(stream(fd, kCapture, true), "STREAMON");
  const int named = fcntl(fd, F_DUPFD_CLOEXEC, 0);
  std::atomic<bool> ended{false};
  std::vector<std::thread> others;
  for (int i = 0; i < 2; ++i) {
    others.emplace_back([&] {
      while (!ended) epoll_wait(epoll, &event, 1, 0);
    });
  }
  others.emplace_back([&] {
    while (!ended) {
      dup3(epoll, named, O_CLOEXEC);
      dup3(fd, named, O_CLOEXEC);
    }
  });
  int error = 0;
  for (int i = 0; i < 5000; ++i) {
    // The epoll itself knows no ioctl; who is taken to be ready to wait is interrupted.
    interrupt_calls(20, 20);
    v4l2_buffer buffer = mmap_buffer(kCapture);
    const int answer = call_ioctl(named, VIDIOC_DQBUF, &buffer);
    if (answer != ENOTTY && answer != EINTR && answer != EINVAL) error = answer;
  }
  ended = true;
  for (std::thread& other : others) other.join();
  JsonLine().text("event", "tried").error(error).print();
}

// writev(2) of compressed frames whose vector lies in a mapped buffer, that is in a page that the
// session serves, and that does not stay.
inline void vector_in_a_buffer(const std::string& path) {
  const int fd = open_device(path);
  uint32_t size;
  must(set_format(fd, 64, 48, V4L2_PIX_FMT_MJPEG, &size), "S_FMT");
  const int mapped_fd = open_device(path);
  must(request_buffers(mapped_fd, kCapture, 2), "REQBUFS");
  std::vector<MappedBuffer> mapped;
  must(map_buffers(mapped_fd, kCapture, PROT_READ | PROT_WRITE, &mapped), "mmap");
  auto* vectors = reinterpret_cast<iovec*>(mapped[0].start);
  static char bytes[512];
  std::atomic<bool> ended{false};
  std::thread dropper([&] {
    while (!ended) {
      madvise(mapped[0].start, mapped[0].length, MADV_DONTNEED);
      posix_fadvise(mapped_fd, 0, 0, POSIX_FADV_DONTNEED);
    }
  });
  int error = 0;
  for (int i = 0; i < 20000 && error == 0; ++i) {
    vectors[0] = {bytes, sizeof bytes};
    vectors[1] = {bytes, 100};
    if (writev(fd, vectors, 2) < 0 && errno != EAGAIN) error = errno;
  }
  ended = true;
  dropper.join();
  JsonLine().text("event", "tried").error(error).print();
}

// Streams CAPTURE, and faults on the buffers all the time; ends with an error when the session
// does.
inline void fault_all_the_time(const std::string& path) {
  const int fd = open_device(path);
  must(request_buffers(fd, kCapture, 8), "REQBUFS");
  std::vector<MappedBuffer> mapped;
  must(map_buffers(fd, kCapture, PROT_READ | PROT_WRITE, &mapped), "mmap");
  for (uint32_t index = 0; index < mapped.size(); ++index) {
    must(queue_buffer(fd, kCapture, index), "QBUF");
  }
  must(stream(fd, kCapture, true), "STREAMON");
  signal(SIGBUS, [](int) { _exit(0); });  // The session has gone.
  for (int i = 0; i < 3; ++i) {
    std::thread([&mapped, fd] {
      while (true) {
        posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
        for (const MappedBuffer& each : mapped) {
          madvise(each.start, each.length, MADV_DONTNEED);
          each.start[0] ^= 1;
        }
      }
    }).detach();
  }
  JsonLine().text("event", "tried").error(0).print();
  int error = 0;
  while (error == 0 || error == EINTR) {
    v4l2_buffer buffer = mmap_buffer(kCapture);
    error = call_ioctl(fd, VIDIOC_DQBUF, &buffer);
    if (error == 0) error = queue_buffer(fd, kCapture, buffer.index);
  }
  _exit(0);
}
