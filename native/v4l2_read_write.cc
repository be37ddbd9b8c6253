// read(2) and write(2): frames without streaming.
#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include <algorithm>
#include <utility>

#include "caller.h"
#include "v4l2_device.h"

namespace loopback {

namespace {
// So many bytes are worth the pin that lets them be copied without the lock.
constexpr size_t kWorthAPin = size_t{64} << 10;
// A producer that comes back so soon sends as fast as it can.
constexpr Nanoseconds kSoon = 3 * kMillisecond;
}  // namespace

void V4l2Device::read(Opener* opener, const Request& request, uint32_t size, int flags) {
  int error = 0;
  if ((opener->device_caps & V4L2_CAP_VIDEO_CAPTURE) == 0)
    error = EINVAL;
  else if (opener->has_buffers())
    error = EBUSY;
  else
    error = join_as_consumer(opener);
  if (error != 0) return answers_->reply_error(request, error);
  if (size == 0) return answers_->reply_bytes(request, {});
  if (!opener->reads.empty() || !continue_read(opener, request, size)) {
    if ((flags & O_NONBLOCK) != 0) {
      ring_->stop_waiting(opener->consumer);
      return answers_->reply_error(request, EAGAIN);
    }
    opener->reads.push_back({request, size});
  }
  settle();
}

// One frame a call, or the rest of it. False: there is none yet.
bool V4l2Device::continue_read(Opener* opener, const Request& request, uint32_t size) {
  const Nanoseconds now = monotonic_now();
  if (opener->frame == nullptr && opener->substitute.empty()) {
    opener->frame_offset = 0;
    opener->frame = ring_->take(opener->consumer, now);
    if (opener->frame == nullptr) {
      Nanoseconds due_at = kNever;
      switch (substitute_due(opener, now, &due_at)) {
        case Substitute::kNone:
          want(due_at);
          return false;
        case Substitute::kRepeat: {
          bool repeated = false;
          opener->frame = repeat_newest(opener, now, &repeated);
          if (opener->frame == nullptr) return false;
          break;
        }
        case Substitute::kTimeoutImage:
          opener->substitute = timeout_image();
          ring_->count_substitute(opener->consumer, opener->substitute.size(), now);
          break;
      }
    }
    count_delivery(opener, now);
  }
  const size_t offset = opener->frame_offset;
  const size_t length = opener->frame ? opener->frame->bytesused : opener->substitute.size();
  const size_t bytes = std::min<size_t>(size, length - offset);
  if (opener->frame != nullptr)
    answers_->reply_bytes(request, bytes_of(opener, opener->frame, offset, bytes));
  else
    answers_->reply_bytes(request, {opener->substitute.data() + offset, bytes, nullptr});
  opener->frame_offset += bytes;
  if (opener->frame_offset == length)
    end_read(opener);
  else
    ring_->touch(opener->consumer, now);
  return true;
}

// Of the frame that the opener's consumer reads. Many bytes may be copied after the frame's
// release, then and where the lock is not held.
Answers::Bytes V4l2Device::bytes_of(Opener* opener, const Frame* frame, size_t offset,
                                    size_t size) const {
  Answers::Bytes bytes{frame->data() + offset, size, nullptr};
  if (size < kWorthAPin) return bytes;
  bytes.keeps = {ring_->hold(opener->consumer),
                 [ring = ring_](const Frame* held) { ring->let_go(held); }};
  bytes.of = frame->bytesused;
  bytes.shared = ring_->consumers() > 1;
  return bytes;
}

void V4l2Device::end_read(Opener* opener) {
  if (opener->frame != nullptr) ring_->release(opener->consumer, monotonic_now());
  opener->frame = nullptr;
  opener->substitute.clear();
}

void V4l2Device::write(Opener* opener, const Request& request, Piece first, Piece rest, int flags,
                       OwnSlot* landed) {
  int error = 0;
  if ((opener->device_caps & V4L2_CAP_VIDEO_OUTPUT) == 0)
    error = EINVAL;
  else if (opener->has_buffers())
    error = EBUSY;
  else
    error = join_as_producer(opener);
  if (error != 0) return answers_->reply_error(request, error);

  const uint32_t total = static_cast<uint32_t>(first.size + rest.size);
  if (find_pixel_format(format_.fourcc)->compressed && !opener->writes_timeout_image) {
    // A short copy for frames that are short: what landed elsewhere is put together.
    std::vector<uint8_t> whole;
    if (rest.size > 0) {
      whole.assign(first.data, first.data + first.size);
      whole.insert(whole.end(), rest.data, rest.data + rest.size);
      first = {whole.data(), whole.size()};
    }
    write_compressed(opener, request, first, flags);
    return settle();
  }
  size_t done = 0;
  if (opener->writes.empty()) {
    done = take_in(opener, first, landed, &error);
    if (done == first.size) done += take_in(opener, rest, nullptr, &error);
  } else {
    error = EAGAIN;
  }
  if (done == total) {
    // To wake one takes us time that the other waits: a reader comes before a producer that will
    // rest, and after one that makes its next frame while we copy.
    const Nanoseconds now = monotonic_now();
    if (now - opener->last_write >= kSoon && total < kWorthAThread) settle();
    answers_->reply_written(request, total);
    opener->last_write = now;
  } else if (error != EAGAIN || (flags & O_NONBLOCK) != 0) {
    if (done > 0)
      answers_->reply_written(request, static_cast<uint32_t>(done));
    else
      answers_->reply_error(request, error);
  } else {
    Opener::WaitingWrite waiting{request, {}, total, {}};
    if (done == 0 && rest.size == 0 && may_become_frame(landed->get(), first.data)) {
      waiting.slot = std::move(*landed);
    } else {
      if (done < first.size) waiting.rest.assign(first.data + done, first.data + first.size);
      const size_t of_rest = done > first.size ? done - first.size : 0;
      waiting.rest.insert(waiting.rest.end(), rest.data + of_rest, rest.data + rest.size);
    }
    opener->writes.push_back(std::move(waiting));
    ++waiting_producers_;
  }
  settle();
}

// Gathers bytes to frames of sizeimage. Returns how many it took; fewer with EAGAIN where the
// next frame has no room: only at a frame's start.
size_t V4l2Device::take_in(Opener* opener, Piece piece, OwnSlot* landed, int* error) {
  size_t done = 0;
  if (opener->writes_timeout_image) {
    while (done < piece.size) {
      const size_t bytes =
          std::min<size_t>(piece.size - done, format_.sizeimage - opener->timeout_part.size());
      opener->timeout_part.insert(opener->timeout_part.end(), piece.data + done,
                                  piece.data + done + bytes);
      done += bytes;
      if (opener->timeout_part.size() == format_.sizeimage) {
        store_timeout_image({opener->timeout_part.data(), opener->timeout_part.size()});
        opener->timeout_part.clear();
      }
    }
    return done;
  }
  while (done < piece.size) {
    if (opener->claim == nullptr && !begin_claim(opener, format_.sizeimage, error)) break;
    const size_t bytes = std::min<size_t>(piece.size - done, format_.sizeimage - opener->filled);
    const uint8_t* from = piece.data + done;
    if (opener->filled == 0 && landed != nullptr && may_become_frame(landed->get(), from))
      landed->reset(ring_->exchange(opener->claim, landed->release()));
    uint8_t* const to = opener->claim->data() + opener->filled;
    if (from != to) memcpy(to, from, bytes);
    opener->filled += bytes;
    done += bytes;
    if (opener->filled == format_.sizeimage)
      finish_frame(opener);
    else
      ring_->touch(opener->claim, opener->filled, monotonic_now());
  }
  return done;
}

// The slot in which a frame's first bytes landed. A much larger one would hold memory that the
// frame does not need.
bool V4l2Device::may_become_frame(const Slot* slot, const uint8_t* first) const {
  const size_t room = round_to_pages(format_.sizeimage);
  return slot != nullptr && slot->data == first && slot->capacity >= room &&
         slot->capacity <= 2 * room;
}

bool V4l2Device::begin_claim(Opener* opener, size_t bytes, int* error) {
  Nanoseconds retry_at = kNever;
  switch (ring_->claim(opener->producer, bytes, monotonic_now(), &opener->claim, &retry_at)) {
    case ClaimAnswer::kGranted:
      break;
    case ClaimAnswer::kFull:
      want(retry_at);
      *error = EAGAIN;
      return false;
    case ClaimAnswer::kTooLarge:
      *error = EINVAL;
      return false;
    case ClaimAnswer::kNoMemory:
      *error = ENOMEM;
      return false;
  }
  opener->filled = 0;
  return true;
}

void V4l2Device::finish_frame(Opener* opener) {
  FrameTags tags;
  tags.field = V4L2_FIELD_NONE;
  tags.format = format_.generation;
  Claim* claim = std::exchange(opener->claim, nullptr);
  ring_->publish(claim, std::exchange(opener->filled, 0), tags, monotonic_now());
  frame_published();
}

bool V4l2Device::continue_write(Opener* opener) {
  auto& waiting = opener->writes.front();
  const bool compressed = find_pixel_format(format_.fourcc)->compressed;
  int error = 0;
  size_t done = 0;
  if (compressed) {
    if (take_compressed(opener, {waiting.data(), waiting.left()}, &error)) done = waiting.left();
  } else {
    // Of a frame that has become shorter meanwhile a part may have to wait on.
    OwnSlot* const landed = waiting.left() <= format_.sizeimage ? &waiting.slot : nullptr;
    done = take_in(opener, {waiting.data(), waiting.left()}, landed, &error);
  }
  if (done == waiting.left()) {
    answers_->reply_written(waiting.request, waiting.total);
    if (waiting.slot != nullptr) answers_->take_back(std::move(waiting.slot));
  } else if (error == EAGAIN) {
    if (done > 0) {
      waiting.rest = {waiting.data() + done, waiting.data() + waiting.left()};
      waiting.slot.reset();
    }
    return done > 0;
  } else {
    answers_->reply_error(waiting.request, error);
  }
  opener->writes.pop_front();
  return true;
}

// One write(2) is one frame, but the kernel cuts it into requests and does not say where it ends.
// The caller's byte count stands in /proc while we hold its request; where that may not be read, a
// request shorter than the largest ends the write, and an end-of-image a JPEG.
void V4l2Device::write_compressed(Opener* opener, const Request& request, Piece piece, int flags) {
  if (opener->claim != nullptr || !opener->writes.empty())
    return continue_compressed(opener, request, piece, flags);
  if (const auto whole = present_write_bytes(request.tid))
    return begin_compressed(opener, request, piece, flags, whole);
  // The kernel lets no other write of the file in meanwhile.
  std::vector<uint8_t> bytes(piece.data, piece.data + piece.size);
  const auto work = [this, opener, request, flags, bytes = std::move(bytes)](const auto& locked) {
    const auto whole = write_byte_count(request.tid);
    locked([&] {
      begin_compressed(opener, request, {bytes.data(), bytes.size()}, flags, whole);
      settle();
    });
  };
  if (!answers_->run_aside(request, work))
    begin_compressed(opener, request, piece, flags, std::nullopt);
}

void V4l2Device::begin_compressed(Opener* opener, const Request& request, Piece piece, int flags,
                                  std::optional<uint64_t> whole) {
  opener->write_open_ended = !whole.has_value();
  opener->write_left = whole.value_or(0);
  if (!opener->write_open_ended && opener->write_left > format_.sizeimage)
    return answers_->reply_error(request, EINVAL);
  continue_compressed(opener, request, piece, flags);
}

void V4l2Device::continue_compressed(Opener* opener, const Request& request, Piece piece,
                                     int flags) {
  int error = 0;
  if (!opener->writes.empty() || !take_compressed(opener, piece, &error)) {
    if (error != 0 && (error != EAGAIN || (flags & O_NONBLOCK) != 0))
      return answers_->reply_error(request, error);
    opener->writes.push_back(
        {request, {piece.data, piece.data + piece.size}, static_cast<uint32_t>(piece.size), {}});
    ++waiting_producers_;
    return;
  }
  answers_->reply_written(request, static_cast<uint32_t>(piece.size));
}

bool V4l2Device::take_compressed(Opener* opener, Piece piece, int* error) {
  const size_t wanted = opener->write_open_ended ? std::max<size_t>(format_.sizeimage, piece.size)
                                                 : std::max<size_t>(opener->write_left, piece.size);
  if (opener->claim == nullptr && !begin_claim(opener, wanted, error)) return false;
  if (opener->filled + piece.size > opener->claim->capacity()) {
    ring_->abort(opener->claim, true, monotonic_now());
    opener->claim = nullptr;
    *error = EINVAL;
    return false;
  }
  memcpy(opener->claim->data() + opener->filled, piece.data, piece.size);
  opener->filled += piece.size;
  bool ends;
  if (opener->write_open_ended) {
    const bool short_request = piece.size % 4096 != 0;
    const bool end_of_image = format_.fourcc == V4L2_PIX_FMT_MJPEG && piece.size >= 2 &&
                              piece.data[piece.size - 2] == 0xff &&
                              piece.data[piece.size - 1] == 0xd9;
    ends = short_request || end_of_image;
  } else {
    opener->write_left -= std::min<uint64_t>(opener->write_left, piece.size);
    ends = opener->write_left == 0;
  }
  if (ends)
    finish_frame(opener);
  else
    ring_->touch(opener->claim, opener->filled, monotonic_now());
  return true;
}

V4l2Device::Landing V4l2Device::landing(const Opener* opener) const {
  if (opener->producer == nullptr || opener->has_buffers() ||
      find_pixel_format(format_.fourcc)->compressed)
    return {};
  if (opener->claim == nullptr) return {nullptr, format_.sizeimage};
  return {opener->claim->data() + opener->filled, format_.sizeimage - opener->filled};
}

}  // namespace loopback
