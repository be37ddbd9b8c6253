// The threads of a session: those that read requests, and the one that keeps the time.
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

// Two would copy one frame in while another goes out, but could dispatch a close after the open
// that came next: that open would then find the device still in use.
constexpr int kReaders = 1;

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
  for (int i = 0; i < kReaders; ++i) {
    Reader& reader = readers_.emplace_back();
    reader.header.resize(kSmallRequest);
    reader.scratch.resize(max_write_ + kSmallRequest);
  }
  for (Reader& reader : readers_) reader.thread = std::thread([&] { read_requests(&reader); });
  clock_ = std::thread([this] { keep_time(); });
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

void FuseSession::join_threads() {
  if (!clock_.joinable()) return;
  stopping_ = true;
  kick();
  clock_.join();
  for (Reader& reader : readers_) {
    // Again and again: a signal that comes just before the read does not end it.
    while (!reader.ended) {
      pthread_kill(reader.thread.native_handle(), wake_signal());
      usleep(500);
    }
    reader.thread.join();
    if (reader.slot != nullptr) Slots::unmap(reader.slot);
  }
  readers_.clear();
}

void FuseSession::read_requests(Reader* reader) {
  pthread_setname_np(pthread_self(), "v4l2-session");
  while (!stopping_ && read_request(reader)) {
  }
  if (!stopping_ && !end_told_.exchange(true) && options_.ended) options_.ended();
  reader->ended = true;
}

// False: the mount has ended.
bool FuseSession::read_request(Reader* reader) {
  // The payload of a WRITE starts after its two structs; what other requests have there is put
  // together again below.
  uint8_t* const landing = reader->landing_bytes > 0 ? reader->slot->data : nullptr;
  uint8_t* const header = reader->header.data();
  uint8_t* const scratch = reader->scratch.data();
  iovec parts[3] = {{header, kWriteHeaderBytes},
                    {landing, reader->landing_bytes},
                    {scratch, reader->scratch.size()}};
  const ssize_t size = readv(fd_, parts, 3);
  if (size < 0) {
    if (errno == ENODEV) unmounted_ = true;
    // ENOENT: the request was interrupted before we had it.
    return errno == EINTR || errno == ENOENT || errno == EAGAIN;
  }
  const size_t total = static_cast<size_t>(size);
  if (total < sizeof(fuse_in_header)) return true;
  Incoming in{};
  in.reader = reader;
  in.header = reinterpret_cast<const fuse_in_header*>(header);
  in.body = header + sizeof(fuse_in_header);
  in.body_size = std::min(total, reader->header.size()) - sizeof(fuse_in_header);
  const size_t payload = total > kWriteHeaderBytes ? total - kWriteHeaderBytes : 0;
  const size_t landed = std::min(payload, reader->landing_bytes);
  if (in.header->opcode == FUSE_WRITE || in.header->opcode == FUSE_NOTIFY_REPLY) {
    in.body_size = kWriteHeaderBytes - sizeof(fuse_in_header);
    in.first = {landing, landed};
    in.rest = {scratch, payload - landed};
    if (landed == 0) in.first = std::exchange(in.rest, {});
  } else if (payload > 0) {
    const size_t kept = std::min(payload, reader->header.size() - kWriteHeaderBytes);
    const size_t from_landing = std::min(kept, landed);
    if (from_landing > 0) memcpy(header + kWriteHeaderBytes, landing, from_landing);
    memcpy(header + kWriteHeaderBytes + from_landing, scratch, kept - from_landing);
  }
  auto guard = lock();
  dispatch(in);
  prepare_landing(reader);
  return true;
}

// Where the payload of the next request goes: if it is a whole frame, the slot becomes that frame.
void FuseSession::prepare_landing(Reader* reader) {
  reader->landing_bytes = 0;
  const OpenFile* writer = file(last_writer_);
  const size_t wanted = writer != nullptr ? writer->device->next_frame_bytes(writer->opener) : 0;
  const size_t room = round_to_pages(wanted);
  Slot*& slot = reader->slot;
  const bool fits = slot != nullptr && slot->capacity >= room && slot->capacity <= 2 * room;
  // Writers of different sizes that take turns would have it mapped anew for each frame.
  if (slot != nullptr && (writer == nullptr || (wanted > 0 && !fits && writer_repeats_))) {
    Slots::unmap(slot);
    slot = nullptr;
  }
  if (wanted == 0) return;
  if (slot == nullptr) slot = Slots::map_slot(room);
  if (slot != nullptr && slot->capacity >= wanted) reader->landing_bytes = wanted;
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
