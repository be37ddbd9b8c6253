// The threads of a session: those that read requests, and the one that keeps the time.
//
//   leads:   readv ─▶ dispatch ─┐ ┌─▶ readv ─▶ dispatch ─▶ readv ─▶ dispatch ─▶ …
//            (a frame comes in) │ │   (another thread leads on)
//   follows:                    └─┴─▶ splice, memcpy ─▶ waits until it leads again
//                                     (a frame goes out)
//
// Whoever leads has dispatched a request before the next is read: so a close is never dispatched
// after the open that came next, which would find the device still in use. A frame goes out without
// the lock, on the thread that found it. Where that takes long, or requests wait and it is
// worth it, another leads on: one frame is copied in while another goes out.
#include <errno.h>
#include <poll.h>
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

// More frames at a time than processors can copy are of no use, and many wake each other.
size_t reader_count() {
  static const size_t count = std::clamp(std::thread::hardware_concurrency(), 2u, 4u);
  return count;
}

// The largest request but WRITE and NOTIFY_REPLY: an ioctl brings at most 16 KiB.
constexpr size_t kSmallRequest = 64 * 1024;

// Producers that wait in turn leave as many as they take.
constexpr size_t kSpareSlots = 2;

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
  for (size_t i = 0; i < reader_count(); ++i) {
    ReplyPipe& pipe = pipes_.emplace_back();
    readers_.emplace_back([this, &pipe] { read_requests(pipe); });
  }
  clock_ = std::thread([this] { keep_time(); });
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

void FuseSession::join_threads() {
  if (!clock_.joinable()) return;
  stopping_ = true;
  kick();
  clock_.join();
  // Again and again: a signal that comes just before the read does not end it.
  while (readers_ended_ < readers_.size()) {
    for (auto& reader : readers_) pthread_kill(reader.native_handle(), wake_signal());
    usleep(500);
  }
  for (auto& reader : readers_) reader.join();
  pipes_.clear();
  slot_.reset();
  spare_slots_.clear();
}

void FuseSession::read_requests(ReplyPipe& pipe) {
  pthread_setname_np(pthread_self(), "v4l2-session");
  std::vector<Copy> copies;
  std::unique_lock leading(leading_);
  while (!stopping_ && read_request(&copies)) {
    if (copies.empty()) continue;
    const bool hands_over = worth_a_thread(copies);
    if (hands_over) leading.unlock();
    finish(&copies, pipe);
    if (hands_over) leading.lock();
  }
  leading.unlock();
  if (!stopping_ && !end_told_.exchange(true) && options_.ended) options_.ended();
  ++readers_ended_;
}

// Whether another thread leads on meanwhile: to wake it takes time as well. With two processors a
// small frame's lone reader and its producer keep both of them busy enough, also on many devices.
bool FuseSession::worth_a_thread(const std::vector<Copy>& copies) const {
  size_t bytes = 0;
  bool worth_a_look = reader_count() > 2;
  for (const Copy& each : copies) {
    bytes += each.bytes.size;
    worth_a_look = worth_a_look || each.bytes.shared || each.bytes.of >= kWorthAThread;
  }
  if (bytes >= kWorthAThread) return true;
  if (!worth_a_look) return false;
  pollfd next{fd_, POLLIN, 0};
  return ::poll(&next, 1, 0) > 0;
}

void FuseSession::finish(std::vector<Copy>* copies, ReplyPipe& pipe) {
  for (Copy& each : *copies) {
    each.copy(each.bytes, pipe);
    each.bytes.keeps.reset();
    if (!each.then) continue;
    auto guard = lock();
    each.then();
    // The last of a region may go with them, which its window must be locked for.
    each.then = nullptr;
    each.copy = nullptr;
  }
  copies->clear();
}

// False: the mount has ended.
bool FuseSession::read_request(std::vector<Copy>* copies) {
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
  copies_ = copies;
  dispatch(in);
  copies_ = nullptr;
  prepare_landing();
  return true;
}

// Of a write that waited with the slot that its frame landed in.
void FuseSession::take_back(OwnSlot slot) {
  if (spare_slots_.size() < kSpareSlots) spare_slots_.push_back(std::move(slot));
}

// Where the payload of the next request goes: to the rest of the frame that the last writer has
// begun, or into a slot that becomes its next frame.
void FuseSession::prepare_landing() {
  const OpenFile* writer = file(last_writer_);
  landing_ = writer != nullptr ? writer->device->landing(writer->opener) : V4l2Device::Landing{};
  const size_t room = round_to_pages(landing_.bytes);
  const bool begins = landing_.bytes > 0 && landing_.data == nullptr;
  const bool misfits = slot_ != nullptr && (slot_->capacity < room || slot_->capacity > 2 * room);
  // Writers of different sizes that take turns would have it mapped anew for each frame.
  if (writer == nullptr || (begins && misfits && writer_repeats_)) {
    slot_.reset();
    spare_slots_.clear();
  }
  if (!begins) return;
  if (slot_ == nullptr && !spare_slots_.empty()) {
    slot_ = std::move(spare_slots_.back());
    spare_slots_.pop_back();
  }
  if (slot_ == nullptr) slot_.reset(Slots::map_slot(room));
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
