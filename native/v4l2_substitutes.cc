// What a reader gets when no frame comes: the last one again (sustain_framerate), or the timeout
// image (timeout), which is black until timeout_image_io stored another.
#include "v4l2_device.h"

namespace loopback {

V4l2Device::Substitute V4l2Device::substitute_due(const Opener* opener, Nanoseconds now,
                                                  Nanoseconds* due_at) const {
  if (opener->consumer == nullptr) return Substitute::kNone;
  if (timeout_ms_ > 0) {
    const Nanoseconds due = opener->last_delivery + timeout_ms_ * kMillisecond;
    if (now >= due) return Substitute::kTimeoutImage;
    *due_at = due;
  }
  if (sustain_framerate_ && ring_->has_newest()) {
    const Nanoseconds due = opener->last_delivery + frame_interval();
    if (now >= due) return Substitute::kRepeat;
    *due_at = std::min(*due_at, due);
  }
  return Substitute::kNone;
}

// Or the next frame, where the housekeeper has just published one that waited for room.
const Frame* V4l2Device::repeat_newest(Opener* opener, Nanoseconds now, bool* repeated) {
  const Frame* frame = ring_->repeat(opener->consumer, now);
  *repeated = frame != nullptr;
  return *repeated ? frame : ring_->take(opener->consumer, now);
}

const std::vector<uint8_t>& V4l2Device::timeout_image() {
  if (timeout_image_.size() != format_.sizeimage) timeout_image_.assign(format_.sizeimage, 0);
  return timeout_image_;
}

void V4l2Device::store_timeout_image(Piece image) {
  timeout_image_.assign(image.data, image.data + image.size);
  timeout_image_.resize(format_.sizeimage);
}

}  // namespace loopback
