// One FUSE mount with all device files in it.
//
//   /dev/fuse ─ readv ─▶ header │ payload, in a slot that becomes the frame's
//                           │
//                  dispatch ├─▶ fuse_directory.cc   lookup, getattr, readdir, …
//                           ├─▶ fuse_control.cc     the control device's ioctls
//                           ├─▶ fuse_aside.cc       what may wait for the caller
//                           └─▶ fuse_file.cc        open, read, write, ioctl, poll, release
//                                    │
//   /dev/fuse ◀─ writev ── reply ◀───┘  at once, or later by `unique` for what had to wait
//             ◀─ reply_pipe.h, a frame's bytes
//
// Threads read requests (fuse_threads.cc), one at a time, so that each is dispatched before the
// next is read, and what they do with one they do under a lock. Only a frame's bytes go out without
// it, while the next thread reads on. They wait for requests alone, and never call JavaScript.
// Another thread waits for deadlines.
#pragma once

#include <atomic>
#include <condition_variable>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <unordered_map>
#include <vector>

#include "aside.h"
#include "control_device.h"
#include "fuse_protocol.h"
#include "reply_pipe.h"
#include "v4l2_device.h"

namespace loopback {

/// How programs map their buffers (docs/architecture.md): straight into a memfd of ours, through
/// the page cache of our file, or not at all.
enum class IoMode { kPassthrough, kPageCache, kReadWrite };
const char* io_mode_name(IoMode mode);

struct SessionOptions {
  std::string mountpoint;
  bool allow_other = false;
  uint32_t uid = 0, gid = 0, mode = 0660;
  /// Unset: the best that the kernel grants.
  std::optional<IoMode> io_mode;
  DeviceLog log;
  /// Called on a thread of the session's if the mount ends other than by `stop`.
  std::function<void()> ended;
  /// Called on a thread of the session's, under its lock: to be answered later, by
  /// `answer_control`.
  std::function<void(const ControlCall&)> control;
};

class FuseSession : public Answers {
 public:
  /// Mounts and speaks INIT; throws MountError.
  explicit FuseSession(SessionOptions options);
  ~FuseSession() override;

  IoMode io_mode() const { return io_mode_; }

  /// Adds a file `videoN`, which lives until `remove_device` or the session's end. Returns an empty
  /// string, or a sentence that says what is wrong with the setup.
  std::string add_device(DeviceSetup setup);
  /// 0, ENODEV or, while somebody has it open, EBUSY.
  int remove_device(uint32_t number);
  /// Null where there is none. Call, and use, under `lock`.
  V4l2Device* device(uint32_t number);
  std::vector<uint32_t> device_numbers();
  /// `result` is what the caller's ioctl(2) returns, or a negative errno.
  void answer_control(uint64_t ticket, int32_t result);
  /// Ends every parked request with an error, unmounts and joins the threads.
  void stop();

  /// For calls from other threads: under this lock nothing else touches a device.
  std::unique_lock<std::mutex> lock() { return std::unique_lock(mutex_); }
  /// Something changed from outside: whoever waits is looked at again.
  void kick();

  // Answers.
  void reply_error(const Request& request, int error) override;
  void reply_bytes(const Request& request, Bytes bytes) override;
  void reply_written(const Request& request, uint32_t bytes) override;
  void reply_ioctl(const Request& request, int32_t result, const void* data, size_t size) override;
  void notify_poll(uint64_t poll_handle) override;
  void take_back(OwnSlot slot) override;
  void wake_at(Nanoseconds deadline) override;
  void show(const Opener& opener, const Request& request, std::shared_ptr<Window::Region> region,
            Bytes bytes, std::function<void()> then) override;
  void fetch(const Opener& opener, std::shared_ptr<Window::Region> region, size_t bytes,
             std::function<void()> then) override;
  bool run_aside(const Request& request, AsideWork work) override;

 private:
  /// One inode. Each lookup makes a new one: a write(2) that waits holds its inode's lock, and
  /// would hold up every other program on the device.
  struct Node {
    V4l2Device* device = nullptr;
    bool is_control = false;
    uint64_t lookups = 0;
    uint32_t opens = 0;
    std::shared_ptr<Window> window;
    int32_t backing_id = 0;
  };
  struct OpenFile {
    uint64_t node;
    V4l2Device* device;
    Opener* opener;
  };
  /// One request as it was read: the header and what follows it, in two pieces.
  struct Incoming {
    const fuse_in_header* header;
    const uint8_t* body;  // After the header; whole, but for WRITE and NOTIFY_REPLY.
    size_t body_size;
    V4l2Device::Piece first, rest;  // The payload of those two.
  };

  void initialize();
  void choose_io_mode();
  bool open_backing(int fd, int32_t* id);
  void dispatch(const Incoming& in);
  void send(uint64_t unique, int error, const void* data = nullptr, size_t size = 0,
            const void* more = nullptr, size_t more_size = 0);
  void reply(const Request& request, const void* data, size_t size);
  void shown(uint64_t node, Window::Region* region, const std::function<void()>& then);

  // fuse_threads.cc
  /// A frame's bytes that go out when the lock has been given back.
  struct Copy {
    Bytes bytes;
    std::function<void(const Bytes&, ReplyPipe&)> copy;  // Or an answer.
    std::function<void()> then;                          // Under the lock again.
  };
  void start_threads();
  void join_threads();
  void read_requests(ReplyPipe& pipe);
  bool read_request(std::vector<Copy>* copies);
  bool worth_a_thread(const std::vector<Copy>& copies) const;
  void finish(std::vector<Copy>* copies, ReplyPipe& pipe);
  void prepare_landing();
  void keep_time();

  // fuse_directory.cc
  bool dispatch_directory(const Incoming& in);
  void lookup(const Incoming& in);
  void forget(uint64_t node, uint64_t count);
  void getattr(const Incoming& in);
  void setattr(const Incoming& in);
  void readdir(const Incoming& in);
  fuse_attr attributes_of(uint64_t node) const;

  // fuse_control.cc
  void control_ioctl(const Request& request, uint32_t command, const void* argument,
                     uint64_t address);
  void query_device(const Request& request, ControlConfig config);

  // fuse_aside.cc
  /// What threads aside come in by; shut when the session ends, which they may outlive.
  struct Gate {
    std::mutex mutex;
    FuseSession* session;
  };
  struct Owed {
    bool begun = false;  // A step has been done.
  };
  struct Interrupted {
    Nanoseconds at;  // When it is given up.
    uint64_t unique;
  };
  bool step_aside(uint64_t unique, const std::function<void()>& step);
  void interrupt_aside(uint64_t unique);
  void give_up_aside(Nanoseconds now);

  // fuse_page_cache.cc
  struct Store {
    uint64_t node;
    std::shared_ptr<Window::Region> region;
    Bytes bytes;
    std::function<void()> then;
  };
  struct Retrieval {
    uint64_t node;
    const Opener* opener;  // Gone with it: nobody waits any more.
    std::shared_ptr<Window::Region> region;
    size_t bytes;
    size_t done;
    std::function<void()> then;
  };
  void store(uint64_t node, std::shared_ptr<Window::Region> region, Bytes bytes,
             std::function<void()> then);
  void store_pages();
  void retrieve(uint64_t id);
  void retrieved(const Incoming& in);
  bool page_read(const Incoming& in);
  bool page_write(const Incoming& in);
  void end_stores();

  // fuse_file.cc
  bool dispatch_file(const Incoming& in);
  void open(const Incoming& in);
  void release(const Incoming& in);
  void ioctl(const Incoming& in);
  void poll(const Incoming& in);
  Request request_of(const Incoming& in) const;
  OpenFile* file(uint64_t handle);
  uint64_t inode_number(const V4l2Device& device) const;

  SessionOptions options_;
  IoMode io_mode_ = IoMode::kReadWrite;
  int fd_ = -1;
  bool passthrough_offered_ = false;
  bool mmap_offered_ = false;
  uint32_t max_write_ = 0;
  uint64_t started_seconds_ = 0;

  std::mutex mutex_;
  std::map<uint32_t, std::unique_ptr<V4l2Device>> devices_;
  std::unordered_map<uint64_t, Node> nodes_;
  std::unordered_map<uint64_t, OpenFile> files_;
  std::unordered_map<uint64_t, uint64_t> control_files_;  // Handle to node.
  std::unordered_map<uint64_t, Request> control_calls_;   // By ticket.
  uint64_t next_node_ = 2;                                // 1 is the directory.
  uint64_t next_file_ = 1;
  uint64_t last_writer_ = 0;     // The file whose next bytes are expected.
  bool writer_repeats_ = false;  // It wrote the time before as well.
  std::atomic<bool> stopping_{false};

  std::shared_ptr<Gate> gate_ = std::make_shared<Gate>();
  Aside aside_;
  std::unordered_map<uint64_t, Owed> owed_;  // Requests that are looked into aside, by unique.
  std::deque<Interrupted> interrupted_;

  std::mutex leading_;            // Held by the thread that reads: what follows is its own.
  std::vector<uint8_t> header_;   // A request's first bytes and, but for WRITE, all of it.
  std::vector<uint8_t> scratch_;  // What does not land.
  OwnSlot slot_;                  // For the next frame: nobody else sees what lands in it.
  std::vector<OwnSlot> spare_slots_;
  V4l2Device::Landing landing_;          // For the payload of the next request.
  std::vector<Copy>* copies_ = nullptr;  // Where a thread that reads dispatches: what it owes.
  std::vector<std::thread> readers_;
  std::deque<ReplyPipe> pipes_;  // One for each of them.
  std::atomic<size_t> readers_ended_{0};
  std::thread clock_;
  std::condition_variable clock_changed_;
  Nanoseconds clock_at_ = kNever;
  bool kicked_ = false;

  std::deque<Store> stores_;
  std::condition_variable stores_changed_;
  std::thread store_thread_;
  bool stores_ended_ = false;
  std::map<uint64_t, Retrieval> retrievals_;
  uint64_t next_retrieval_ = 1;

  std::atomic<bool> unmounted_{false};
  std::atomic<bool> end_told_{false};
};

}  // namespace loopback
