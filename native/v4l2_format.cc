// Formats and frame rates. The producer rules the format; a consumer is told it.
#include <errno.h>
#include <string.h>

#include <algorithm>
#include <numeric>

#include "v4l2_device.h"

namespace loopback {

namespace {

bool is_output(uint32_t type) { return type == V4L2_BUF_TYPE_VIDEO_OUTPUT; }

bool supports(const Opener* opener, uint32_t type) {
  if (type == V4L2_BUF_TYPE_VIDEO_CAPTURE)
    return (opener->device_caps & V4L2_CAP_VIDEO_CAPTURE) != 0;
  return is_output(type) && (opener->device_caps & V4L2_CAP_VIDEO_OUTPUT) != 0;
}

constexpr uint32_t kMaxRate = 1000;  // Frames a second, either way up.

bool plausible_rate(uint32_t numerator, uint32_t denominator) {
  return numerator != 0 && denominator != 0 && numerator / denominator <= kMaxRate &&
         denominator / numerator <= kMaxRate;
}

}  // namespace

// Fixed while somebody else depends on it: a producer, who set it, or a reader that was delivered
// a frame.
bool V4l2Device::fixed_for(const Opener* opener) const {
  if (keep_format_ && format_.generation > 1) return true;
  return std::any_of(openers_.begin(), openers_.end(), [opener](const auto& other) {
    if (other.get() == opener) return other->producer != nullptr || other->output.streaming;
    return other->producer != nullptr || other->set_format || other->was_delivered;
  });
}

int V4l2Device::enum_fmt(Opener* opener, void* argument) {
  auto* description = static_cast<v4l2_fmtdesc*>(argument);
  const uint32_t type = description->type, index = description->index;
  if (!supports(opener, type)) return EINVAL;
  const PixelFormat* format;
  if (fixed()) {
    if (index != 0) return EINVAL;
    format = find_pixel_format(format_.fourcc);
  } else {
    if (index >= pixel_formats().size()) return EINVAL;
    format = &pixel_formats()[index];
  }
  memset(description, 0, sizeof *description);
  description->type = type;
  description->index = index;
  description->pixelformat = format->fourcc;
  if (format->compressed) description->flags = V4L2_FMT_FLAG_COMPRESSED;
  strncpy(reinterpret_cast<char*>(description->description), format->description,
          sizeof description->description - 1);
  return 0;
}

int V4l2Device::enum_framesizes(Opener*, void* argument) {
  auto* sizes = static_cast<v4l2_frmsizeenum*>(argument);
  const uint32_t index = sizes->index, fourcc = sizes->pixel_format;
  if (index != 0 || find_pixel_format(fourcc) == nullptr) return EINVAL;
  const bool is_fixed = fixed();
  if (is_fixed && fourcc != format_.fourcc) return EINVAL;
  memset(sizes, 0, sizeof *sizes);
  sizes->index = index;
  sizes->pixel_format = fourcc;
  if (is_fixed) {
    sizes->type = V4L2_FRMSIZE_TYPE_DISCRETE;
    sizes->discrete = {format_.width, format_.height};
  } else {
    sizes->type = V4L2_FRMSIZE_TYPE_CONTINUOUS;
    sizes->stepwise = {setup_.min_width,  setup_.max_width,  1,
                       setup_.min_height, setup_.max_height, 1};
  }
  return 0;
}

int V4l2Device::enum_frameintervals(Opener*, void* argument) {
  auto* intervals = static_cast<v4l2_frmivalenum*>(argument);
  const v4l2_frmivalenum asked = *intervals;
  if (asked.index != 0 || find_pixel_format(asked.pixel_format) == nullptr) return EINVAL;
  const bool is_fixed = fixed();
  if (is_fixed) {
    if (asked.pixel_format != format_.fourcc || asked.width != format_.width ||
        asked.height != format_.height)
      return EINVAL;
  } else if (asked.width < setup_.min_width || asked.width > setup_.max_width ||
             asked.height < setup_.min_height || asked.height > setup_.max_height) {
    return EINVAL;
  }
  memset(intervals, 0, sizeof *intervals);
  intervals->index = asked.index;
  intervals->pixel_format = asked.pixel_format;
  intervals->width = asked.width;
  intervals->height = asked.height;
  if (is_fixed) {
    intervals->type = V4L2_FRMIVAL_TYPE_DISCRETE;
    intervals->discrete = {rate_denominator_, rate_numerator_};
  } else {
    intervals->type = V4L2_FRMIVAL_TYPE_CONTINUOUS;
    intervals->stepwise.min = {1, kMaxRate};
    intervals->stepwise.max = {kMaxRate, 1};
    intervals->stepwise.step = {1, 1};
  }
  return 0;
}

void V4l2Device::describe(const DeviceFormat& format, v4l2_pix_format* pix) const {
  memset(pix, 0, sizeof *pix);
  pix->width = format.width;
  pix->height = format.height;
  pix->pixelformat = format.fourcc;
  pix->field = V4L2_FIELD_NONE;
  pix->bytesperline = format.bytesperline;
  pix->sizeimage = format.sizeimage;
  pix->colorspace = format.colorspace;
  pix->priv = V4L2_PIX_FMT_PRIV_MAGIC;
  pix->ycbcr_enc = format.ycbcr_enc;
  pix->quantization = format.quantization;
  pix->xfer_func = format.xfer_func;
}

// Bad values never fail, they are replaced.
DeviceFormat V4l2Device::replaced(const v4l2_pix_format& wanted, bool output) const {
  DeviceFormat next = format_;
  const PixelFormat* format = find_pixel_format(wanted.pixelformat);
  if (format == nullptr) format = find_pixel_format(format_.fourcc);
  next.fourcc = format->fourcc;
  next.width = wanted.width == 0 ? format_.width : wanted.width;
  next.height = wanted.height == 0 ? format_.height : wanted.height;
  next.width = std::clamp(next.width, setup_.min_width, setup_.max_width);
  next.height = std::clamp(next.height, setup_.min_height, setup_.max_height);
  // Two frames must fit into the ring at its largest, and a buffer into 32 bits.
  const uint64_t most = std::min<uint64_t>(ring_->largest_frame(), UINT32_MAX / 4);
  while (sizeimage(*format, next.width, next.height) > most) {
    if (next.height > setup_.min_height && next.height >= next.width / 2)
      next.height = std::max(setup_.min_height, next.height / 2);
    else if (next.width > setup_.min_width)
      next.width = std::max(setup_.min_width, next.width / 2);
    else if (next.height > setup_.min_height)
      next.height = std::max(setup_.min_height, next.height / 2);
    else
      return format_;  // Not even the least of the device's sizes fits in that format.
  }
  next.bytesperline = bytes_per_line(*format, next.width);
  next.sizeimage = static_cast<uint32_t>(sizeimage(*format, next.width, next.height));
  if (output) {
    next.colorspace = wanted.colorspace;
    const bool has_colours = wanted.priv == V4L2_PIX_FMT_PRIV_MAGIC;
    next.ycbcr_enc = has_colours ? wanted.ycbcr_enc : 0;
    next.quantization = has_colours ? wanted.quantization : 0;
    next.xfer_func = has_colours ? wanted.xfer_func : 0;
    if (next.colorspace == V4L2_COLORSPACE_DEFAULT || next.colorspace > V4L2_COLORSPACE_DCI_P3)
      next.colorspace = V4L2_COLORSPACE_SRGB;
    if (next.ycbcr_enc > V4L2_YCBCR_ENC_SMPTE240M) next.ycbcr_enc = 0;
    if (next.quantization > V4L2_QUANTIZATION_LIM_RANGE) next.quantization = 0;
    if (next.xfer_func > V4L2_XFER_FUNC_SMPTE2084) next.xfer_func = 0;
  }
  return next;
}

int V4l2Device::g_fmt(Opener* opener, void* argument) {
  auto* format = static_cast<v4l2_format*>(argument);
  const uint32_t type = format->type;
  if (!supports(opener, type)) return EINVAL;
  memset(format, 0, sizeof *format);
  format->type = type;
  describe(format_, &format->fmt.pix);
  return 0;
}

int V4l2Device::try_fmt(Opener* opener, void* argument) {
  auto* format = static_cast<v4l2_format*>(argument);
  if (!supports(opener, format->type)) return EINVAL;
  const bool output = is_output(format->type);
  const bool keep = !output || fixed_for(opener);
  describe(keep ? format_ : replaced(format->fmt.pix, output), &format->fmt.pix);
  return 0;
}

int V4l2Device::s_fmt(Opener* opener, void* argument) {
  auto* format = static_cast<v4l2_format*>(argument);
  const uint32_t type = format->type;
  if (!supports(opener, type)) return EINVAL;
  if (!is_output(type)) {
    // A reader is always answered with the device's format: it fixes nothing.
    describe(format_, &format->fmt.pix);
    return 0;
  }
  const v4l2_pix_format wanted = format->fmt.pix;
  const DeviceFormat next = replaced(wanted, true);
  if (!next.same_picture(format_)) {
    if (fixed_for(opener)) {
      // Only what could have been granted is refused; an impossible wish is replaced.
      const bool possible = find_pixel_format(wanted.pixelformat) != nullptr &&
                            wanted.width == next.width && wanted.height == next.height;
      if (possible) return EBUSY;
      describe(format_, &format->fmt.pix);
      return 0;
    }
    if (opener->has_buffers()) return EBUSY;
    change_format(next, opener);
  } else if (!fixed_for(opener)) {
    // The same picture in other colours: nothing that is under way breaks.
    const uint64_t generation = format_.generation;
    format_ = next;
    format_.generation = std::max<uint64_t>(generation, 2);
  } else if (format_.generation == 1) {
    format_.generation = 2;
  }
  opener->set_format = true;
  describe(format_, &format->fmt.pix);
  return 0;
}

void V4l2Device::change_format(const DeviceFormat& next, Opener* by) {
  const uint64_t generation = format_.generation + 1;
  format_ = next;
  format_.generation = generation;
  timeout_image_.clear();
  for (auto& opener : openers_) opener->timeout_part.clear();
  ring_->set_sizeimage(format_.sizeimage, monotonic_now());
  break_streams(by);
}

int V4l2Device::g_parm(Opener* opener, void* argument) {
  auto* parm = static_cast<v4l2_streamparm*>(argument);
  const uint32_t type = parm->type;
  if (!supports(opener, type)) return EINVAL;
  memset(parm, 0, sizeof *parm);
  parm->type = type;
  const v4l2_fract interval = {rate_denominator_, rate_numerator_};
  if (is_output(type)) {
    parm->parm.output.capability = V4L2_CAP_TIMEPERFRAME;
    parm->parm.output.timeperframe = interval;
    parm->parm.output.writebuffers = 2;
  } else {
    parm->parm.capture.capability = V4L2_CAP_TIMEPERFRAME;
    parm->parm.capture.timeperframe = interval;
    parm->parm.capture.readbuffers = 2;
  }
  return 0;
}

int V4l2Device::s_parm(Opener* opener, void* argument) {
  auto* parm = static_cast<v4l2_streamparm*>(argument);
  if (!supports(opener, parm->type)) return EINVAL;
  // As the format, the rate is the producer's to rule.
  if (is_output(parm->type)) {
    const v4l2_fract wanted = parm->parm.output.timeperframe;
    if (!set_rate(wanted.denominator, wanted.numerator)) set_rate(30, 1);
  }
  return g_parm(opener, argument);
}

bool V4l2Device::set_rate(uint32_t numerator, uint32_t denominator) {
  if (!plausible_rate(numerator, denominator)) return false;
  const uint32_t divisor = std::gcd(numerator, denominator);
  rate_numerator_ = numerator / divisor;
  rate_denominator_ = denominator / divisor;
  return true;
}

std::string V4l2Device::format_text() const {
  const bool in_use = std::any_of(openers_.begin(), openers_.end(), [](const auto& opener) {
    return opener->producer != nullptr || opener->consumer != nullptr || opener->streams();
  });
  if (!in_use && !(keep_format_ && format_.generation > 1)) return "";
  std::string text = fourcc_text(format_.fourcc) + ":" + std::to_string(format_.width) + "x" +
                     std::to_string(format_.height) + "@" + std::to_string(rate_numerator_);
  if (rate_denominator_ != 1) text += "/" + std::to_string(rate_denominator_);
  return text;
}

}  // namespace loopback
