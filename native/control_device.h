// The control device `dev/v4l2loopback`: devices are added, removed and asked about while the mount
// lives. The numbers and the struct are upstream v4l2loopback's, since version 0.14; tools that
// know them work unchanged.
#pragma once

#include <linux/ioctl.h>

#include <cstdint>

#include "device_inode.h"

namespace loopback {

constexpr char kControlName[] = "v4l2loopback";
/// A misc device upstream; minor 124 in golden/sysfs.md. It has no number.
constexpr DeviceInode kControlInode{10, 124, 0xffff};
/// What the VERSION ioctl tells: 0.15.0, as KERNEL_VERSION packs it.
constexpr uint32_t kModuleVersion = 0 << 16 | 15 << 8 | 0;

struct ControlConfig {
  int32_t output_nr = -1;  // Below 0 in ADD: the first free number.
  int32_t capture_nr = -1;
  char card_label[32]{};  // Empty: one is made up.
  // Zero, or less, leaves each of these to its default.
  uint32_t min_width = 0, max_width = 0;
  uint32_t min_height = 0, max_height = 0;
  int32_t max_buffers = 0;
  int32_t max_openers = 0;
  int32_t debug = 0;
  int32_t announce_all_caps = 1;  // 0: exclusive_caps.
};
static_assert(sizeof(ControlConfig) == 72);

constexpr unsigned kControlVersion = _IOR('~', 0, uint32_t);
constexpr unsigned kControlAdd = _IOW('~', 1, ControlConfig);
constexpr unsigned kControlRemove = _IOW('~', 2, uint32_t);
constexpr unsigned kControlQuery = _IOWR('~', 3, ControlConfig);
/// Before 0.14, and Debian 12's v4l2loopback-ctl: NULL asks for a device with defaults (the struct
/// had another layout, and is refused); the number to remove is the argument itself.
constexpr unsigned kControlAddByDefaults = 0x4C80;
constexpr unsigned kControlRemoveByValue = 0x4C81;

/// What must be done by whoever has the list of devices, and answered with
/// FuseSession::answer_control.
struct ControlCall {
  uint64_t ticket = 0;
  bool adds = false;  // Else it removes `config.output_nr`.
  ControlConfig config;
};

}  // namespace loopback
