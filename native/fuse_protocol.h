// The kernel's FUSE protocol, and what the copy of <linux/fuse.h> that Debian 12 ships (protocol
// 7.38) does not have yet. The numbers are those of Linux 6.9 and later (protocol 7.40 and up).
#pragma once

#include <linux/fuse.h>
#include <sys/ioctl.h>

#include <cstddef>
#include <cstdint>

// Bits 32 and up of INIT's flags travel in `flags2`, which counts only with FUSE_INIT_EXT.
#ifndef FUSE_INIT_EXT
#define FUSE_INIT_EXT (1 << 30)  // 7.36, Linux 5.17
#endif
#ifndef FUSE_DIRECT_IO_ALLOW_MMAP
#define FUSE_DIRECT_IO_ALLOW_MMAP (1ULL << 36)  // 7.39, Linux 6.6
#endif
#ifndef FUSE_PASSTHROUGH
#define FUSE_PASSTHROUGH (1ULL << 37)  // 7.40, Linux 6.9
#endif
#ifndef FUSE_NO_EXPORT_SUPPORT
#define FUSE_NO_EXPORT_SUPPORT (1ULL << 38)  // 7.40
#endif

#ifndef FOPEN_NOFLUSH
#define FOPEN_NOFLUSH (1 << 5)  // 7.35, Linux 5.16
#endif
#ifndef FOPEN_PARALLEL_DIRECT_WRITES
#define FOPEN_PARALLEL_DIRECT_WRITES (1 << 6)  // 7.37, Linux 6.2
#endif
#ifndef FOPEN_PASSTHROUGH
#define FOPEN_PASSTHROUGH (1 << 7)  // 7.40
#endif

namespace loopback {

/// fuse_init_out of protocol 7.40 and later; 64 bytes as ever since 7.23. The kernel reads
/// `max_stack_depth` where older headers have `unused[0]`.
struct WireInitOut {
  uint32_t major;
  uint32_t minor;
  uint32_t max_readahead;
  uint32_t flags;
  uint16_t max_background;
  uint16_t congestion_threshold;
  uint32_t max_write;
  uint32_t time_gran;
  uint16_t max_pages;
  uint16_t map_alignment;
  uint32_t flags2;
  uint32_t max_stack_depth;  // 7.40: 1 lets a backing file lie on a plain file system.
  uint16_t request_timeout;  // 7.43
  uint16_t unused[11];
};
static_assert(sizeof(WireInitOut) == 64 && sizeof(WireInitOut) == sizeof(fuse_init_out));
static_assert(offsetof(WireInitOut, flags2) == offsetof(fuse_init_out, flags2));
static_assert(offsetof(WireInitOut, max_stack_depth) == 36);

/// fuse_open_out of protocol 7.40: what was padding names the backing file.
struct WireOpenOut {
  uint64_t fh;
  uint32_t open_flags;
  int32_t backing_id;
};
static_assert(sizeof(WireOpenOut) == 16 && sizeof(WireOpenOut) == sizeof(fuse_open_out));

/// fuse_backing_map of protocol 7.40: the argument of kBackingOpen.
struct WireBackingMap {
  int32_t fd;
  uint32_t flags;
  uint64_t padding;
};
static_assert(sizeof(WireBackingMap) == 16);

inline constexpr unsigned kFuseIoctlType = 229;  // FUSE_DEV_IOC_MAGIC

/// ioctl(2) requests on the session's descriptor: FUSE_DEV_IOC_BACKING_OPEN returns the id.
inline constexpr unsigned long kBackingOpen = _IOW(kFuseIoctlType, 1, WireBackingMap);
/// FUSE_DEV_IOC_BACKING_CLOSE takes a pointer to the id.
inline constexpr unsigned long kBackingClose = _IOW(kFuseIoctlType, 2, uint32_t);
static_assert(kBackingOpen == 0x4010e501 && kBackingClose == 0x4004e502);

// Where a request's payload begins, counted from its first byte.
static_assert(sizeof(fuse_in_header) == 40);
inline constexpr size_t kWriteHeaderBytes = sizeof(fuse_in_header) + sizeof(fuse_write_in);
inline constexpr size_t kIoctlHeaderBytes = sizeof(fuse_in_header) + sizeof(fuse_ioctl_in);
static_assert(kWriteHeaderBytes == 80 && kIoctlHeaderBytes == 72);

}  // namespace loopback
