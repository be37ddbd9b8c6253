// device_intruder: buffers where none should be, or where they do not fit.
#pragma once

#include "intruder.h"

// REQBUFS and CREATE_BUFS while a read(2) of the same file waits.
inline void buffers_while_reading(const std::string& path) {
  const int fd = open_device(path);
  static char byte;
  const Waiting reader([fd] { (void)!read(fd, &byte, 1); });
  reader.until_in(SYS_read);
  JsonLine line;
  line.text("event", "tried").error(request_buffers(fd, kCapture, 2));
  line.text("create", strerrorname_np(create_buffers(fd, kCapture, 1 << 16))).print();
  wait_for_stop();
}

// The same while a write(2) waits for room, and then all that a stream's end does.
inline void buffers_while_writing(const std::string& path) {
  const int fd = open_device(path);
  uint32_t size;
  must(set_format(fd, 64, 48, V4L2_PIX_FMT_YUYV, &size), "S_FMT");
  const int reader = idle_reader(path);
  static char bytes[1 << 20];
  const Waiting writer([fd] {
    while (g_stop == 0 && write(fd, bytes, sizeof bytes) >= 0) {
    }
  });
  // With the ring full it sleeps in write(2) for good, and not just for a moment.
  for (int64_t since = now_ns(); now_ns() - since < 200'000'000;) {
    pollfd watched{fd, POLLOUT, 0};
    if (poll(&watched, 1, 0) > 0) since = now_ns();
    poll(nullptr, 0, 5);
  }
  writer.until_in(SYS_write);
  JsonLine line;
  line.text("event", "tried").error(request_buffers(fd, kOutput, 2));
  line.text("create", strerrorname_np(create_buffers(fd, kOutput, size)));
  line.count("on", static_cast<uint64_t>(stream(fd, kOutput, true)));
  line.count("off", static_cast<uint64_t>(stream(fd, kOutput, false))).print();
  wait_for_stop();
  close(reader);
}

// One file streams CAPTURE, and then asks for buffers of OUTPUT.
inline void buffers_of_both_directions(const std::string& path) {
  const int fd = open_device(path, O_RDWR | O_NONBLOCK);
  must(request_buffers(fd, kCapture, 2), "REQBUFS");
  must(queue_buffer(fd, kCapture, 0), "QBUF");
  must(stream(fd, kCapture, true), "STREAMON");
  must(request_buffers(fd, kOutput, 2), "REQBUFS of OUTPUT");
  v4l2_buffer buffer = mmap_buffer(kCapture);
  const int empty = call_ioctl(fd, VIDIOC_DQBUF, &buffer);
  must(queue_buffer(fd, kOutput, 0), "QBUF of OUTPUT");
  must(stream(fd, kOutput, true), "STREAMON of OUTPUT");
  buffer = mmap_buffer(kCapture);
  const int own = call_ioctl(fd, VIDIOC_DQBUF, &buffer);
  JsonLine().text("event", "tried").error(empty).count("own", static_cast<uint64_t>(own)).print();
}

// Opened as `>` does it, then mapped and touched.
inline void truncate_and_map(const std::string& path) {
  const int fd = open_device(path, O_RDWR | O_TRUNC);
  must(request_buffers(fd, kOutput, 2), "REQBUFS");
  std::vector<MappedBuffer> mapped;
  must(map_buffers(fd, kOutput, PROT_READ | PROT_WRITE, &mapped), "mmap");
  for (const MappedBuffer& each : mapped) each.start[each.length - 1] = 1;
  if (ftruncate(fd, 0) != 0) give_up("ftruncate");
  for (const MappedBuffer& each : mapped) each.start[0] = 1;
  JsonLine().text("event", "tried").error(0).print();
}

// Timestamps that no clock shows, on frames that a reader gets all the same.
inline void impossible_times(const std::string& path) {
  const int reader = open_device(path, O_RDWR | O_NONBLOCK);
  must(request_buffers(reader, kCapture, 4), "REQBUFS");
  for (uint32_t index = 0; index < 4; ++index) must(queue_buffer(reader, kCapture, index), "QBUF");
  must(stream(reader, kCapture, true), "STREAMON");
  const int fd = open_device(path);
  must(request_buffers(fd, kOutput, 4), "REQBUFS");
  must(stream(fd, kOutput, true), "STREAMON");
  const timeval times[] = {{INT64_MAX, INT64_MAX}, {INT64_MIN, -1}, {INT64_MAX / 1000, 0}, {5, -5}};
  int64_t latest = 0;
  for (uint32_t index = 0; index < 4; ++index) {
    v4l2_buffer buffer = mmap_buffer(kOutput, index);
    buffer.timestamp = times[index];
    must(call_ioctl(fd, VIDIOC_QBUF, &buffer), "QBUF");
    buffer = mmap_buffer(kOutput);
    must(call_ioctl(fd, VIDIOC_DQBUF, &buffer), "DQBUF");
    pollfd watched{reader, POLLIN, 0};
    poll(&watched, 1, 10000);
    buffer = mmap_buffer(kCapture);
    must(call_ioctl(reader, VIDIOC_DQBUF, &buffer), "DQBUF of CAPTURE");
    latest = std::max<int64_t>(latest, buffer.timestamp.tv_sec);
  }
  const bool sane = latest <= now_ns() / 1'000'000'000;
  JsonLine().text("event", "tried").error(0).flag("sane", sane).print();
}

// The format grows after a reader made its buffers: it must not be shown the start of a frame.
inline void buffers_too_small(const std::string& path) {
  const int producer = open_device(path);
  uint32_t size;
  must(set_format(producer, 32, 32, V4L2_PIX_FMT_YUYV, &size), "S_FMT");
  const int reader = open_device(path, O_RDWR | O_NONBLOCK);
  must(request_buffers(reader, kCapture, 2), "REQBUFS");
  must(set_format(producer, 64, 48, V4L2_PIX_FMT_YUYV, &size), "S_FMT");
  must(stream(reader, kCapture, false), "STREAMOFF");
  JsonLine line;
  line.text("event", "tried").error(queue_buffer(reader, kCapture, 0)).print();
}
