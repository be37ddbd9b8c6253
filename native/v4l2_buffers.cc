// Streaming: buffers that programs map, queued to the ring and dequeued from it.
//
// OUTPUT:   QBUF ─▶ queued ─▶ the ring takes it, in order ─▶ done ─▶ DQBUF
// CAPTURE:  QBUF ─▶ queued ─▶ DQBUF copies the cursor's frame into the first queued one
#include <errno.h>
#include <string.h>

#include <algorithm>

#include "v4l2_device.h"

namespace loopback {

namespace {

constexpr uint32_t kMaxBuffers = 32;
constexpr uint32_t kBufferCaps = V4L2_BUF_CAP_SUPPORTS_MMAP | V4L2_BUF_CAP_SUPPORTS_ORPHANED_BUFS;
constexpr uint32_t kFrameKinds =
    V4L2_BUF_FLAG_KEYFRAME | V4L2_BUF_FLAG_PFRAME | V4L2_BUF_FLAG_BFRAME;

bool is_output(uint32_t type) { return type == V4L2_BUF_TYPE_VIDEO_OUTPUT; }

BufferQueue* queue_of(Opener* opener, uint32_t type) {
  if (type == V4L2_BUF_TYPE_VIDEO_CAPTURE)
    return (opener->device_caps & V4L2_CAP_VIDEO_CAPTURE) != 0 ? &opener->capture : nullptr;
  if (is_output(type))
    return (opener->device_caps & V4L2_CAP_VIDEO_OUTPUT) != 0 ? &opener->output : nullptr;
  return nullptr;
}

// 0, which stands for the time of publishing, where it is no time.
int64_t nanoseconds_of(const timeval& time) {
  constexpr int64_t kLatest = INT64_MAX / kSecond - 1;
  if (time.tv_sec < 0 || time.tv_sec > kLatest || time.tv_usec < 0 || time.tv_usec >= 1000000)
    return 0;
  return time.tv_sec * kSecond + time.tv_usec * 1000;
}

timeval timeval_of(int64_t nanoseconds) {
  return {nanoseconds / kSecond, nanoseconds % kSecond / 1000};
}

}  // namespace

// As in a driver, one owner in a process; other processes have buffers of their own.
bool V4l2Device::owned_elsewhere(const Opener* opener, uint32_t type) const {
  return std::any_of(openers_.begin(), openers_.end(), [&](const auto& other) {
    const BufferQueue& queue = is_output(type) ? other->output : other->capture;
    return other.get() != opener && other->pid == opener->pid && !queue.buffers.empty();
  });
}

// By read(2) and write(2), which exclude buffers: also while such a call waits.
bool V4l2Device::reads_or_writes(const Opener* opener) const {
  const bool writes = opener->producer != nullptr || opener->writes_timeout_image;
  return !opener->reads.empty() || !opener->writes.empty() || opener->frame != nullptr ||
         (writes && !opener->output.streaming) ||
         (opener->was_delivered && !opener->capture.streaming);
}

int V4l2Device::allocate(Opener* opener, BufferQueue* queue, uint32_t type, uint32_t count,
                         size_t length) {
  uint32_t made = 0;
  while (made < count && queue->buffers.size() < kMaxBuffers) {
    auto region = opener->window->allocate(round_to_pages(length));
    if (region == nullptr) break;
    Buffer buffer;
    buffer.region = std::move(region);
    buffer.described.type = type;
    buffer.described.field = V4L2_FIELD_NONE;
    queue->buffers.push_back(std::move(buffer));
    ++made;
  }
  return made == 0 && count > 0 ? ENOMEM : 0;
}

int V4l2Device::reqbufs(Opener* opener, void* argument) {
  auto* request = static_cast<v4l2_requestbuffers*>(argument);
  BufferQueue* queue = queue_of(opener, request->type);
  if (queue == nullptr || request->memory != V4L2_MEMORY_MMAP) return EINVAL;
  const uint32_t type = request->type;
  if (queue->streaming || owned_elsewhere(opener, type) || reads_or_writes(opener)) return EBUSY;
  request->capabilities = kBufferCaps;
  request->flags = 0;
  memset(request->reserved, 0, sizeof request->reserved);
  queue->buffers.clear();
  queue->queued.clear();
  queue->done.clear();
  queue->broken = false;
  if (request->count == 0) return 0;
  // A poll before may have made it a reader; as a streamer it joins at STREAMON.
  if (!opener->capture.streaming) leave_as_consumer(opener);
  opener->output_announced = false;
  const uint32_t count = std::clamp(request->count, 2u, kMaxBuffers);
  const int error = allocate(opener, queue, type, count, format_.sizeimage);
  request->count = static_cast<uint32_t>(queue->buffers.size());
  return error;
}

int V4l2Device::create_bufs(Opener* opener, void* argument) {
  auto* request = static_cast<v4l2_create_buffers*>(argument);
  BufferQueue* queue = queue_of(opener, request->format.type);
  if (queue == nullptr || request->memory != V4L2_MEMORY_MMAP) return EINVAL;
  const uint32_t type = request->format.type;
  request->index = static_cast<uint32_t>(queue->buffers.size());
  request->capabilities = kBufferCaps;
  request->flags = 0;
  memset(request->reserved, 0, sizeof request->reserved);
  if (request->count == 0) return 0;
  if (owned_elsewhere(opener, type) || reads_or_writes(opener)) return EBUSY;
  const uint32_t length = request->format.fmt.pix.sizeimage;
  if (length < format_.sizeimage || length > UINT32_MAX / 4) return EINVAL;
  const size_t before = queue->buffers.size();
  if (!opener->capture.streaming) leave_as_consumer(opener);
  const int error = allocate(opener, queue, type, request->count, length);
  request->count = static_cast<uint32_t>(queue->buffers.size() - before);
  return error;
}

void V4l2Device::describe(const Opener*, const BufferQueue& queue, uint32_t index,
                          v4l2_buffer* buffer) const {
  const Buffer& held = queue.buffers[index];
  *buffer = held.described;
  buffer->index = index;
  buffer->memory = V4L2_MEMORY_MMAP;
  buffer->m.offset = held.region->offset();
  buffer->length = static_cast<uint32_t>(held.region->length());
  buffer->flags &= ~(V4L2_BUF_FLAG_QUEUED | V4L2_BUF_FLAG_DONE | V4L2_BUF_FLAG_TIMESTAMP_MASK);
  buffer->flags |= V4L2_BUF_FLAG_MAPPED;
  buffer->flags |= is_output(held.described.type) ? V4L2_BUF_FLAG_TIMESTAMP_COPY
                                                  : V4L2_BUF_FLAG_TIMESTAMP_MONOTONIC;
  if (held.state == Buffer::State::kQueued) buffer->flags |= V4L2_BUF_FLAG_QUEUED;
  if (held.state == Buffer::State::kDone) buffer->flags |= V4L2_BUF_FLAG_DONE;
}

int V4l2Device::querybuf(Opener* opener, void* argument) {
  auto* buffer = static_cast<v4l2_buffer*>(argument);
  BufferQueue* queue = queue_of(opener, buffer->type);
  if (queue == nullptr || buffer->index >= queue->buffers.size()) return EINVAL;
  describe(opener, *queue, buffer->index, buffer);
  return 0;
}

// How much of an OUTPUT buffer is the frame. False: more than there is.
bool V4l2Device::describe_frame(const v4l2_buffer& given, Buffer* held) const {
  if (!is_output(given.type)) return true;
  const size_t length = held->region->length();
  if (given.bytesused > length) return false;
  held->described.bytesused =
      given.bytesused == 0 ? std::min<uint32_t>(format_.sizeimage, length) : given.bytesused;
  held->described.field = given.field == V4L2_FIELD_ANY ? uint32_t{V4L2_FIELD_NONE} : given.field;
  return true;
}

int V4l2Device::prepare_buf(Opener* opener, void* argument) {
  auto* buffer = static_cast<v4l2_buffer*>(argument);
  BufferQueue* queue = queue_of(opener, buffer->type);
  if (queue == nullptr || buffer->index >= queue->buffers.size() ||
      buffer->memory != V4L2_MEMORY_MMAP)
    return EINVAL;
  if (queue->buffers[buffer->index].state != Buffer::State::kIdle ||
      (queue->buffers[buffer->index].described.flags & V4L2_BUF_FLAG_PREPARED) != 0)
    return EINVAL;
  if ((buffer->flags & V4L2_BUF_FLAG_REQUEST_FD) != 0) return EINVAL;
  if (!describe_frame(*buffer, &queue->buffers[buffer->index])) return EINVAL;
  queue->buffers[buffer->index].described.flags |= V4L2_BUF_FLAG_PREPARED;
  describe(opener, *queue, buffer->index, buffer);
  return 0;
}

int V4l2Device::qbuf(Opener* opener, void* argument) {
  auto* buffer = static_cast<v4l2_buffer*>(argument);
  BufferQueue* queue = queue_of(opener, buffer->type);
  if (queue == nullptr || buffer->index >= queue->buffers.size() ||
      buffer->memory != V4L2_MEMORY_MMAP)
    return EINVAL;
  if ((buffer->flags & V4L2_BUF_FLAG_REQUEST_FD) != 0) return EBADR;
  Buffer& held = queue->buffers[buffer->index];
  if (held.state != Buffer::State::kIdle) return EINVAL;
  // The format has grown since: no part of a frame is ever delivered.
  if (held.region->length() < format_.sizeimage) return EINVAL;
  const uint32_t index = buffer->index;
  if (is_output(buffer->type)) {
    // What was said at PREPARE_BUF stands, as in the kernel.
    if ((held.described.flags & V4L2_BUF_FLAG_PREPARED) == 0 && !describe_frame(*buffer, &held))
      return EINVAL;
    held.described.timestamp = buffer->timestamp;
    held.described.flags = buffer->flags & (kFrameKinds | V4L2_BUF_FLAG_TIMECODE);
    if ((buffer->flags & V4L2_BUF_FLAG_TIMECODE) != 0) held.described.timecode = buffer->timecode;
    held.fetched = false;
  } else {
    held.described.flags = 0;
    held.described.bytesused = 0;
  }
  held.state = Buffer::State::kQueued;
  queue->queued.push_back(index);
  // As it is queued: it may be done before we return, which the caller learns by DQBUF.
  const bool output = is_output(buffer->type);
  describe(opener, *queue, index, buffer);
  if (output) {
    const uint64_t fetch = held.fetch = ++fetches_;
    answers_->fetch(*opener, held.region, held.described.bytesused, [this, opener, index, fetch] {
      // A STREAMOFF may have overtaken the answer, and other buffers taken this one's place.
      if (index >= opener->output.buffers.size()) return;
      Buffer& fetched = opener->output.buffers[index];
      if (fetched.fetch != fetch || fetched.state != Buffer::State::kQueued) return;
      fetched.fetched = true;
      if (opener->output.streaming) publish_queued(opener);
    });
  } else if (!opener->dequeues.empty()) {
    published_ = true;  // A DQBUF may have waited for a buffer.
  }
  return 0;
}

// Hands queued OUTPUT buffers to the ring, in order, as long as it has room.
bool V4l2Device::publish_queued(Opener* opener) {
  BufferQueue& output = opener->output;
  bool any = false;
  while (!output.queued.empty()) {
    const uint32_t index = output.queued.front();
    Buffer& buffer = output.buffers[index];
    if (!buffer.fetched) break;
    const size_t bytes = buffer.described.bytesused;
    if (opener->writes_timeout_image) {
      store_timeout_image({buffer.region->data(), bytes});
    } else {
      int error = 0;
      Claim* claim = nullptr;
      Nanoseconds retry_at = kNever;
      const ClaimAnswer answer =
          ring_->claim(opener->producer, bytes, monotonic_now(), &claim, &retry_at);
      if (answer == ClaimAnswer::kTooLarge) {
        error = EINVAL;
      } else if (answer != ClaimAnswer::kGranted) {
        want(std::min(retry_at,
                      answer == ClaimAnswer::kNoMemory ? monotonic_now() + kSecond / 10 : kNever));
        break;
      }
      if (error != 0) {
        buffer.described.flags |= V4L2_BUF_FLAG_ERROR;
      } else {
        memcpy(claim->data(), buffer.region->data(), bytes);
        FrameTags tags;
        tags.timestamp_ns = nanoseconds_of(buffer.described.timestamp);
        tags.flags = buffer.described.flags;
        tags.field = buffer.described.field;
        tags.format = format_.generation;
        static_assert(sizeof tags.timecode == sizeof(v4l2_timecode));
        memcpy(tags.timecode, &buffer.described.timecode, sizeof tags.timecode);
        ring_->publish(claim, bytes, tags, monotonic_now());
        frame_published();
      }
    }
    output.queued.pop_front();
    buffer.described.sequence = output.sequence++;
    buffer.state = Buffer::State::kDone;
    output.done.push_back(index);
    any = true;
  }
  if (!output.queued.empty() && waiting_producers_ == 0) waiting_producers_ = 1;
  if (any) published_ = true;  // A DQBUF or a poll of its own may wait for a done buffer.
  return any;
}

int V4l2Device::streamon(Opener* opener, void* argument) {
  const uint32_t type = *static_cast<uint32_t*>(argument);
  BufferQueue* queue = queue_of(opener, type);
  if (queue == nullptr) return EINVAL;
  if (queue->buffers.empty()) {
    // OBS up to 30 streams on before it has any, and then write()s.
    if (!is_output(type) || !opener->set_format) return EINVAL;
    opener->output_announced = true;
    return 0;
  }
  if (queue->streaming) return 0;
  if (queue->broken) return EIO;
  const int error = is_output(type) ? join_as_producer(opener) : join_as_consumer(opener);
  if (error != 0) return error;
  queue->streaming = true;
  queue->sequence = 0;
  if (is_output(type)) publish_queued(opener);
  return 0;
}

int V4l2Device::streamoff(Opener* opener, void* argument) {
  const uint32_t type = *static_cast<uint32_t*>(argument);
  BufferQueue* queue = queue_of(opener, type);
  if (queue == nullptr) return EINVAL;
  if (is_output(type)) opener->output_announced = false;
  stop_streaming(opener, queue, type);
  for (Buffer& buffer : queue->buffers) {
    buffer.state = Buffer::State::kIdle;
    buffer.described.flags &= ~V4L2_BUF_FLAG_PREPARED;
  }
  queue->queued.clear();
  queue->done.clear();
  queue->broken = false;
  published_ = true;
  return 0;
}

void V4l2Device::stop_streaming(Opener* opener, BufferQueue* queue, uint32_t type) {
  for (auto it = opener->dequeues.begin(); it != opener->dequeues.end();) {
    if (it->output != is_output(type)) {
      ++it;
      continue;
    }
    answers_->reply_ioctl(it->request, -EINVAL, &it->argument, sizeof(v4l2_buffer));
    it = opener->dequeues.erase(it);
  }
  if (!queue->streaming) return;
  queue->streaming = false;
  if (is_output(type)) {
    // Never published: the ring had not taken them.
    if (!opener->writes_timeout_image) ring_->count_aborted(queue->queued.size());
    leave_as_producer(opener);
  } else {
    leave_as_consumer(opener);
  }
}

// The format changed: who streams the old one without having got a frame must start again.
void V4l2Device::break_streams(Opener* except) {
  for (auto& each : openers_) {
    Opener* opener = each.get();
    if (opener == except || opener->capture.buffers.empty()) continue;
    opener->capture.broken = true;
    source_changed(opener);
    published_ = true;
  }
}

void V4l2Device::dqbuf(Opener* opener, const Request& request, v4l2_buffer argument) {
  BufferQueue* queue = queue_of(opener, argument.type);
  const auto fail = [this, request, argument](int error) {
    answers_->reply_ioctl(request, -error, &argument, sizeof argument);
  };
  if (queue == nullptr || argument.memory != V4L2_MEMORY_MMAP || queue->buffers.empty() ||
      (!queue->streaming && !queue->broken))
    return fail(EINVAL);
  const bool output = is_output(argument.type);
  if (try_dequeue(opener, request, argument, output)) return;
  opener->dequeues.push_back({request, argument, output});
  unless_it_may_wait(opener, request, [this, opener, request, fail] {
    std::erase_if(opener->dequeues,
                  [&](const auto& waiting) { return waiting.request.unique == request.unique; });
    if (opener->consumer != nullptr) ring_->stop_waiting(opener->consumer);
    fail(EAGAIN);
  });
}

// True: it is answered, or will be once the frame has been copied. False: it has to wait.
bool V4l2Device::try_dequeue(Opener* opener, const Request& request, v4l2_buffer argument,
                             bool output) {
  BufferQueue& queue = output ? opener->output : opener->capture;
  if (queue.broken) {
    answers_->reply_ioctl(request, -EIO, &argument, sizeof argument);
    return true;
  }
  if (!output) return dequeue_frame(opener, request, argument);
  if (queue.done.empty()) return false;
  const uint32_t index = queue.done.front();
  queue.done.pop_front();
  queue.buffers[index].state = Buffer::State::kIdle;
  describe(opener, queue, index, &argument);
  answers_->reply_ioctl(request, 0, &argument, sizeof argument);
  return true;
}

bool V4l2Device::dequeue_frame(Opener* opener, const Request& request, v4l2_buffer argument) {
  BufferQueue& queue = opener->capture;
  if (queue.queued.empty()) return false;
  const uint32_t index = queue.queued.front();
  Buffer& buffer = queue.buffers[index];
  // A frame may still be on its way into it, after a STREAMOFF overtook that.
  if (buffer.region->showing) {
    buffer.region->awaited = true;
    return false;
  }
  const Nanoseconds now = monotonic_now();
  const Frame* frame = ring_->take(opener->consumer, now);
  bool repeated = false;
  Answers::Bytes bytes;
  if (frame == nullptr) {
    Nanoseconds due_at = kNever;
    const Substitute substitute = substitute_due(opener, now, &due_at);
    if (substitute == Substitute::kNone) {
      want(due_at);
      return false;
    }
    if (substitute == Substitute::kRepeat) {
      frame = repeat_newest(opener, now, &repeated);
      if (frame == nullptr) return false;
      if (repeated) ++opener->extra_frames;
    } else {
      ++opener->extra_frames;
      const auto& image = timeout_image();
      bytes = {image.data(), std::min(image.size(), buffer.region->length()), nullptr};
      ring_->count_substitute(opener->consumer, bytes.size, now);
      buffer.described.flags = 0;
      buffer.described.field = V4L2_FIELD_NONE;
      buffer.described.timestamp = timeval_of(now);
      buffer.described.sequence = opener->last_sequence + 1;
    }
  }
  if (frame != nullptr) {
    bytes = bytes_of(opener, frame, 0, std::min(frame->bytesused, buffer.region->length()));
    buffer.described.flags = frame->tags.flags & (kFrameKinds | V4L2_BUF_FLAG_TIMECODE);
    memcpy(&buffer.described.timecode, frame->tags.timecode, sizeof frame->tags.timecode);
    buffer.described.field = frame->tags.field;
    // A repeated frame is a new picture in time.
    buffer.described.timestamp = timeval_of(repeated ? now : frame->timestamp_ns);
    buffer.described.sequence =
        repeated ? opener->last_sequence + 1
                 : static_cast<uint32_t>(frame->sequence - ring_->first_sequence(opener->consumer) +
                                         opener->extra_frames);
  }
  buffer.described.bytesused = static_cast<uint32_t>(bytes.size);
  opener->last_sequence = buffer.described.sequence;
  count_delivery(opener, now);
  queue.queued.pop_front();
  buffer.state = Buffer::State::kIdle;
  describe(opener, queue, index, &argument);
  answers_->show(*opener, request, buffer.region, std::move(bytes), [this, request, argument] {
    answers_->reply_ioctl(request, 0, &argument, sizeof argument);
  });
  if (frame != nullptr) ring_->release(opener->consumer, now);
  return true;
}

}  // namespace loopback
