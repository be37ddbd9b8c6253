// One open file of a device: what it set, what it streams, what it waits for.
#pragma once

#include <linux/videodev2.h>
#include <sys/types.h>

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "ring.h"
#include "window.h"

namespace loopback {

/// A request of the kernel's that has not been answered. Whoever holds it owes one reply.
struct Request {
  uint64_t unique = 0;
  pid_t tid = 0;
  uint32_t uid = 0;
  /// The inode it goes to, which also finds the caller's descriptor in /proc.
  uint64_t inode = 0;
  /// Of an ioctl: how many bytes of its struct go back.
  uint32_t out_size = 0;
};

struct Buffer {
  std::shared_ptr<Window::Region> region;
  enum class State { kIdle, kQueued, kDone } state = State::kIdle;
  bool fetched = false;     // OUTPUT: what the program wrote is in the region.
  uint64_t fetch = 0;       // Which QBUF asked for it; a STREAMOFF may overtake the answer.
  v4l2_buffer described{};  // What QUERYBUF and DQBUF tell, but for index, length and offset.
};

/// The buffers of one direction.
struct BufferQueue {
  std::vector<Buffer> buffers;
  bool streaming = false;
  /// The stream broke (the format changed under it): DQBUF fails with EIO until STREAMOFF.
  bool broken = false;
  std::deque<uint32_t> queued;
  std::deque<uint32_t> done;  // OUTPUT: taken by the ring. CAPTURE: filled, not yet dequeued.
  uint32_t sequence = 0;      // OUTPUT: frames queued since STREAMON.
};

struct EventSubscription {
  uint32_t id;
  uint32_t flags;
};

struct Opener {
  uint64_t handle = 0;
  uint64_t node = 0;  // The session's inode.
  std::shared_ptr<Window> window;
  pid_t pid = 0;
  std::string command;
  bool may_read = false;
  bool may_write = false;
  bool opened_nonblocking = false;
  uint32_t device_caps = 0;  // Fixed at open (exclusive_caps).
  uint32_t priority = 0;

  BufferQueue capture;
  BufferQueue output;
  /// It set the format of OUTPUT and holds it until it closes.
  bool set_format = false;
  /// STREAMON on OUTPUT before it had buffers: a producer that then write()s (OBS up to 30).
  bool output_announced = false;

  // write(2)
  Producer* producer = nullptr;
  Claim* claim = nullptr;
  size_t filled = 0;
  Nanoseconds last_write = 0;
  bool writes_timeout_image = false;  // timeout_image_io was pressed: it fills that, not the ring.
  std::vector<uint8_t> timeout_part;
  uint64_t write_left = 0;        // Of a compressed frame: bytes of this write(2) still to come.
  bool write_open_ended = false;  // … whose length nobody knows.

  // read(2) and CAPTURE
  Consumer* consumer = nullptr;
  bool was_delivered = false;
  const Frame* frame = nullptr;     // Of read(2): pinned.
  std::vector<uint8_t> substitute;  // Of read(2): the timeout image instead.
  size_t frame_offset = 0;
  uint32_t extra_frames = 0;  // Repeats and timeout images, which have no number of the ring's.
  uint32_t last_sequence = UINT32_MAX;  // Of the last buffer dequeued since STREAMON.
  Nanoseconds last_delivery = 0;

  // What waits.
  struct WaitingRead {
    Request request;
    uint32_t size;
  };
  struct WaitingWrite {
    Request request;
    std::vector<uint8_t> rest;
    uint32_t total;
    OwnSlot slot;  // Instead of `rest`: all of it, where it landed.
    uint32_t left() const { return slot ? total : static_cast<uint32_t>(rest.size()); }
    const uint8_t* data() const { return slot ? slot->data : rest.data(); }
  };
  struct WaitingDequeue {
    Request request;
    v4l2_buffer argument;
    bool output;
  };
  struct WaitingEvent {
    Request request;
    v4l2_event argument;
  };
  std::deque<WaitingRead> reads;
  std::deque<WaitingWrite> writes;
  std::deque<WaitingDequeue> dequeues;
  std::deque<WaitingEvent> event_waits;
  bool poll_wanted = false;
  uint64_t poll_handle = 0;
  uint32_t poll_events = 0;

  std::map<std::pair<uint32_t, uint32_t>, EventSubscription> subscriptions;  // type, id
  std::deque<v4l2_event> events;
  uint32_t event_sequence = 0;

  bool has_buffers() const { return !capture.buffers.empty() || !output.buffers.empty(); }
  bool streams() const { return capture.streaming || output.streaming; }
};

}  // namespace loopback
