// The ids of upstream v4l2loopback's controls, and what is said of each.
#pragma once

#include <linux/videodev2.h>

#include <cstdint>

namespace loopback {

inline constexpr uint32_t kKeepFormat = (V4L2_CID_USER_BASE | 0xf000) + 0;
inline constexpr uint32_t kSustainFramerate = (V4L2_CID_USER_BASE | 0xf000) + 1;
inline constexpr uint32_t kTimeout = (V4L2_CID_USER_BASE | 0xf000) + 2;
inline constexpr uint32_t kTimeoutImageIo = (V4L2_CID_USER_BASE | 0xf000) + 3;

struct ControlDescription {
  uint32_t id;
  const char* name;
  uint32_t type;
  int32_t minimum, maximum, step, initial;
  uint32_t flags;
};

/// nullptr: no such control. By its own id alone, not by the private one.
const ControlDescription* find_control(uint32_t id);

}  // namespace loopback
