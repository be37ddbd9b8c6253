// The same bare file, its requests passed through io_uring (Linux 6.14 and later, where
// fuse.enable_uring is on) instead of read and write on /dev/fuse.
//
// The kernel has a queue for each processor, and we an entry or more for each queue: a header and
// room for a payload. A request comes as the completion of an entry's command; the answer goes back
// with the entry's next command, which also asks for the next request. So one system call does for
// both, but a payload lies in the entry and not where it belongs: one copy more each way.
//
// Documentation/filesystems/fuse-io-uring.rst, and the kernel's include/uapi/linux/fuse.h.
#pragma once

#include <linux/io_uring.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include <atomic>
#include <map>
#include <thread>

#include "bare_fuse.h"

namespace uring {

// <linux/fuse.h> 7.42, which Debian 12 does not have.
inline constexpr uint64_t kOverIoUring = 1ULL << 41;
inline constexpr uint32_t kRegister = 1;
inline constexpr uint32_t kCommitAndFetch = 2;

struct RequestHeader {
  uint8_t in_out[128];  // fuse_in_header, then fuse_out_header.
  uint8_t op_in[128];
  uint64_t flags;
  uint64_t commit_id;
  uint32_t payload_bytes;
  uint32_t padding;
  uint64_t reserved;
};
static_assert(sizeof(RequestHeader) == 288);

struct Command {
  uint64_t flags;
  uint64_t commit_id;
  uint16_t queue;
  uint8_t padding[6];
};

}  // namespace uring

class BareFuseUring : public BareFuse {
 public:
  BareFuseUring(int fd, size_t bytes) : BareFuse(fd, bytes) {
    flags_ |= FUSE_INIT_EXT | uring::kOverIoUring;
  }

  void serve() override {
    if (!serve_one()) return;  // INIT.
    // FORGET and INTERRUPT still come by /dev/fuse; they want no answer.
    std::thread others([this] {
      std::vector<uint8_t> request(kMaxWrite + kPage);
      while (read(fd_, request.data(), request.size()) > 0 || errno == EINTR || errno == ENOENT)
        continue;
    });
    const auto queues = static_cast<uint16_t>(sysconf(_SC_NPROCESSORS_CONF));
    // Without io_uring the process ends, and the mount with it: its files give ENOTCONN.
    others.detach();
    if (!set_up(queues * kEntries)) return;
    register_entries(queues);
    while (wait()) continue;
  }

 private:
  static constexpr unsigned kEntries = 4;  // For each queue.
  static constexpr size_t kCommandBytes = 128;

  struct Entry {
    uring::RequestHeader* header = nullptr;
    uint8_t* payload = nullptr;
    iovec parts[2] = {};
    uint16_t queue = 0;
  };

  bool set_up(unsigned entries) {
    io_uring_params params{};
    params.flags = IORING_SETUP_SQE128 | IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN;
    ring_ = static_cast<int>(syscall(SYS_io_uring_setup, entries, &params));
    if (ring_ < 0) return false;
    const auto map = [&](size_t bytes, off_t at) {
      return static_cast<uint8_t*>(
          mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, ring_, at));
    };
    const size_t submissions = params.sq_off.array + params.sq_entries * sizeof(uint32_t);
    const size_t completions = params.cq_off.cqes + params.cq_entries * sizeof(io_uring_cqe);
    uint8_t* const rings = map(std::max(submissions, completions), IORING_OFF_SQ_RING);
    commands_ = map(params.sq_entries * kCommandBytes, IORING_OFF_SQES);
    const auto word = [&](uint32_t offset) {
      return reinterpret_cast<std::atomic<uint32_t>*>(rings + offset);
    };
    submitted_ = word(params.sq_off.tail);
    submission_mask_ = *word(params.sq_off.ring_mask);
    for (uint32_t i = 0; i < params.sq_entries; ++i)
      reinterpret_cast<uint32_t*>(rings + params.sq_off.array)[i] = i;
    seen_ = word(params.cq_off.head);
    completed_ = word(params.cq_off.tail);
    completion_mask_ = *word(params.cq_off.ring_mask);
    completions_ = reinterpret_cast<io_uring_cqe*>(rings + params.cq_off.cqes);
    return true;
  }

  void register_entries(uint16_t queues) {
    entries_.resize(queues * kEntries);
    for (size_t i = 0; i < entries_.size(); ++i) {
      Entry& entry = entries_[i];
      entry.queue = static_cast<uint16_t>(i / kEntries);
      entry.header = static_cast<uring::RequestHeader*>(aligned_alloc(kPage, kPage));
      entry.payload = static_cast<uint8_t*>(aligned_alloc(kPage, kMaxWrite));
      entry.parts[0] = {entry.header, sizeof *entry.header};
      entry.parts[1] = {entry.payload, kMaxWrite};
      command(entry, uring::kRegister, 0);
    }
  }

  void command(Entry& entry, uint32_t operation, uint64_t commit_id) {
    const uint32_t tail = *submitted_;
    uint8_t* const place = commands_ + (tail & submission_mask_) * kCommandBytes;
    memset(place, 0, kCommandBytes);
    auto* const sqe = reinterpret_cast<io_uring_sqe*>(place);
    sqe->opcode = IORING_OP_URING_CMD;
    sqe->fd = fd_;
    sqe->cmd_op = operation;
    sqe->user_data = static_cast<uint64_t>(&entry - entries_.data());
    sqe->addr = reinterpret_cast<uint64_t>(entry.parts);
    sqe->len = 2;
    const uring::Command what{0, commit_id, entry.queue, {}};
    memcpy(place + offsetof(io_uring_sqe, cmd), &what, sizeof what);
    submitted_->store(tail + 1, std::memory_order_release);
    ++unsent_;
  }

  // Sends what there is to send, waits for a request and answers all that have come; false when the
  // mount has ended.
  bool wait() {
    const long sent =
        syscall(SYS_io_uring_enter, ring_, unsent_, 1, IORING_ENTER_GETEVENTS, nullptr, 0);
    if (sent < 0) return errno == EINTR;
    unsent_ -= static_cast<unsigned>(sent);
    for (uint32_t head = *seen_; head != completed_->load(std::memory_order_acquire); ++head) {
      const io_uring_cqe& done = completions_[head & completion_mask_];
      const int result = done.res;
      Entry& entry = entries_[done.user_data];
      seen_->store(head + 1, std::memory_order_release);
      if (result < 0) return false;
      take(entry);
    }
    return true;
  }

  void take(Entry& entry) {
    const fuse_in_header in = *reinterpret_cast<const fuse_in_header*>(entry.header->in_out);
    asked_[in.unique] = &entry;
    if (in.opcode == FUSE_WRITE)
      memcpy(landing(), entry.payload, std::min<size_t>(room(), entry.header->payload_bytes));
    answer(in, entry.header->op_in);
  }

  void send(uint64_t unique, int error, const void* data, size_t size) override {
    const auto found = asked_.find(unique);
    if (found == asked_.end()) return BareFuse::send(unique, error, data, size);
    Entry& entry = *found->second;
    asked_.erase(found);
    const fuse_out_header out{static_cast<uint32_t>(sizeof out + size), -error, unique};
    memcpy(entry.header->in_out, &out, sizeof out);
    if (size > 0) memcpy(entry.payload, data, size);
    entry.header->payload_bytes = static_cast<uint32_t>(size);
    command(entry, uring::kCommitAndFetch, entry.header->commit_id);
  }

  int ring_ = -1;
  uint8_t* commands_ = nullptr;
  std::atomic<uint32_t>* submitted_ = nullptr;
  uint32_t submission_mask_ = 0;
  std::atomic<uint32_t>* seen_ = nullptr;
  std::atomic<uint32_t>* completed_ = nullptr;
  uint32_t completion_mask_ = 0;
  io_uring_cqe* completions_ = nullptr;
  unsigned unsent_ = 0;
  std::vector<Entry> entries_;
  std::map<uint64_t, Entry*> asked_;
};
