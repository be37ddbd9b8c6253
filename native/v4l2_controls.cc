// Controls: upstream's four, under their own ids and as private ids, and the class they are in.
#include "v4l2_controls.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <algorithm>
#include <iterator>

#include "caller.h"
#include "v4l2_device.h"

namespace loopback {

namespace {

const ControlDescription kControls[] = {
    {V4L2_CID_USER_CLASS, "User Controls", V4L2_CTRL_TYPE_CTRL_CLASS, 0, 0, 0, 0,
     V4L2_CTRL_FLAG_READ_ONLY | V4L2_CTRL_FLAG_WRITE_ONLY},
    {kKeepFormat, "keep_format", V4L2_CTRL_TYPE_BOOLEAN, 0, 1, 1, 0, 0},
    {kSustainFramerate, "sustain_framerate", V4L2_CTRL_TYPE_BOOLEAN, 0, 1, 1, 0, 0},
    {kTimeout, "timeout", V4L2_CTRL_TYPE_INTEGER, 0, 100000, 1, 0, 0},
    {kTimeoutImageIo, "timeout_image_io", V4L2_CTRL_TYPE_BUTTON, 0, 0, 0, 0,
     V4L2_CTRL_FLAG_WRITE_ONLY | V4L2_CTRL_FLAG_EXECUTE_ON_WRITE},
};

constexpr uint32_t kNext = V4L2_CTRL_FLAG_NEXT_CTRL;
constexpr uint32_t kNextCompound = V4L2_CTRL_FLAG_NEXT_COMPOUND;
// Any number of controls that a program could sensibly ask for; bounds what we read of it.
constexpr uint32_t kMaxExtControls = 1024;

// By id, by private id (PRIVATE_BASE + n is upstream's n-th), or the next after it.
const ControlDescription* find(uint32_t id) {
  const uint32_t plain = id & ~(kNext | kNextCompound);
  if ((id & kNext) != 0) {
    const auto* next = std::find_if(std::begin(kControls), std::end(kControls),
                                    [&](const auto& control) { return control.id > plain; });
    return next == std::end(kControls) ? nullptr : next;
  }
  if ((id & kNextCompound) != 0) return nullptr;
  if (plain >= V4L2_CID_PRIVATE_BASE && plain < V4L2_CID_PRIVATE_BASE + 4)
    return &kControls[1 + plain - V4L2_CID_PRIVATE_BASE];
  return find_control(plain);
}

int32_t clamped(const ControlDescription& control, int32_t value) {
  if (control.type == V4L2_CTRL_TYPE_BOOLEAN) return value != 0;
  if (control.type == V4L2_CTRL_TYPE_BUTTON) return 0;
  return std::clamp(value, control.minimum, control.maximum);
}

}  // namespace

const ControlDescription* find_control(uint32_t id) {
  const auto* found = std::find_if(std::begin(kControls), std::end(kControls),
                                   [&](const auto& control) { return control.id == id; });
  return found == std::end(kControls) ? nullptr : found;
}

int V4l2Device::queryctrl(Opener*, void* argument) {
  auto* query = static_cast<v4l2_queryctrl*>(argument);
  const uint32_t asked = query->id;
  const ControlDescription* control = find(asked);
  if (control == nullptr) return EINVAL;
  memset(query, 0, sizeof *query);
  query->id = (asked & kNext) == 0 && asked >= V4L2_CID_PRIVATE_BASE ? asked : control->id;
  query->type = control->type;
  snprintf(reinterpret_cast<char*>(query->name), sizeof query->name, "%s", control->name);
  query->minimum = control->minimum;
  query->maximum = control->maximum;
  query->step = control->step;
  query->default_value = control->initial;
  query->flags = control->flags;
  return 0;
}

int V4l2Device::query_ext_ctrl(Opener*, void* argument) {
  auto* query = static_cast<v4l2_query_ext_ctrl*>(argument);
  const uint32_t asked = query->id;
  const ControlDescription* control = find(asked);
  if (control == nullptr) return EINVAL;
  memset(query, 0, sizeof *query);
  query->id = (asked & kNext) == 0 && asked >= V4L2_CID_PRIVATE_BASE ? asked : control->id;
  query->type = control->type;
  snprintf(query->name, sizeof query->name, "%s", control->name);
  query->minimum = control->minimum;
  query->maximum = control->maximum;
  query->step = control->step;
  query->default_value = control->initial;
  query->flags = control->flags;
  query->elem_size = sizeof(int32_t);
  query->elems = 1;
  return 0;
}

int V4l2Device::querymenu(Opener*, void*) { return EINVAL; }  // No control is a menu.

int32_t V4l2Device::control_value(uint32_t id) const {
  switch (id) {
    case kKeepFormat:
      return keep_format_;
    case kSustainFramerate:
      return sustain_framerate_;
    case kTimeout:
      return timeout_ms_;
    default:
      return 0;
  }
}

void V4l2Device::set_control(Opener* opener, uint32_t id, int32_t value) {
  const int32_t before = control_value(id);
  switch (id) {
    case kKeepFormat:
      keep_format_ = value != 0;
      break;
    case kSustainFramerate:
      sustain_framerate_ = value != 0;
      break;
    case kTimeout:
      timeout_ms_ = value;
      break;
    case kTimeoutImageIo:
      timeout_image_io_ = true;
      break;
  }
  // A reader that waits may now be due for a substitute.
  published_ = true;
  if (control_value(id) != before) control_changed(opener, id);
}

int V4l2Device::g_ctrl(Opener*, void* argument) {
  auto* control = static_cast<v4l2_control*>(argument);
  const ControlDescription* description = find(control->id & ~(kNext | kNextCompound));
  if (description == nullptr || control->id != (control->id & ~(kNext | kNextCompound)))
    return EINVAL;
  if ((description->flags & V4L2_CTRL_FLAG_WRITE_ONLY) != 0) return EACCES;
  control->value = control_value(description->id);
  return 0;
}

int V4l2Device::s_ctrl(Opener* opener, void* argument) {
  auto* control = static_cast<v4l2_control*>(argument);
  if (control->id != (control->id & ~(kNext | kNextCompound))) return EINVAL;
  const ControlDescription* description = find(control->id);
  if (description == nullptr) return EINVAL;
  if ((description->flags & V4L2_CTRL_FLAG_READ_ONLY) != 0) return EACCES;
  if (description->type == V4L2_CTRL_TYPE_INTEGER &&
      control->value != clamped(*description, control->value))
    return ERANGE;
  control->value = clamped(*description, control->value);
  set_control(opener, description->id, control->value);
  return 0;
}

// The request brings the outer struct alone; the array is read from the caller, and written back.
void V4l2Device::ext_ctrls(Opener* opener, const Request& request, uint32_t command,
                           void* argument) {
  v4l2_ext_controls outer = *static_cast<v4l2_ext_controls*>(argument);
  if (outer.count == 0 || outer.count > kMaxExtControls) {
    const int error =
        outer.count == 0 ? ext_ctrls_values(opener, command, &outer, nullptr) : EINVAL;
    return answers_->reply_ioctl(request, -error, &outer, sizeof outer);
  }
  const auto work = [this, opener, request, command, outer](const auto& locked) mutable {
    std::vector<v4l2_ext_control> controls(outer.count);
    const uint64_t address = reinterpret_cast<uint64_t>(outer.controls);
    const size_t bytes = controls.size() * sizeof(v4l2_ext_control);
    int error = read_caller_memory(request.tid, address, controls.data(), bytes);
    if (error == 0) {
      const auto step = [&] {
        error = ext_ctrls_values(opener, command, &outer, controls.data());
        settle();
      };
      if (!locked(step)) return;
      const int written = write_caller_memory(request.tid, address, controls.data(), bytes);
      if (error == 0) error = written;
    }
    locked([&] { answers_->reply_ioctl(request, -error, &outer, sizeof outer); });
  };
  if (!answers_->run_aside(request, work))
    answers_->reply_ioctl(request, -ENOMEM, &outer, sizeof outer);
}

int V4l2Device::ext_ctrls_values(Opener* opener, uint32_t command, v4l2_ext_controls* outer,
                                 v4l2_ext_control* controls) {
  const bool get = command == VIDIOC_G_EXT_CTRLS;
  const bool set = command == VIDIOC_S_EXT_CTRLS;
  const uint32_t which = outer->which;
  const bool defaults = which == V4L2_CTRL_WHICH_DEF_VAL;
  outer->error_idx = outer->count;
  outer->reserved[0] = 0;
  if (which == V4L2_CTRL_WHICH_REQUEST_VAL || (defaults && !get)) return EINVAL;
  if (!defaults && which != V4L2_CTRL_WHICH_CUR_VAL && which != V4L2_CTRL_CLASS_USER) return EINVAL;
  // First what would fail, so that nothing is changed by half.
  for (uint32_t i = 0; i < outer->count; ++i) {
    v4l2_ext_control& control = controls[i];
    const ControlDescription* description =
        control.id == (control.id & ~(kNext | kNextCompound)) ? find(control.id) : nullptr;
    int error = 0;
    if (description == nullptr || control.id >= V4L2_CID_PRIVATE_BASE)
      error = EINVAL;
    else if (get && (description->flags & V4L2_CTRL_FLAG_WRITE_ONLY) != 0)
      error = EACCES;
    else if (!get && (description->flags & V4L2_CTRL_FLAG_READ_ONLY) != 0)
      error = EACCES;
    else if (!get && description->type == V4L2_CTRL_TYPE_INTEGER &&
             control.value != clamped(*description, control.value))
      error = ERANGE;
    if (error != 0) {
      if (!get && !set) outer->error_idx = i;
      return error;
    }
  }
  for (uint32_t i = 0; i < outer->count; ++i) {
    v4l2_ext_control& control = controls[i];
    const ControlDescription* description = find(control.id);
    if (get) {
      control.value = defaults ? description->initial : control_value(description->id);
    } else {
      control.value = clamped(*description, control.value);
      if (set) set_control(opener, description->id, control.value);
    }
  }
  return 0;
}

}  // namespace loopback
