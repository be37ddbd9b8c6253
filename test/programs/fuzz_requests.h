// Every ioctl of V4L2 and of the control device: the errors that its documentation names for a
// device such as ours, and arguments that are right, for a start.
#pragma once

#include <errno.h>
#include <linux/videodev2.h>
#include <sys/mman.h>

#include <cstdint>
#include <cstring>

#include "fuzz_random.h"

// What the control device takes; test/native has no part in how it is declared there.
struct ControlArgument {
  int32_t output_nr, capture_nr;
  char card_label[32];
  uint32_t min_width, max_width, min_height, max_height;
  int32_t max_buffers, max_openers, debug, announce_all_caps;
};
static_assert(sizeof(ControlArgument) == 72);

inline constexpr uint32_t kControlVersion = _IOR('~', 0, uint32_t);
inline constexpr uint32_t kControlAdd = _IOW('~', 1, ControlArgument);
inline constexpr uint32_t kControlRemove = _IOW('~', 2, uint32_t);
inline constexpr uint32_t kControlQuery = _IOWR('~', 3, ControlArgument);
inline constexpr uint32_t kControlRemoveByValue = 0x4c81;

struct KnownRequest {
  uint32_t request;
  const char* name;
  int errors[8];  // Ended by 0. Success is always an answer.
};

#define V4L2_REQUEST(name, ...)                                  \
  {                                                              \
    static_cast<uint32_t>(VIDIOC_##name), #name, { __VA_ARGS__ } \
  }

// A second ENOTTY in the list: not without that capability.
inline const KnownRequest kDeviceRequests[] = {
    V4L2_REQUEST(QUERYCAP, 0),
    V4L2_REQUEST(ENUM_FMT, EINVAL),
    V4L2_REQUEST(G_FMT, EINVAL),
    V4L2_REQUEST(S_FMT, EINVAL, EBUSY),
    V4L2_REQUEST(TRY_FMT, EINVAL),
    V4L2_REQUEST(ENUM_FRAMESIZES, EINVAL),
    V4L2_REQUEST(ENUM_FRAMEINTERVALS, EINVAL),
    V4L2_REQUEST(REQBUFS, EINVAL, EBUSY, ENOMEM),
    V4L2_REQUEST(CREATE_BUFS, EINVAL, EBUSY, ENOMEM),
    V4L2_REQUEST(QUERYBUF, EINVAL),
    V4L2_REQUEST(PREPARE_BUF, EINVAL, EIO),
    V4L2_REQUEST(QBUF, EINVAL, EIO, EBADR),
    V4L2_REQUEST(DQBUF, EINVAL, EAGAIN, EIO, EINTR),
    V4L2_REQUEST(STREAMON, EINVAL, EBUSY, EIO),
    V4L2_REQUEST(STREAMOFF, EINVAL, EBUSY),
    V4L2_REQUEST(G_PARM, EINVAL),
    V4L2_REQUEST(S_PARM, EINVAL, EBUSY),
    V4L2_REQUEST(ENUMINPUT, EINVAL, ENOTTY),
    V4L2_REQUEST(G_INPUT, ENOTTY),
    V4L2_REQUEST(S_INPUT, EINVAL, EBUSY, ENOTTY),
    V4L2_REQUEST(ENUMOUTPUT, EINVAL, ENOTTY),
    V4L2_REQUEST(G_OUTPUT, ENOTTY),
    V4L2_REQUEST(S_OUTPUT, EINVAL, EBUSY, ENOTTY),
    V4L2_REQUEST(G_PRIORITY, 0),
    V4L2_REQUEST(S_PRIORITY, EINVAL, EBUSY),
    V4L2_REQUEST(QUERYCTRL, EINVAL),
    V4L2_REQUEST(QUERY_EXT_CTRL, EINVAL),
    V4L2_REQUEST(QUERYMENU, EINVAL),
    V4L2_REQUEST(G_CTRL, EINVAL, EACCES),
    V4L2_REQUEST(S_CTRL, EINVAL, EACCES, ERANGE, EBUSY),
    V4L2_REQUEST(G_EXT_CTRLS, EINVAL, EACCES, EFAULT, EINTR),
    V4L2_REQUEST(S_EXT_CTRLS, EINVAL, EACCES, ERANGE, EBUSY, EFAULT, EINTR),
    V4L2_REQUEST(TRY_EXT_CTRLS, EINVAL, EACCES, ERANGE, EFAULT, EINTR),
    V4L2_REQUEST(SUBSCRIBE_EVENT, EINVAL),
    V4L2_REQUEST(UNSUBSCRIBE_EVENT, EINVAL),
    V4L2_REQUEST(DQEVENT, ENOENT, EINTR),
    // Real V4L2 requests that a device such as ours does not have.
    V4L2_REQUEST(EXPBUF, ENOTTY),
    V4L2_REQUEST(LOG_STATUS, ENOTTY),
    V4L2_REQUEST(G_FBUF, ENOTTY),
    V4L2_REQUEST(S_FBUF, ENOTTY),
    V4L2_REQUEST(OVERLAY, ENOTTY),
    V4L2_REQUEST(G_STD, ENOTTY),
    V4L2_REQUEST(S_STD, ENOTTY),
    V4L2_REQUEST(ENUMSTD, ENOTTY),
    V4L2_REQUEST(QUERYSTD, ENOTTY),
    V4L2_REQUEST(G_TUNER, ENOTTY),
    V4L2_REQUEST(S_TUNER, ENOTTY),
    V4L2_REQUEST(G_AUDIO, ENOTTY),
    V4L2_REQUEST(S_AUDIO, ENOTTY),
    V4L2_REQUEST(ENUMAUDIO, ENOTTY),
    V4L2_REQUEST(G_AUDOUT, ENOTTY),
    V4L2_REQUEST(S_AUDOUT, ENOTTY),
    V4L2_REQUEST(ENUMAUDOUT, ENOTTY),
    V4L2_REQUEST(G_MODULATOR, ENOTTY),
    V4L2_REQUEST(S_MODULATOR, ENOTTY),
    V4L2_REQUEST(G_FREQUENCY, ENOTTY),
    V4L2_REQUEST(S_FREQUENCY, ENOTTY),
    V4L2_REQUEST(S_HW_FREQ_SEEK, ENOTTY),
    V4L2_REQUEST(ENUM_FREQ_BANDS, ENOTTY),
    V4L2_REQUEST(CROPCAP, ENOTTY),
    V4L2_REQUEST(G_CROP, ENOTTY),
    V4L2_REQUEST(S_CROP, ENOTTY),
    V4L2_REQUEST(G_SELECTION, ENOTTY),
    V4L2_REQUEST(S_SELECTION, ENOTTY),
    V4L2_REQUEST(G_JPEGCOMP, ENOTTY),
    V4L2_REQUEST(S_JPEGCOMP, ENOTTY),
    V4L2_REQUEST(G_SLICED_VBI_CAP, ENOTTY),
    V4L2_REQUEST(G_ENC_INDEX, ENOTTY),
    V4L2_REQUEST(ENCODER_CMD, ENOTTY),
    V4L2_REQUEST(TRY_ENCODER_CMD, ENOTTY),
    V4L2_REQUEST(DECODER_CMD, ENOTTY),
    V4L2_REQUEST(TRY_DECODER_CMD, ENOTTY),
    V4L2_REQUEST(G_EDID, ENOTTY),
    V4L2_REQUEST(S_EDID, ENOTTY),
    V4L2_REQUEST(S_DV_TIMINGS, ENOTTY),
    V4L2_REQUEST(G_DV_TIMINGS, ENOTTY),
    V4L2_REQUEST(ENUM_DV_TIMINGS, ENOTTY),
    V4L2_REQUEST(QUERY_DV_TIMINGS, ENOTTY),
    V4L2_REQUEST(DV_TIMINGS_CAP, ENOTTY),
    V4L2_REQUEST(DBG_S_REGISTER, ENOTTY),
    V4L2_REQUEST(DBG_G_REGISTER, ENOTTY),
    V4L2_REQUEST(DBG_G_CHIP_INFO, ENOTTY),
};

#undef V4L2_REQUEST

inline const KnownRequest kControlRequests[] = {
    {kControlVersion, "VERSION", {0}},
    {kControlAdd, "ADD", {EINVAL, EEXIST, ENFILE}},
    {kControlRemove, "REMOVE", {EPERM, ENODEV, EBUSY}},
    {kControlQuery, "QUERY", {EINVAL, ENODEV}},
    {kControlRemoveByValue, "REMOVE_BY_VALUE", {EPERM, ENODEV, EBUSY}},
};

inline const KnownRequest* find_known(bool control, uint32_t request) {
  const auto search = [request](const auto& list) -> const KnownRequest* {
    for (const KnownRequest& known : list) {
      if (known.request == request) return &known;
    }
    return nullptr;
  };
  return control ? search(kControlRequests) : search(kDeviceRequests);
}

template <class Struct>
void put(uint8_t* bytes, const Struct& value) {
  memcpy(bytes, &value, sizeof value);
}

inline uint32_t stream_type(Random& random) {
  return random.chance(50) ? V4L2_BUF_TYPE_VIDEO_CAPTURE : V4L2_BUF_TYPE_VIDEO_OUTPUT;
}

inline uint32_t control_id(Random& random) {
  static const uint32_t kIds[] = {V4L2_CID_USER_CLASS,
                                  (V4L2_CID_USER_BASE | 0xf000) + 0,
                                  (V4L2_CID_USER_BASE | 0xf000) + 1,
                                  (V4L2_CID_USER_BASE | 0xf000) + 2,
                                  (V4L2_CID_USER_BASE | 0xf000) + 3,
                                  V4L2_CID_PRIVATE_BASE,
                                  V4L2_CID_PRIVATE_BASE + 3,
                                  V4L2_CID_BRIGHTNESS};
  return random.of(kIds) | (random.chance(20) ? V4L2_CTRL_FLAG_NEXT_CTRL : 0u);
}

inline v4l2_format right_format(Random& random, uint32_t type) {
  static const uint32_t kFourccs[] = {V4L2_PIX_FMT_YUYV, V4L2_PIX_FMT_NV12, V4L2_PIX_FMT_RGB24,
                                      V4L2_PIX_FMT_GREY, V4L2_PIX_FMT_MJPEG};
  v4l2_format format{};
  format.type = type;
  format.fmt.pix.width = 16 + random.below(49);
  format.fmt.pix.height = 8 + random.below(41);
  format.fmt.pix.pixelformat = random.of(kFourccs);
  format.fmt.pix.field = V4L2_FIELD_NONE;
  return format;
}

inline v4l2_buffer right_buffer(Random& random, uint32_t type) {
  v4l2_buffer buffer{};
  buffer.type = type;
  buffer.memory = V4L2_MEMORY_MMAP;
  buffer.index = random.below(4);
  buffer.field = V4L2_FIELD_NONE;
  if (random.chance(50)) buffer.bytesused = random.below(8192);
  return buffer;
}

// Writes an argument that makes sense; `controls` is an array that EXT_CTRLS may point to.
inline void make_right(uint32_t request, uint8_t* bytes, v4l2_ext_control* controls,
                       Random& random) {
  const uint32_t type = stream_type(random);
  switch (request) {
    case VIDIOC_ENUM_FMT: {
      v4l2_fmtdesc description{};
      description.index = random.below(60);
      description.type = type;
      return put(bytes, description);
    }
    case VIDIOC_G_FMT:
    case VIDIOC_S_FMT:
    case VIDIOC_TRY_FMT:
      return put(bytes, right_format(random, type));
    case VIDIOC_ENUM_FRAMESIZES: {
      v4l2_frmsizeenum sizes{};
      sizes.pixel_format = V4L2_PIX_FMT_YUYV;
      return put(bytes, sizes);
    }
    case VIDIOC_ENUM_FRAMEINTERVALS: {
      v4l2_frmivalenum intervals{};
      intervals.pixel_format = V4L2_PIX_FMT_YUYV;
      intervals.width = 64;
      intervals.height = 48;
      return put(bytes, intervals);
    }
    case VIDIOC_REQBUFS: {
      v4l2_requestbuffers wanted{};
      wanted.count = random.below(5);
      wanted.type = type;
      wanted.memory = V4L2_MEMORY_MMAP;
      return put(bytes, wanted);
    }
    case VIDIOC_CREATE_BUFS: {
      v4l2_create_buffers wanted{};
      wanted.count = random.below(3);
      wanted.memory = V4L2_MEMORY_MMAP;
      wanted.format = right_format(random, type);
      wanted.format.fmt.pix.sizeimage = 4096 + random.below(20000);
      return put(bytes, wanted);
    }
    case VIDIOC_QUERYBUF:
    case VIDIOC_PREPARE_BUF:
    case VIDIOC_QBUF:
    case VIDIOC_DQBUF:
      return put(bytes, right_buffer(random, type));
    case VIDIOC_STREAMON:
    case VIDIOC_STREAMOFF:
      return put(bytes, type);
    case VIDIOC_G_PARM:
    case VIDIOC_S_PARM: {
      v4l2_streamparm parm{};
      parm.type = type;
      parm.parm.output.timeperframe = {1, 1 + random.below(60)};
      return put(bytes, parm);
    }
    case VIDIOC_S_PRIORITY:
      return put(bytes, uint32_t{V4L2_PRIORITY_BACKGROUND} + random.below(3));
    case VIDIOC_QUERYCTRL:
    case VIDIOC_QUERYMENU:
    case VIDIOC_QUERY_EXT_CTRL:
      return put(bytes, control_id(random));
    case VIDIOC_G_CTRL:
    case VIDIOC_S_CTRL:
      return put(bytes, v4l2_control{control_id(random), static_cast<int32_t>(random.below(50))});
    case VIDIOC_G_EXT_CTRLS:
    case VIDIOC_S_EXT_CTRLS:
    case VIDIOC_TRY_EXT_CTRLS: {
      v4l2_ext_controls outer{};
      outer.which = random.chance(50) ? V4L2_CTRL_CLASS_USER : V4L2_CTRL_WHICH_CUR_VAL;
      outer.count = random.below(5);
      outer.controls = controls;
      for (uint32_t i = 0; i < outer.count; ++i) {
        v4l2_ext_control one{};
        one.id = control_id(random) & ~V4L2_CTRL_FLAG_NEXT_CTRL;
        one.value = static_cast<int32_t>(random.below(50));
        put(reinterpret_cast<uint8_t*>(controls + i), one);
      }
      return put(bytes, outer);
    }
    case VIDIOC_SUBSCRIBE_EVENT:
    case VIDIOC_UNSUBSCRIBE_EVENT: {
      static const uint32_t kEvents[] = {V4L2_EVENT_ALL, V4L2_EVENT_CTRL, V4L2_EVENT_SOURCE_CHANGE,
                                         V4L2_EVENT_EOS, V4L2_EVENT_PRIVATE_START + 0x08e00001};
      v4l2_event_subscription wanted{};
      wanted.type = random.of(kEvents);
      wanted.id = wanted.type == V4L2_EVENT_CTRL ? control_id(random) : random.below(2);
      wanted.flags = random.below(4);
      return put(bytes, wanted);
    }
    case kControlAdd:
    case kControlQuery: {
      ControlArgument wanted{};
      wanted.output_nr = wanted.capture_nr = random.chance(50) ? -1 : 50 + random.below(6);
      memcpy(wanted.card_label, "added", 5);
      wanted.announce_all_caps = random.below(2);
      wanted.max_openers = random.below(20);
      return put(bytes, wanted);
    }
    case kControlRemove:
      return put(bytes, uint32_t{50} + random.below(6));
  }
}
