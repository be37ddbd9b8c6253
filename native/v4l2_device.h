// One virtual video device: its openers, its format, and what V4L2 asks of it.
//
//   fuse_session ── open read write ioctl poll interrupt release ──▶ V4l2Device ──▶ Ring
//        ▲                                                               │
//        └───────────── Answers: reply, notify_poll, show ───────────────┘
//
// One function answers one ioctl (v4l2_ioctls.cc dispatches). A request that must wait is kept in
// its opener and answered later, in `settle`, by whatever made it possible. Everything runs under
// the session's lock, and mostly on its thread.
#pragma once

#include <functional>
#include <list>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "housekeeper.h"
#include "opener.h"
#include "pixel_format.h"
#include "ring.h"

namespace loopback {

/// What a device asks of the session that serves it.
class Answers {
 public:
  virtual ~Answers() = default;
  /// Bytes of a frame. With `keeps`, which owns them, they may be copied after the call has
  /// returned and without the lock; else not. What is answered later goes out behind them.
  struct Bytes {
    const uint8_t* data = nullptr;
    size_t size = 0;
    std::shared_ptr<const void> keeps;
    size_t of = 0;        // The whole frame's.
    bool shared = false;  // Other consumers are given the same frames.
  };
  /// `error` is an errno; 0 where nothing more is to be said.
  virtual void reply_error(const Request& request, int error) = 0;
  virtual void reply_bytes(const Request& request, Bytes bytes) = 0;
  virtual void reply_written(const Request& request, uint32_t bytes) = 0;
  /// `result` is what ioctl(2) returns, or a negative errno; `data` is copied back in both cases.
  virtual void reply_ioctl(const Request& request, int32_t result, const void* data,
                           size_t size) = 0;
  virtual void notify_poll(uint64_t poll_handle) = 0;
  /// For a frame to land in.
  virtual void take_back(OwnSlot slot) = 0;
  /// The device's `next_deadline` has become this one.
  virtual void wake_at(Nanoseconds deadline) = 0;
  /// Copies the bytes to the region's start, and in page-cache mode makes the program's mapping
  /// show them; then calls `then`, which answers the request, a DQBUF: the frame has been taken for
  /// it, so nothing else answers it meanwhile. The region is `showing` until then.
  virtual void show(const Opener& opener, const Request& request,
                    std::shared_ptr<Window::Region> region, Bytes bytes,
                    std::function<void()> then) = 0;
  /// Page-cache mode: brings the first `bytes` that the program wrote into its mapping into the
  /// region; `then` is
  /// called now, or when the kernel has answered and the opener is still there.
  virtual void fetch(const Opener& opener, std::shared_ptr<Window::Region> region, size_t bytes,
                     std::function<void()> then) = 0;
  /// Runs the step under the lock. False: it is not run, since the request has been answered
  /// meanwhile, and its opener and its device may be gone.
  using Locked = std::function<bool(const std::function<void()>& step)>;
  using AsideWork = std::function<void(const Locked& locked)>;
  /// Runs `work` on another thread, without the lock: what may wait for the caller (aside.h). Its
  /// steps answer the request, if nobody else does before. False: no thread can be had.
  virtual bool run_aside(const Request& request, AsideWork work) = 0;
};

/// To copy so many bytes takes much longer than to wake a thread. (A little less than the largest
/// request of a read: ReplyPipe::most_bytes.)
inline constexpr size_t kWorthAThread = 1'000'000;

/// In pixels; the most that max_width and max_height may be.
inline constexpr uint32_t kLongestSide = 65536;

struct DeviceSetup {
  uint32_t number = 0;  // videoN
  uint32_t minor = 0;
  std::string card_label;
  bool exclusive_caps = false;
  uint32_t max_openers = 10;
  uint32_t min_width = 2, min_height = 1;
  uint32_t max_width = 8192, max_height = 8192;
  RingParameters ring;
};

/// The format that is in force; `generation` changes with every change.
struct DeviceFormat {
  uint32_t fourcc = V4L2_PIX_FMT_YUYV;
  uint32_t width = 640, height = 480;
  uint32_t bytesperline = 0;
  uint32_t sizeimage = 0;
  uint32_t colorspace = V4L2_COLORSPACE_SRGB;
  uint32_t ycbcr_enc = 0, quantization = 0, xfer_func = 0;
  uint64_t generation = 1;

  bool same_picture(const DeviceFormat& other) const {
    return fourcc == other.fourcc && width == other.width && height == other.height;
  }
};

enum class LogLevel { kDebug, kInfo, kWarn, kError };
using DeviceLog = std::function<void(LogLevel, int device, const std::string& message)>;

class V4l2Device {
 public:
  V4l2Device(DeviceSetup setup, Answers* answers, DeviceLog log);
  ~V4l2Device();

  const DeviceSetup& setup() const { return setup_; }
  Ring& ring() { return *ring_; }

  // --- the file (v4l2_device.cc)

  Opener* open(int flags, pid_t pid, std::shared_ptr<Window> window);
  /// Ends everything that the opener waits for; it is gone afterwards.
  void release(Opener* opener);
  /// Answers the parked request EINTR, or what it has done so far. False: it is not one of ours.
  bool interrupt(uint64_t unique);
  uint32_t poll(Opener* opener, uint32_t events, bool schedule, uint64_t poll_handle);
  /// Serves whoever waits, until nothing moves any more.
  void settle();
  /// `next_deadline` has come.
  void expire();
  /// What a reader waited for may be there.
  void look_again();
  /// When `settle` must run though nothing happened; kNever.
  Nanoseconds next_deadline() const { return deadline_; }
  uint32_t open_count() const { return static_cast<uint32_t>(openers_.size()); }
  /// Every parked request gets the errno; for the end of the session.
  void fail_all(int error);

  // --- read(2) and write(2) (v4l2_read_write.cc)

  /// `flags` are those of the open file, as the request brings them.
  void read(Opener* opener, const Request& request, uint32_t size, int flags);

  struct Piece {
    const uint8_t* data = nullptr;
    size_t size = 0;
  };
  /// Two pieces, since the first may have landed where `landing` said: it is then not copied. Where
  /// it begins a frame at the start of `*landed`, a slot of the caller's, that slot goes to the
  /// ring, and another comes back for it, or goes to the write that has to wait.
  void write(Opener* opener, const Request& request, Piece first, Piece rest, int flags,
             OwnSlot* landed);
  /// Where the next bytes that this opener writes belong, so that the kernel puts them there; no
  /// bytes where that is not known. Without `data` they begin a frame, and may land in any slot
  /// that is long enough. Valid until the opener's next request or release.
  struct Landing {
    uint8_t* data = nullptr;
    size_t bytes = 0;
  };
  Landing landing(const Opener* opener) const;

  // --- ioctl(2) (v4l2_ioctls.cc)

  /// `argument` holds the caller's struct of _IOC_SIZE(command) bytes.
  void ioctl(Opener* opener, const Request& request, uint32_t command, void* argument,
             uint64_t address);

  // --- for sysfs

  std::string format_text() const;
  /// False: no rate V4L2 could say.
  bool set_rate(uint32_t numerator, uint32_t denominator);
  uint32_t streaming_buffers() const;
  bool producer_streams() const;
  uint32_t max_openers() const { return setup_.max_openers; }
  bool set_max_openers(uint32_t count);

 private:
  using Ioctl = int (V4l2Device::*)(Opener*, void*);

  // v4l2_ioctls.cc; each returns 0 or a positive errno.
  int querycap(Opener*, void*);
  int g_priority(Opener*, void*);
  int s_priority(Opener*, void*);
  int enum_input(Opener*, void*);
  int g_input(Opener*, void*);
  int s_input(Opener*, void*);
  int enum_output(Opener*, void*);
  int g_output(Opener*, void*);
  int s_output(Opener*, void*);

  // v4l2_format.cc
  int enum_fmt(Opener*, void*);
  int enum_framesizes(Opener*, void*);
  int enum_frameintervals(Opener*, void*);
  int g_fmt(Opener*, void*);
  int try_fmt(Opener*, void*);
  int s_fmt(Opener*, void*);
  int g_parm(Opener*, void*);
  int s_parm(Opener*, void*);
  DeviceFormat replaced(const v4l2_pix_format& wanted, bool output) const;
  void describe(const DeviceFormat& format, v4l2_pix_format* pix) const;
  bool fixed_for(const Opener* opener) const;
  bool fixed() const { return fixed_for(nullptr); }
  void change_format(const DeviceFormat& format, Opener* by);
  bool any_set_format() const;

  // v4l2_buffers.cc
  int reqbufs(Opener*, void*);
  int create_bufs(Opener*, void*);
  int querybuf(Opener*, void*);
  int prepare_buf(Opener*, void*);
  bool describe_frame(const v4l2_buffer& given, Buffer* held) const;
  int qbuf(Opener*, void*);
  int streamon(Opener*, void*);
  int streamoff(Opener*, void*);
  void dqbuf(Opener*, const Request&, v4l2_buffer);
  bool try_dequeue(Opener*, const Request&, v4l2_buffer, bool output);
  bool dequeue_frame(Opener*, const Request&, v4l2_buffer);
  bool owned_elsewhere(const Opener*, uint32_t type) const;
  bool reads_or_writes(const Opener*) const;
  int allocate(Opener*, BufferQueue*, uint32_t type, uint32_t count, size_t length);
  void describe(const Opener*, const BufferQueue&, uint32_t index, v4l2_buffer*) const;
  void stop_streaming(Opener*, BufferQueue*, uint32_t type);
  bool publish_queued(Opener*);
  void break_streams(Opener* except);

  // v4l2_read_write.cc
  bool continue_read(Opener*, const Request&, uint32_t size);
  Answers::Bytes bytes_of(Opener*, const Frame*, size_t offset, size_t size) const;
  size_t take_in(Opener*, Piece, OwnSlot* landed, int* error);
  void write_compressed(Opener*, const Request&, Piece, int flags);
  void begin_compressed(Opener*, const Request&, Piece, int flags, std::optional<uint64_t> whole);
  void continue_compressed(Opener*, const Request&, Piece, int flags);
  bool take_compressed(Opener*, Piece, int* error);
  void finish_frame(Opener*);
  bool may_become_frame(const Slot*, const uint8_t* first) const;
  bool begin_claim(Opener*, size_t bytes, int* error);
  bool continue_write(Opener*);
  void end_read(Opener*);

  // v4l2_substitutes.cc: what a reader gets when no frame comes
  enum class Substitute { kNone, kRepeat, kTimeoutImage };
  Substitute substitute_due(const Opener*, Nanoseconds now, Nanoseconds* due_at) const;
  const Frame* repeat_newest(Opener*, Nanoseconds now, bool* repeated);
  const std::vector<uint8_t>& timeout_image();
  void store_timeout_image(Piece);

  // v4l2_controls.cc
  int queryctrl(Opener*, void*);
  int query_ext_ctrl(Opener*, void*);
  int querymenu(Opener*, void*);
  int g_ctrl(Opener*, void*);
  int s_ctrl(Opener*, void*);
  void ext_ctrls(Opener*, const Request&, uint32_t command, void* argument);
  int ext_ctrls_values(Opener*, uint32_t command, v4l2_ext_controls*, v4l2_ext_control*);
  int32_t control_value(uint32_t id) const;
  void set_control(Opener*, uint32_t id, int32_t value);

  // v4l2_events.cc
  int subscribe_event(Opener*, void*);
  int unsubscribe_event(Opener*, void*);
  void dqevent(Opener*, const Request&, v4l2_event);
  bool next_event(Opener*, v4l2_event*);
  void queue_event(Opener*, v4l2_event);
  void control_changed(Opener* by, uint32_t id);
  void source_changed(Opener*);
  void usage_changed();

  // v4l2_device.cc
  int join_as_producer(Opener*);
  int join_as_consumer(Opener*);
  void leave_as_producer(Opener*);
  void leave_as_consumer(Opener*);
  uint32_t users() const;
  uint32_t readiness(Opener*, Nanoseconds now);
  bool blocked_by_priority(const Opener*) const;
  void unless_it_may_wait(const Opener*, const Request&, std::function<void()> give_up);
  void count_delivery(Opener*, Nanoseconds now);
  void frame_published();
  void look_for_pending();
  bool serve_reader(Opener*);
  bool serve_producer(Opener*);
  void notify_polls();
  Nanoseconds frame_interval() const;
  void want(Nanoseconds deadline) {
    if (deadline >= deadline_) return;
    deadline_ = deadline;
    answers_->wake_at(deadline);
  }

  DeviceSetup setup_;
  Answers* answers_;
  DeviceLog log_;
  std::shared_ptr<Housekeeper> housekeeper_;
  std::shared_ptr<Ring> ring_;
  std::list<std::unique_ptr<Opener>> openers_;
  uint64_t next_handle_ = 1;
  Nanoseconds deadline_ = kNever;

  DeviceFormat format_;
  uint32_t rate_numerator_ = 30, rate_denominator_ = 1;  // Frames a second.

  // Controls.
  bool keep_format_ = false;
  bool sustain_framerate_ = false;
  int32_t timeout_ms_ = 0;
  bool timeout_image_io_ = false;
  std::vector<uint8_t> timeout_image_;
  uint32_t reported_usage_ = 0;

  uint64_t fetches_ = 0;  // Numbers each QBUF of OUTPUT.

  // What the next `settle` has to look at.
  bool published_ = false;
  bool room_made_ = false;
  uint32_t waiting_producers_ = 0;
};

}  // namespace loopback
