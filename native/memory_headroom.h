#pragma once

#include <cstdint>
#include <string>

namespace loopback {

/// Where the system's figures are read. Tests give a tree of their own.
struct MemoryRoots {
  std::string meminfo = "/proc/meminfo";
  std::string cgroup = "/proc/self/cgroup";
  std::string mountinfo = "/proc/self/mountinfo";
  /// For what the process holds already, against RLIMIT_DATA and RLIMIT_AS.
  std::string status = "/proc/self/status";
  std::string overcommit = "/proc/sys/vm/overcommit_memory";
  /// Put before every mount point that `mountinfo` names.
  std::string prefix = "";
  /// Bytes; what getrlimit(2) says counts as well.
  uint64_t rlimit_data = UINT64_MAX;
  uint64_t rlimit_address_space = UINT64_MAX;
};

struct Headroom {
  uint64_t bytes;
  /// What sets the bound: "memory.max of /sys/fs/cgroup/x", "MemAvailable", "RLIMIT_DATA".
  std::string limited_by;
};

/// Bytes that may still be committed before the system refuses or kills: the least of MemAvailable
/// (less a margin), what every cgroup above us (v1 memory and v2) has left, and what RLIMIT_DATA
/// and RLIMIT_AS leave. What cannot be read does not limit, and nothing at all reads
/// as INT64_MAX; never fails. Opens a handful of files:
/// some 100 µs, so not for every frame.
Headroom memory_headroom();
/// The same, read from elsewhere.
Headroom memory_headroom_in(const MemoryRoots& roots);

/// Bytes of memory of the machine or, where that is less, of the tightest cgroup above us;
/// INT64_MAX where nothing tells.
uint64_t memory_total();
uint64_t memory_total_in(const MemoryRoots& roots);

}  // namespace loopback
