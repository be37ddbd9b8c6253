// The threads of a session: the one that reads requests, and the one that keeps the time.
//
// One reads, though two could copy one frame in while another goes out: they would dispatch a close
// after the open that came next, which then finds the device still in use.
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <utility>

#include "fuse_session.h"

namespace loopback {

namespace {

// The largest request but WRITE and NOTIFY_REPLY: an ioctl brings at most 16 KiB.
constexpr size_t kSmallRequest = 64 * 1024;

// Ends a read that waits for a request. Node and libuv use no real-time signal.
int wake_signal() { return SIGRTMAX - 1; }

void install_wake_signal() {
  struct sigaction action {};
  action.sa_handler = [](int) {};
  sigaction(wake_signal(), &action, nullptr);
}

}  // namespace

void FuseSession::start_threads() {
  install_wake_signal();
  // Signals are for the thread that runs JavaScript.
  sigset_t mask, before;
  sigfillset(&mask);
  sigdelset(&mask, wake_signal());
  pthread_sigmask(SIG_SETMASK, &mask, &before);
  header_.resize(kSmallRequest);
  scratch_.resize(max_write_ + kSmallRequest);
  reader_ = std::thread([this] { read_requests(); });
  clock_ = std::thread([this] { keep_time(); });
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

void FuseSession::join_threads() {
  if (!clock_.joinable()) return;
  stopping_ = true;
  kick();
  clock_.join();
  // Again and again: a signal that comes just before the read does not end it.
  while (!reader_ended_) {
    pthread_kill(reader_.native_handle(), wake_signal());
    usleep(500);
  }
  reader_.join();
  if (slot_ != nullptr) Slots::unmap(slot_);
  slot_ = nullptr;
}

void FuseSession::read_requests() {
  pthread_setname_np(pthread_self(), "v4l2-session");
  while (!stopping_ && read_request()) {
  }
  if (!stopping_ && options_.ended) options_.ended();
  reader_ended_ = true;
}

// False: the mount has ended.
bool FuseSession::read_request() {
  // The payload of a WRITE starts after its two structs; what other requests have there is put
  // together again below.
  const V4l2Device::Landing landing = landing_;
  uint8_t* const header = header_.data();
  uint8_t* const scratch = scratch_.data();
  iovec parts[3] = {
      {header, kWriteHeaderBytes}, {landing.data, landing.bytes}, {scratch, scratch_.size()}};
  const ssize_t size = readv(fd_, parts, 3);
  if (size < 0) {
    if (errno == ENODEV) unmounted_ = true;
    // ENOENT: the request was interrupted before we had it.
    return errno == EINTR || errno == ENOENT || errno == EAGAIN;
  }
  const size_t total = static_cast<size_t>(size);
  if (total < sizeof(fuse_in_header)) return true;
  Incoming in{};
  in.header = reinterpret_cast<const fuse_in_header*>(header);
  in.body = header + sizeof(fuse_in_header);
  in.body_size = std::min(total, header_.size()) - sizeof(fuse_in_header);
  const size_t payload = total > kWriteHeaderBytes ? total - kWriteHeaderBytes : 0;
  const size_t landed = std::min(payload, landing.bytes);
  if (in.header->opcode == FUSE_WRITE || in.header->opcode == FUSE_NOTIFY_REPLY) {
    in.body_size = kWriteHeaderBytes - sizeof(fuse_in_header);
    in.first = {landing.data, landed};
    in.rest = {scratch, payload - landed};
    if (landed == 0) in.first = std::exchange(in.rest, {});
  } else if (payload > 0) {
    const size_t kept = std::min(payload, header_.size() - kWriteHeaderBytes);
    const size_t from_landing = std::min(kept, landed);
    if (from_landing > 0) memcpy(header + kWriteHeaderBytes, landing.data, from_landing);
    memcpy(header + kWriteHeaderBytes + from_landing, scratch, kept - from_landing);
  }
  auto guard = lock();
  dispatch(in);
  prepare_landing();
  return true;
}

// Where the payload of the next request goes: to the rest of the frame that the last writer has
// begun, or into a slot that becomes its next frame.
void FuseSession::prepare_landing() {
  const OpenFile* writer = file(last_writer_);
  landing_ = writer != nullptr ? writer->device->landing(writer->opener) : V4l2Device::Landing{};
  const size_t room = round_to_pages(landing_.bytes);
  const bool begins = landing_.bytes > 0 && landing_.data == nullptr;
  const bool fits = slot_ != nullptr && slot_->capacity >= room && slot_->capacity <= 2 * room;
  // Writers of different sizes that take turns would have it mapped anew for each frame.
  if (slot_ != nullptr && (writer == nullptr || (begins && !fits && writer_repeats_))) {
    Slots::unmap(slot_);
    slot_ = nullptr;
  }
  if (!begins) return;
  if (slot_ == nullptr) slot_ = Slots::map_slot(room);
  if (slot_ != nullptr && slot_->capacity >= landing_.bytes)
    landing_.data = slot_->data;
  else
    landing_ = {};
}

void FuseSession::keep_time() {
  pthread_setname_np(pthread_self(), "v4l2-clock");
  auto guard = lock();
  while (!stopping_) {
    const Nanoseconds left = clock_at_ == kNever ? kNever : clock_at_ - monotonic_now();
    if (!kicked_ && left > 0) {
      if (left == kNever)
        clock_changed_.wait(guard);
      else
        clock_changed_.wait_for(guard, std::chrono::nanoseconds(left));
      continue;
    }
    const bool all = std::exchange(kicked_, false);
    clock_at_ = kNever;
    const Nanoseconds now = monotonic_now();
    for (auto& [number, device] : devices_) {
      if (all || device->next_deadline() <= now) device->expire();
    }
    give_up_aside(now);
    for (auto& [number, device] : devices_)
      clock_at_ = std::min(clock_at_, device->next_deadline());
    if (!interrupted_.empty()) clock_at_ = std::min(clock_at_, interrupted_.front().at);
  }
}

}  // namespace loopback
