#include "memory_headroom.h"

#include "check.h"
#include "slots.h"
#include "temporary_directory.h"

using namespace loopback;

namespace {

constexpr uint64_t kMiB = 1024 * 1024;
constexpr uint64_t kGiB = 1024 * kMiB;

std::string mib(uint64_t count) { return std::to_string(count * kMiB) + "\n"; }

// A machine of 64 GiB with 32 GiB available, and nothing else that limits.
struct Machine {
  TemporaryDirectory files;
  MemoryRoots roots;

  Machine() {
    roots.prefix = files.path();
    roots.meminfo = files.write("meminfo",
                                "MemTotal:       67108864 kB\n"
                                "MemFree:         1048576 kB\n"
                                "MemAvailable:   33554432 kB\n"
                                "CommitLimit:     4194304 kB\n"
                                "Committed_AS:    3145728 kB\n");
    roots.overcommit = files.write("overcommit", "0\n");
    roots.status = files.write("status", "VmSize:\t  102400 kB\nVmData:\t   51200 kB\n");
    roots.cgroup = files.write("cgroup", "");
    roots.mountinfo = files.write("mountinfo", "");
  }
  void unified(const std::string& path, const std::string& mount_root = "/") {
    files.write("cgroup", "0::" + path + "\n");
    files.write("mountinfo", "20 1 8:1 / / rw - ext4 /dev/sda1 rw\n35 20 0:30 " + mount_root +
                                 " /cg rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n");
  }
  void legacy(const std::string& path, const std::string& mount_root = "/") {
    files.write("cgroup", "5:devices:/\n4:cpuset,memory:" + path + "\n0::/\n");
    files.write("mountinfo",
                "34 31 0:31 / /cg/devices rw - cgroup cgroup rw,devices\n"
                "35 31 0:32 " +
                    mount_root +
                    " /cg/mem\\040ory rw shared:9 - cgroup cgroup rw,cpuset,memory\n"
                    "41 31 0:38 / /cg/unified rw - cgroup2 cgroup2 rw\n");
  }
};

}  // namespace

TEST(headroomOfAFreeMachineIsMemAvailableLessAMargin) {
  const Machine machine;
  const Headroom headroom = memory_headroom_in(machine.roots);
  CHECK_EQ(headroom.bytes, 32 * kGiB - 256 * kMiB);
  CHECK_EQ(headroom.limited_by, "MemAvailable");
  CHECK_EQ(memory_total_in(machine.roots), 64 * kGiB);
}

TEST(headroomCountsStrictOvercommit) {
  const Machine machine;
  machine.files.write("overcommit", "2\n");
  const Headroom headroom = memory_headroom_in(machine.roots);
  CHECK_EQ(headroom.bytes, 1 * kGiB);
  CHECK_EQ(headroom.limited_by, "CommitLimit");
}

TEST(headroomOfAUnifiedCgroupLeavesOutReclaimableCache) {
  Machine machine;
  machine.unified("/a/b");
  machine.files.write("cg/a/b/memory.max", mib(1024));
  machine.files.write("cg/a/b/memory.high", "max\n");
  machine.files.write("cg/a/b/memory.current", mib(512));
  machine.files.write("cg/a/b/memory.stat", "anon 5\nactive_file 7\ninactive_file " + mib(256));
  const Headroom headroom = memory_headroom_in(machine.roots);
  CHECK_EQ(headroom.bytes, (1024 - 512 + 256 - 32) * kMiB);
  CHECK_EQ(headroom.limited_by, "memory.max of " + machine.files.path() + "/cg/a/b");
  CHECK_EQ(memory_total_in(machine.roots), 1 * kGiB);
}

TEST(headroomIsThatOfTheTightestCgroupAboveUs) {
  Machine machine;
  machine.unified("/a/b");
  machine.files.write("cg/a/b/memory.max", "max\n");
  machine.files.write("cg/a/b/memory.current", mib(5));
  machine.files.write("cg/a/memory.max", mib(300));
  machine.files.write("cg/a/memory.current", mib(100));
  const Headroom headroom = memory_headroom_in(machine.roots);
  CHECK(headroom.bytes < 200 * kMiB && headroom.bytes > 150 * kMiB);
  CHECK_EQ(headroom.limited_by, "memory.max of " + machine.files.path() + "/cg/a");
  CHECK_EQ(memory_total_in(machine.roots), 300 * kMiB);
}

TEST(headroomHeedsMemoryHigh) {
  Machine machine;
  machine.unified("/a");
  machine.files.write("cg/a/memory.max", mib(1000));
  machine.files.write("cg/a/memory.high", mib(200));
  machine.files.write("cg/a/memory.current", mib(100));
  const Headroom headroom = memory_headroom_in(machine.roots);
  CHECK(headroom.bytes < 100 * kMiB);
  CHECK_EQ(headroom.limited_by, "memory.high of " + machine.files.path() + "/cg/a");
  CHECK_EQ(memory_total_in(machine.roots), 1000 * kMiB);
}

TEST(headroomIsZeroWhereTheCgroupIsFull) {
  Machine machine;
  machine.unified("/a");
  machine.files.write("cg/a/memory.max", mib(100));
  machine.files.write("cg/a/memory.current", mib(120));
  CHECK_EQ(memory_headroom_in(machine.roots).bytes, 0u);
}

TEST(headroomOfALegacyCgroup) {
  Machine machine;
  machine.legacy("/docker/x");
  const std::string memory = "cg/mem ory";
  machine.files.write(memory + "/docker/x/memory.limit_in_bytes", mib(512));
  machine.files.write(memory + "/docker/x/memory.usage_in_bytes", mib(400));
  machine.files.write(memory + "/docker/x/memory.stat",
                      "inactive_file 1\ntotal_inactive_file " + mib(88));
  machine.files.write(memory + "/memory.limit_in_bytes", "9223372036854771712\n");
  machine.files.write(memory + "/memory.usage_in_bytes", mib(900));
  const Headroom headroom = memory_headroom_in(machine.roots);
  CHECK_EQ(headroom.bytes, (512 - 400 + 88 - 32) * kMiB);
  CHECK_EQ(headroom.limited_by,
           "memory.limit_in_bytes of " + machine.files.path() + "/" + memory + "/docker/x");
  CHECK_EQ(memory_total_in(machine.roots), 512 * kMiB);
}

TEST(headroomInAContainerThatSeesOnlyItsOwnCgroup) {
  Machine machine;
  machine.unified("/docker/x/y", "/docker/x");
  machine.files.write("cg/y/memory.max", mib(256));
  machine.files.write("cg/y/memory.current", mib(10));
  CHECK_EQ(memory_total_in(machine.roots), 256 * kMiB);
  // A path beyond the mount's root: the mount's root is the nearest that can be seen.
  machine.unified("/../elsewhere", "/");
  machine.files.write("cg/memory.max", mib(128));
  machine.files.write("cg/memory.current", mib(10));
  CHECK_EQ(memory_total_in(machine.roots), 128 * kMiB);
  machine.unified("/docker/xy", "/docker/x");
  CHECK_EQ(memory_total_in(machine.roots), 128 * kMiB);
}

TEST(headroomHeedsResourceLimits) {
  Machine machine;
  machine.roots.rlimit_data = 150 * kMiB;
  CHECK_EQ(memory_headroom_in(machine.roots).bytes + kProcessReserve, 100 * kMiB);
  CHECK_EQ(memory_headroom_in(machine.roots).limited_by, "RLIMIT_DATA");
  machine.roots.rlimit_address_space = 140 * kMiB;
  CHECK_EQ(memory_headroom_in(machine.roots).bytes + kProcessReserve, 40 * kMiB);
  CHECK_EQ(memory_headroom_in(machine.roots).limited_by, "RLIMIT_AS");
}

TEST(headroomDoesWithoutAnythingThatIsMissing) {
  const TemporaryDirectory empty;
  MemoryRoots roots;
  roots.prefix = empty.path();
  roots.meminfo = roots.cgroup = roots.mountinfo = roots.status = roots.overcommit =
      empty.path() + "/missing";
  CHECK_EQ(memory_headroom_in(roots).bytes, INT64_MAX);
  CHECK_EQ(memory_headroom_in(roots).limited_by, "nothing");
  CHECK_EQ(memory_total_in(roots), INT64_MAX);
  roots.meminfo = empty.write("meminfo", "MemTotal: many kB\ngarbage\n\n:\n");
  roots.cgroup = empty.write("cgroup", "garbage\n:\n::\n0:\n1:memory\n");
  roots.mountinfo = empty.write("mountinfo", "1 2 3\n35 20 0:30 / /cg rw - cgroup2\n- - -\n");
  CHECK_EQ(memory_headroom_in(roots).bytes, INT64_MAX);
}

TEST(headroomOfThisMachineIsBelowItsMemory) {
  const Headroom headroom = memory_headroom();
  CHECK(headroom.bytes < memory_total());
  CHECK(headroom.limited_by != "nothing");
}
