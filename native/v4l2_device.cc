#include "v4l2_device.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>

#include <algorithm>
#include <utility>

#include "caller.h"

namespace loopback {

namespace {
constexpr uint32_t kReadable = POLLIN | POLLRDNORM;
constexpr uint32_t kWritable = POLLOUT | POLLWRNORM;

LogLevel level_of(RingEvent::Kind kind) {
  return kind == RingEvent::Kind::kRefused || kind == RingEvent::Kind::kLapped ? LogLevel::kWarn
                                                                               : LogLevel::kInfo;
}
}  // namespace

V4l2Device::V4l2Device(DeviceSetup setup, Answers* answers, DeviceLog log)
    : setup_(std::move(setup)),
      answers_(answers),
      log_(std::move(log)),
      housekeeper_(Housekeeper::shared()) {
  const PixelFormat& format = *find_pixel_format(format_.fourcc);
  format_.width = std::clamp(format_.width, setup_.min_width, setup_.max_width);
  format_.height = std::clamp(format_.height, setup_.min_height, setup_.max_height);
  format_.bytesperline = bytes_per_line(format, format_.width);
  Ring::Setup ring;
  // Whole: the least that a device's limits allow may be more than 32 bits hold, and is then
  // refused.
  ring.sizeimage = sizeimage(format, format_.width, format_.height);
  format_.sizeimage = static_cast<uint32_t>(ring.sizeimage);
  ring.parameters = setup_.ring;
  ring.now = monotonic_now();
  ring.observe = [this](const RingEvent& event) {
    log_(level_of(event.kind), setup_.number, event.text);
  };
  // A frame that is still being copied keeps the ring, when we may be gone.
  ring.wake_housekeeper = [housekeeper = housekeeper_](Ring* woken) { housekeeper->wake(woken); };
  ring_ = std::make_shared<Ring>(std::move(ring));
  housekeeper_->add(ring_.get());
}

V4l2Device::~V4l2Device() {
  fail_all(ENODEV);
  while (!openers_.empty()) release(openers_.front().get());
  housekeeper_->remove(ring_.get());
}

Opener* V4l2Device::open(int flags, pid_t pid, std::shared_ptr<Window> window) {
  auto made = std::make_unique<Opener>();
  Opener* opener = made.get();
  opener->handle = next_handle_++;
  opener->window = std::move(window);
  opener->pid = pid;
  opener->command = command_of(pid);
  const int access = flags & O_ACCMODE;
  opener->may_read = access != O_WRONLY;
  opener->may_write = access != O_RDONLY;
  opener->opened_nonblocking = (flags & O_NONBLOCK) != 0;
  opener->device_caps = V4L2_CAP_READWRITE | V4L2_CAP_STREAMING | V4L2_CAP_EXT_PIX_FORMAT;
  if (!setup_.exclusive_caps) {
    opener->device_caps |= V4L2_CAP_VIDEO_CAPTURE | V4L2_CAP_VIDEO_OUTPUT;
  } else {
    opener->device_caps |= producer_streams() ? V4L2_CAP_VIDEO_CAPTURE : V4L2_CAP_VIDEO_OUTPUT;
  }
  opener->priority = V4L2_PRIORITY_DEFAULT;
  openers_.push_back(std::move(made));
  return opener;
}

void V4l2Device::release(Opener* opener) {
  for (auto& waiting : opener->reads) answers_->reply_error(waiting.request, EINTR);
  for (auto& waiting : opener->writes) answers_->reply_error(waiting.request, EINTR);
  for (auto& waiting : opener->dequeues)
    answers_->reply_ioctl(waiting.request, -EINTR, &waiting.argument, sizeof(v4l2_buffer));
  for (auto& waiting : opener->event_waits)
    answers_->reply_ioctl(waiting.request, -EINTR, &waiting.argument, sizeof(v4l2_event));
  stop_streaming(opener, &opener->output, V4L2_BUF_TYPE_VIDEO_OUTPUT);
  stop_streaming(opener, &opener->capture, V4L2_BUF_TYPE_VIDEO_CAPTURE);
  leave_as_producer(opener);
  leave_as_consumer(opener);
  openers_.remove_if([opener](const auto& each) { return each.get() == opener; });
  room_made_ = published_ = true;
  settle();
}

void V4l2Device::fail_all(int error) {
  for (auto& each : openers_) {
    Opener* opener = each.get();
    for (auto& waiting : opener->reads) answers_->reply_error(waiting.request, error);
    for (auto& waiting : opener->writes) answers_->reply_error(waiting.request, error);
    for (auto& waiting : opener->dequeues)
      answers_->reply_ioctl(waiting.request, -error, &waiting.argument, sizeof(v4l2_buffer));
    for (auto& waiting : opener->event_waits)
      answers_->reply_ioctl(waiting.request, -error, &waiting.argument, sizeof(v4l2_event));
    opener->reads.clear();
    opener->writes.clear();
    opener->dequeues.clear();
    opener->event_waits.clear();
  }
}

bool V4l2Device::interrupt(uint64_t unique) {
  const auto take_out = [unique](auto* queue, auto&& answer) {
    const auto found = std::find_if(queue->begin(), queue->end(), [unique](const auto& waiting) {
      return waiting.request.unique == unique;
    });
    if (found == queue->end()) return false;
    auto waiting = std::move(*found);
    queue->erase(found);
    answer(waiting);
    return true;
  };
  for (auto& each : openers_) {
    Opener* opener = each.get();
    const bool found =
        take_out(&opener->reads,
                 [&](auto& waiting) {
                   ring_->stop_waiting(opener->consumer);
                   answers_->reply_error(waiting.request, EINTR);
                 }) ||
        take_out(&opener->writes,
                 [&](auto& waiting) {
                   if (opener->producer != nullptr) ring_->stop_claiming(opener->producer);
                   const uint32_t done = waiting.total - waiting.left();
                   if (done > 0)
                     answers_->reply_written(waiting.request, done);
                   else
                     answers_->reply_error(waiting.request, EINTR);
                 }) ||
        take_out(&opener->dequeues,
                 [&](auto& waiting) {
                   if (!waiting.output && opener->consumer != nullptr)
                     ring_->stop_waiting(opener->consumer);
                   answers_->reply_ioctl(waiting.request, -EINTR, &waiting.argument,
                                         sizeof(v4l2_buffer));
                 }) ||
        take_out(&opener->event_waits, [&](auto& waiting) {
          answers_->reply_ioctl(waiting.request, -EINTR, &waiting.argument, sizeof(v4l2_event));
        });
    if (found) return true;
  }
  return false;
}

uint32_t V4l2Device::poll(Opener* opener, uint32_t events, bool schedule, uint64_t poll_handle) {
  // A poll for input starts read I/O, as in a driver: frames count from here.
  if ((events & kReadable) != 0 && opener->may_read && !opener->has_buffers() &&
      opener->producer == nullptr && !opener->writes_timeout_image &&
      (opener->device_caps & V4L2_CAP_VIDEO_CAPTURE) != 0 && join_as_consumer(opener) != 0)
    return POLLERR;
  opener->poll_wanted = schedule;
  opener->poll_handle = poll_handle;
  opener->poll_events = events;
  return readiness(opener, monotonic_now());
}

uint32_t V4l2Device::readiness(Opener* opener, Nanoseconds now) {
  uint32_t ready = opener->events.empty() ? 0 : POLLPRI;
  const auto frame_ready = [&] {
    if (opener->consumer == nullptr) return false;
    if (ring_->readable(opener->consumer)) return true;
    Nanoseconds due_at = kNever;
    if (substitute_due(opener, now, &due_at) != Substitute::kNone) return true;
    want(due_at);
    return false;
  };
  if (opener->has_buffers()) {
    const BufferQueue& capture = opener->capture;
    if (!capture.buffers.empty()) {
      if (!capture.streaming || capture.broken)
        ready |= POLLERR;
      else if (!capture.queued.empty() && frame_ready())
        ready |= kReadable;
    }
    const BufferQueue& output = opener->output;
    if (!output.buffers.empty()) {
      if (!output.streaming)
        ready |= POLLERR;
      else if (!output.done.empty() || output.queued.size() < output.buffers.size())
        ready |= kWritable;
    }
    return ready;
  }
  if (opener->frame != nullptr || !opener->substitute.empty() || frame_ready()) ready |= kReadable;
  if (opener->may_write && (opener->device_caps & V4L2_CAP_VIDEO_OUTPUT) != 0) {
    Nanoseconds retry_at = kNever;
    if (opener->producer == nullptr || opener->claim != nullptr ||
        ring_->has_room(opener->producer, format_.sizeimage, now, &retry_at))
      ready |= kWritable;
    else
      want(retry_at);
  }
  return ready;
}

void V4l2Device::expire() {
  published_ = room_made_ = true;
  // Whoever still waits names its time again.
  deadline_ = kNever;
  look_for_pending();
  settle();
}

void V4l2Device::frame_published() {
  published_ = true;
  look_for_pending();
}

// Its publication, on whatever thread, may hand it to a reader that waits: we look after it.
void V4l2Device::look_for_pending() {
  if (ring_->has_pending()) want(monotonic_now() + 10 * kMillisecond);
}

void V4l2Device::look_again() {
  published_ = true;
  settle();
}

void V4l2Device::settle() {
  bool polls_may_change = false;
  while (published_ || room_made_) {
    polls_may_change = true;
    if (std::exchange(published_, false)) {
      for (auto& each : openers_) {
        while (serve_reader(each.get())) {
        }
      }
    }
    if (std::exchange(room_made_, false)) {
      waiting_producers_ = 0;
      // Who was served goes to the end, so that every producer has its turn.
      auto last = openers_.end();
      for (auto it = openers_.begin(); it != last;) {
        const auto here = it++;
        const bool served = serve_producer(here->get());
        if (!here->get()->writes.empty() || !here->get()->output.queued.empty())
          ++waiting_producers_;
        if (served) {
          if (last == openers_.end()) last = here;
          openers_.splice(openers_.end(), openers_, here);
          if (it == openers_.end()) break;
        }
      }
    }
  }
  if (polls_may_change) notify_polls();
}

void V4l2Device::notify_polls() {
  const Nanoseconds now = monotonic_now();
  for (auto& each : openers_) {
    Opener* opener = each.get();
    if (!opener->poll_wanted) continue;
    const uint32_t wanted = opener->poll_events | POLLERR | POLLHUP;
    if ((readiness(opener, now) & wanted) == 0) continue;
    opener->poll_wanted = false;
    answers_->notify_poll(opener->poll_handle);
  }
}

bool V4l2Device::serve_reader(Opener* opener) {
  if (!opener->event_waits.empty()) {
    auto& waiting = opener->event_waits.front();
    if (next_event(opener, &waiting.argument)) {
      const auto taken = waiting;
      opener->event_waits.pop_front();
      answers_->reply_ioctl(taken.request, 0, &taken.argument, sizeof(v4l2_event));
      return true;
    }
  }
  if (!opener->reads.empty()) {
    const auto waiting = opener->reads.front();
    if (continue_read(opener, waiting.request, waiting.size)) {
      opener->reads.pop_front();
      return true;
    }
  }
  for (auto it = opener->dequeues.begin(); it != opener->dequeues.end(); ++it) {
    if (!try_dequeue(opener, it->request, it->argument, it->output)) continue;
    opener->dequeues.erase(it);
    return true;
  }
  return false;
}

bool V4l2Device::serve_producer(Opener* opener) {
  bool served = false;
  if (!opener->writes.empty()) served = continue_write(opener);
  if (opener->output.streaming && !opener->output.queued.empty() && publish_queued(opener))
    served = true;
  return served;
}

int V4l2Device::join_as_producer(Opener* opener) {
  if (opener->producer != nullptr || opener->writes_timeout_image) return 0;
  if (opener->consumer == nullptr && users() >= setup_.max_openers) return EBUSY;
  if (timeout_image_io_) {
    timeout_image_io_ = false;
    opener->writes_timeout_image = true;
    return 0;
  }
  opener->producer = ring_->join_producer({opener->pid, opener->command}, monotonic_now());
  if (opener->producer == nullptr) return EBUSY;
  if (opener->consumer != nullptr) ring_->set_own_consumer(opener->producer, opener->consumer);
  return 0;
}

int V4l2Device::join_as_consumer(Opener* opener) {
  if (opener->consumer != nullptr) return 0;
  if (opener->producer == nullptr && users() >= setup_.max_openers) return EBUSY;
  const Nanoseconds now = monotonic_now();
  opener->consumer = ring_->join_consumer({opener->pid, opener->command}, now);
  opener->last_delivery = now;
  opener->was_delivered = false;
  opener->extra_frames = 0;
  opener->last_sequence = UINT32_MAX;
  if (opener->producer != nullptr) ring_->set_own_consumer(opener->producer, opener->consumer);
  usage_changed();
  return 0;
}

void V4l2Device::leave_as_producer(Opener* opener) {
  opener->writes_timeout_image = false;
  opener->timeout_part.clear();
  if (opener->producer == nullptr) return;
  const Nanoseconds now = monotonic_now();
  if (opener->claim != nullptr) ring_->abort(opener->claim, opener->filled > 0, now);
  opener->claim = nullptr;
  opener->filled = 0;
  ring_->leave_producer(opener->producer, now);
  opener->producer = nullptr;
  room_made_ = published_ = true;
}

void V4l2Device::leave_as_consumer(Opener* opener) {
  if (opener->consumer == nullptr) return;
  end_read(opener);
  ring_->leave_consumer(opener->consumer, monotonic_now());
  opener->consumer = nullptr;
  opener->was_delivered = false;
  room_made_ = true;
  usage_changed();
}

uint32_t V4l2Device::users() const {
  return static_cast<uint32_t>(
      std::count_if(openers_.begin(), openers_.end(), [](const auto& opener) {
        return opener->producer != nullptr || opener->consumer != nullptr ||
               opener->writes_timeout_image;
      }));
}

bool V4l2Device::set_max_openers(uint32_t count) {
  if (count < users()) return false;
  setup_.max_openers = count;
  return true;
}

bool V4l2Device::producer_streams() const {
  return std::any_of(openers_.begin(), openers_.end(),
                     [](const auto& opener) { return opener->producer != nullptr; });
}

uint32_t V4l2Device::streaming_buffers() const {
  size_t most = 0;
  for (const auto& opener : openers_) {
    for (const BufferQueue* queue : {&opener->capture, &opener->output}) {
      if (queue->streaming) most = std::max(most, queue->buffers.size());
    }
  }
  return static_cast<uint32_t>(most);
}

bool V4l2Device::blocked_by_priority(const Opener* opener) const {
  return std::any_of(openers_.begin(), openers_.end(),
                     [opener](const auto& other) { return other->priority > opener->priority; });
}

// An ioctl brings no flags of the open file, and O_NONBLOCK may have been set by fcntl since: /proc
// tells. So the request waits first, and is given up if it may not.
void V4l2Device::unless_it_may_wait(const Opener* opener, const Request& request,
                                    std::function<void()> give_up) {
  const bool looks = answers_->run_aside(request, [request, give_up](const auto& locked) {
    const auto flags = descriptor_flags(request.tid, request.inode);
    if (flags.has_value() && (*flags & O_NONBLOCK) != 0) locked(give_up);
  });
  if (!looks && opener->opened_nonblocking) give_up();
}

void V4l2Device::count_delivery(Opener* opener, Nanoseconds now) {
  opener->was_delivered = true;
  opener->last_delivery = now;
  room_made_ = room_made_ || waiting_producers_ > 0;
}

Nanoseconds V4l2Device::frame_interval() const {
  return kSecond * rate_denominator_ / std::max(rate_numerator_, 1u);
}

}  // namespace loopback
