// Events: a control changed, the source changed, and upstream's own: how many clients look.
#include <errno.h>
#include <string.h>

#include <algorithm>

#include "v4l2_controls.h"
#include "v4l2_device.h"

namespace loopback {

namespace {
// Upstream's event for who watches, so that a producer can start when somebody looks. Its payload
// is one 32-bit count.
constexpr uint32_t kClientUsage = V4L2_EVENT_PRIVATE_START + 0x08E00000 + 1;
}  // namespace

int V4l2Device::subscribe_event(Opener* opener, void* argument) {
  const auto wanted = *static_cast<v4l2_event_subscription*>(argument);
  const ControlDescription* control = nullptr;
  // But for controls, an id names nothing here: subscriptions must not add up.
  if (wanted.type != V4L2_EVENT_CTRL && wanted.id != 0) return EINVAL;
  switch (wanted.type) {
    case V4L2_EVENT_CTRL:
      control = find_control(wanted.id);
      if (control == nullptr) return EINVAL;
      break;
    case V4L2_EVENT_SOURCE_CHANGE:
      // A device that may be an output has no source, until this opener captures from it.
      if ((opener->device_caps & V4L2_CAP_VIDEO_CAPTURE) == 0) return EINVAL;
      if ((opener->device_caps & V4L2_CAP_VIDEO_OUTPUT) != 0 && opener->capture.buffers.empty() &&
          opener->consumer == nullptr)
        return EINVAL;
      break;
    case kClientUsage:
      break;
    default:
      return EINVAL;
  }
  opener->subscriptions[{wanted.type, wanted.id}] = {wanted.id, wanted.flags};
  if ((wanted.flags & V4L2_EVENT_SUB_FL_SEND_INITIAL) == 0) return 0;
  v4l2_event event{};
  event.type = wanted.type;
  event.id = wanted.id;
  if (wanted.type == kClientUsage) {
    const uint32_t count = ring_->consumers();
    memcpy(event.u.data, &count, sizeof count);
    queue_event(opener, event);
  } else if (control != nullptr && control->type != V4L2_CTRL_TYPE_CTRL_CLASS) {
    event.u.ctrl.changes = V4L2_EVENT_CTRL_CH_FLAGS;
    if ((control->flags & V4L2_CTRL_FLAG_WRITE_ONLY) == 0)
      event.u.ctrl.changes |= V4L2_EVENT_CTRL_CH_VALUE;
    event.u.ctrl.type = control->type;
    event.u.ctrl.value = control_value(control->id);
    event.u.ctrl.flags = control->flags;
    event.u.ctrl.minimum = control->minimum;
    event.u.ctrl.maximum = control->maximum;
    event.u.ctrl.step = control->step;
    event.u.ctrl.default_value = control->initial;
    queue_event(opener, event);
  }
  return 0;
}

int V4l2Device::unsubscribe_event(Opener* opener, void* argument) {
  const auto wanted = *static_cast<v4l2_event_subscription*>(argument);
  const bool all = wanted.type == V4L2_EVENT_ALL;
  if (all)
    opener->subscriptions.clear();
  else
    opener->subscriptions.erase({wanted.type, wanted.id});
  std::erase_if(opener->events, [&](const v4l2_event& event) {
    return all || (event.type == wanted.type && event.id == wanted.id);
  });
  return 0;
}

// At most one event of each kind waits: the newest, with all that changed since.
void V4l2Device::queue_event(Opener* opener, v4l2_event event) {
  const auto older = std::find_if(
      opener->events.begin(), opener->events.end(),
      [&](const v4l2_event& each) { return each.type == event.type && each.id == event.id; });
  if (older != opener->events.end()) {
    if (event.type == V4L2_EVENT_CTRL) event.u.ctrl.changes |= older->u.ctrl.changes;
    opener->events.erase(older);
  }
  const Nanoseconds now = monotonic_now();
  event.timestamp = {now / kSecond, now % kSecond};
  event.sequence = opener->event_sequence++;
  opener->events.push_back(event);
  published_ = true;
}

void V4l2Device::control_changed(Opener* by, uint32_t id) {
  const ControlDescription& control = *find_control(id);
  for (auto& opener : openers_) {
    const auto found = opener->subscriptions.find({V4L2_EVENT_CTRL, id});
    if (found == opener->subscriptions.end()) continue;
    if (opener.get() == by && (found->second.flags & V4L2_EVENT_SUB_FL_ALLOW_FEEDBACK) == 0)
      continue;
    v4l2_event event{};
    event.type = V4L2_EVENT_CTRL;
    event.id = id;
    event.u.ctrl.changes = V4L2_EVENT_CTRL_CH_VALUE;
    event.u.ctrl.type = control.type;
    event.u.ctrl.value = control_value(id);
    event.u.ctrl.flags = control.flags;
    event.u.ctrl.minimum = control.minimum;
    event.u.ctrl.maximum = control.maximum;
    event.u.ctrl.step = control.step;
    event.u.ctrl.default_value = control.initial;
    queue_event(opener.get(), event);
  }
}

void V4l2Device::source_changed(Opener* opener) {
  const auto found =
      std::find_if(opener->subscriptions.begin(), opener->subscriptions.end(),
                   [](const auto& each) { return each.first.first == V4L2_EVENT_SOURCE_CHANGE; });
  if (found == opener->subscriptions.end()) return;
  v4l2_event event{};
  event.type = V4L2_EVENT_SOURCE_CHANGE;
  event.id = found->second.id;
  event.u.src_change.changes = V4L2_EVENT_SRC_CH_RESOLUTION;
  queue_event(opener, event);
}

void V4l2Device::usage_changed() {
  const uint32_t count = ring_->consumers();
  if (count == reported_usage_) return;
  reported_usage_ = count;
  for (auto& opener : openers_) {
    const auto found =
        std::find_if(opener->subscriptions.begin(), opener->subscriptions.end(),
                     [](const auto& each) { return each.first.first == kClientUsage; });
    if (found == opener->subscriptions.end()) continue;
    v4l2_event event{};
    event.type = kClientUsage;
    event.id = found->second.id;
    memcpy(event.u.data, &count, sizeof count);
    queue_event(opener.get(), event);
  }
}

bool V4l2Device::next_event(Opener* opener, v4l2_event* event) {
  if (opener->events.empty()) return false;
  *event = opener->events.front();
  opener->events.pop_front();
  event->pending = static_cast<uint32_t>(opener->events.size());
  return true;
}

void V4l2Device::dqevent(Opener* opener, const Request& request, v4l2_event argument) {
  if (next_event(opener, &argument))
    return answers_->reply_ioctl(request, 0, &argument, sizeof argument);
  opener->event_waits.push_back({request, argument});
  unless_it_may_wait(opener, request, [this, opener, request, argument] {
    std::erase_if(opener->event_waits,
                  [&](const auto& waiting) { return waiting.request.unique == request.unique; });
    answers_->reply_ioctl(request, -ENOENT, &argument, sizeof argument);
  });
}

}  // namespace loopback
