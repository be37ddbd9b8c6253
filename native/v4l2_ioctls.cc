// Which function answers which ioctl, and the answers that need no state.
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <algorithm>

#include "v4l2_device.h"

namespace loopback {

void V4l2Device::ioctl(Opener* opener, const Request& request, uint32_t command, void* argument,
                       uint64_t) {
  const auto answer = [&](Ioctl function) {
    const int error = (this->*function)(opener, argument);
    answers_->reply_ioctl(request, -error, argument, _IOC_SIZE(command));
    settle();
  };
  // Who has a lower priority than another opener may look but not steer.
  const auto steer = [&](Ioctl function) {
    if (!blocked_by_priority(opener)) return answer(function);
    answers_->reply_ioctl(request, -EBUSY, argument, _IOC_SIZE(command));
  };
  switch (command) {
    case VIDIOC_QUERYCAP:
      return answer(&V4l2Device::querycap);
    case VIDIOC_G_PRIORITY:
      return answer(&V4l2Device::g_priority);
    case VIDIOC_S_PRIORITY:
      return steer(&V4l2Device::s_priority);
    case VIDIOC_ENUMINPUT:
      return answer(&V4l2Device::enum_input);
    case VIDIOC_G_INPUT:
      return answer(&V4l2Device::g_input);
    case VIDIOC_S_INPUT:
      return steer(&V4l2Device::s_input);
    case VIDIOC_ENUMOUTPUT:
      return answer(&V4l2Device::enum_output);
    case VIDIOC_G_OUTPUT:
      return answer(&V4l2Device::g_output);
    case VIDIOC_S_OUTPUT:
      return steer(&V4l2Device::s_output);
    case VIDIOC_ENUM_FMT:
      return answer(&V4l2Device::enum_fmt);
    case VIDIOC_ENUM_FRAMESIZES:
      return answer(&V4l2Device::enum_framesizes);
    case VIDIOC_ENUM_FRAMEINTERVALS:
      return answer(&V4l2Device::enum_frameintervals);
    case VIDIOC_G_FMT:
      return answer(&V4l2Device::g_fmt);
    case VIDIOC_TRY_FMT:
      return answer(&V4l2Device::try_fmt);
    case VIDIOC_S_FMT:
      return steer(&V4l2Device::s_fmt);
    case VIDIOC_G_PARM:
      return answer(&V4l2Device::g_parm);
    case VIDIOC_S_PARM:
      return steer(&V4l2Device::s_parm);
    case VIDIOC_REQBUFS:
      return steer(&V4l2Device::reqbufs);
    case VIDIOC_CREATE_BUFS:
      return steer(&V4l2Device::create_bufs);
    case VIDIOC_QUERYBUF:
      return answer(&V4l2Device::querybuf);
    case VIDIOC_PREPARE_BUF:
      return answer(&V4l2Device::prepare_buf);
    case VIDIOC_QBUF:
      return answer(&V4l2Device::qbuf);
    case VIDIOC_DQBUF:
      dqbuf(opener, request, *static_cast<v4l2_buffer*>(argument));
      return settle();
    case VIDIOC_STREAMON:
      return steer(&V4l2Device::streamon);
    case VIDIOC_STREAMOFF:
      return steer(&V4l2Device::streamoff);
    case VIDIOC_QUERYCTRL:
      return answer(&V4l2Device::queryctrl);
    case VIDIOC_QUERY_EXT_CTRL:
      return answer(&V4l2Device::query_ext_ctrl);
    case VIDIOC_QUERYMENU:
      return answer(&V4l2Device::querymenu);
    case VIDIOC_G_CTRL:
      return answer(&V4l2Device::g_ctrl);
    case VIDIOC_S_CTRL:
      return steer(&V4l2Device::s_ctrl);
    case VIDIOC_S_EXT_CTRLS:
      if (blocked_by_priority(opener))
        return answers_->reply_ioctl(request, -EBUSY, argument, _IOC_SIZE(command));
      [[fallthrough]];
    case VIDIOC_G_EXT_CTRLS:
    case VIDIOC_TRY_EXT_CTRLS:
      ext_ctrls(opener, request, command, argument);
      return settle();
    case VIDIOC_SUBSCRIBE_EVENT:
      return answer(&V4l2Device::subscribe_event);
    case VIDIOC_UNSUBSCRIBE_EVENT:
      return answer(&V4l2Device::unsubscribe_event);
    case VIDIOC_DQEVENT:
      return dqevent(opener, request, *static_cast<v4l2_event*>(argument));
    default:
      return answers_->reply_error(request, ENOTTY);
  }
}

int V4l2Device::querycap(Opener* opener, void* argument) {
  auto* cap = static_cast<v4l2_capability*>(argument);
  memset(cap, 0, sizeof *cap);
  snprintf(reinterpret_cast<char*>(cap->driver), sizeof cap->driver, "v4l2 loopback");
  snprintf(reinterpret_cast<char*>(cap->card), sizeof cap->card, "%s", setup_.card_label.c_str());
  snprintf(reinterpret_cast<char*>(cap->bus_info), sizeof cap->bus_info,
           "platform:v4l2loopback-%03u", setup_.number);
  cap->version = (6 << 16) | (1 << 8);
  cap->device_caps = opener->device_caps;
  cap->capabilities = opener->device_caps | V4L2_CAP_DEVICE_CAPS;
  return 0;
}

int V4l2Device::g_priority(Opener*, void* argument) {
  uint32_t highest = V4L2_PRIORITY_UNSET;
  for (const auto& opener : openers_) highest = std::max(highest, opener->priority);
  *static_cast<uint32_t*>(argument) = highest;
  return 0;
}

int V4l2Device::s_priority(Opener* opener, void* argument) {
  const uint32_t priority = *static_cast<uint32_t*>(argument);
  if (priority < V4L2_PRIORITY_BACKGROUND || priority > V4L2_PRIORITY_RECORD) return EINVAL;
  opener->priority = priority;
  return 0;
}

int V4l2Device::enum_input(Opener* opener, void* argument) {
  if ((opener->device_caps & V4L2_CAP_VIDEO_CAPTURE) == 0) return ENOTTY;
  auto* input = static_cast<v4l2_input*>(argument);
  if (input->index != 0) return EINVAL;
  memset(input, 0, sizeof *input);
  snprintf(reinterpret_cast<char*>(input->name), sizeof input->name, "loopback");
  input->type = V4L2_INPUT_TYPE_CAMERA;
  // A timed-out reader is shown another image: say that the real one is missing.
  if (!producer_streams()) input->status = V4L2_IN_ST_NO_SIGNAL;
  return 0;
}

int V4l2Device::g_input(Opener* opener, void* argument) {
  if ((opener->device_caps & V4L2_CAP_VIDEO_CAPTURE) == 0) return ENOTTY;
  *static_cast<int*>(argument) = 0;
  return 0;
}

int V4l2Device::s_input(Opener* opener, void* argument) {
  if ((opener->device_caps & V4L2_CAP_VIDEO_CAPTURE) == 0) return ENOTTY;
  return *static_cast<int*>(argument) == 0 ? 0 : EINVAL;
}

int V4l2Device::enum_output(Opener* opener, void* argument) {
  if ((opener->device_caps & V4L2_CAP_VIDEO_OUTPUT) == 0) return ENOTTY;
  auto* output = static_cast<v4l2_output*>(argument);
  if (output->index != 0) return EINVAL;
  memset(output, 0, sizeof *output);
  snprintf(reinterpret_cast<char*>(output->name), sizeof output->name, "loopback in");
  output->type = V4L2_OUTPUT_TYPE_ANALOG;
  return 0;
}

int V4l2Device::g_output(Opener* opener, void* argument) {
  if ((opener->device_caps & V4L2_CAP_VIDEO_OUTPUT) == 0) return ENOTTY;
  *static_cast<int*>(argument) = 0;
  return 0;
}

int V4l2Device::s_output(Opener* opener, void* argument) {
  if ((opener->device_caps & V4L2_CAP_VIDEO_OUTPUT) == 0) return ENOTTY;
  return *static_cast<int*>(argument) == 0 ? 0 : EINVAL;
}

}  // namespace loopback
