// The inode number of a device file. A FUSE mount cannot show a character device; who wants to tell
// ours from other files, and which device they are, reads it off this number.
//
//   63      48 47     36 35      16 15       0
//   ┌─────────┬─────────┬──────────┬──────────┐
//   │ 0x4c32  │ major   │ minor    │ number   │   number: of /dev/videoN
//   └─────────┴─────────┴──────────┴──────────┘
#pragma once

#include <cstdint>
#include <optional>

namespace loopback {

constexpr uint64_t kDeviceInodeMark = 0x4c32;
constexpr uint32_t kVideoMajor = 81;

struct DeviceInode {
  uint32_t major = kVideoMajor;
  uint32_t minor = 0;
  uint32_t number = 0;
};

constexpr uint64_t to_inode(const DeviceInode& device) {
  return kDeviceInodeMark << 48 | static_cast<uint64_t>(device.major & 0xfff) << 36 |
         static_cast<uint64_t>(device.minor & 0xfffff) << 16 | (device.number & 0xffff);
}

/// Nothing where the number carries no mark of ours.
constexpr std::optional<DeviceInode> from_inode(uint64_t inode) {
  if (inode >> 48 != kDeviceInodeMark) return std::nullopt;
  return DeviceInode{static_cast<uint32_t>(inode >> 36 & 0xfff),
                     static_cast<uint32_t>(inode >> 16 & 0xfffff),
                     static_cast<uint32_t>(inode & 0xffff)};
}

static_assert(from_inode(to_inode({81, 0xfffff, 65535}))->minor == 0xfffff);
static_assert(!from_inode(1000).has_value());

}  // namespace loopback
