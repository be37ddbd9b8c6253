#include "memory_headroom.h"

#include <sys/resource.h>

#include <algorithm>
#include <charconv>
#include <fstream>
#include <optional>
#include <sstream>
#include <vector>

#include "slots.h"

namespace loopback {
namespace {

constexpr uint64_t kMiB = 1024 * 1024;
// v1 has no word for "unlimited": it shows the largest number of whole pages.
constexpr uint64_t kUnlimited = uint64_t{1} << 62;

std::optional<uint64_t> parse_number(const std::string& text) {
  uint64_t value = 0;
  const char* begin = text.data();
  const auto [end, error] = std::from_chars(begin, begin + text.size(), value);
  if (error != std::errc() || end == begin) return std::nullopt;
  return value;
}

// The first word of a file that holds one number; "max" is no number and so no limit.
std::optional<uint64_t> number_in(const std::string& path) {
  std::ifstream file(path);
  std::string word;
  if (!(file >> word)) return std::nullopt;
  return parse_number(word);
}

// The number behind `key` in a file of lines such as "key 123" or "Key:  123 kB".
std::optional<uint64_t> number_after(const std::string& path, const std::string& key) {
  std::ifstream file(path);
  std::string line;
  while (std::getline(file, line)) {
    std::istringstream words(line);
    std::string name, value, unit;
    if (!(words >> name >> value) || name != key) continue;
    const std::optional<uint64_t> number = parse_number(value);
    if (!number) return std::nullopt;
    return words >> unit && unit == "kB" ? *number * 1024 : *number;
  }
  return std::nullopt;
}

uint64_t less(uint64_t from, uint64_t amount) { return from > amount ? from - amount : 0; }

// Somebody else allocates too between our look and our first touch.
uint64_t system_margin(uint64_t total) { return std::clamp(total / 32, 16 * kMiB, 256 * kMiB); }
// The rest of our process needs some of it too.
uint64_t cgroup_margin(uint64_t limit) {
  return std::clamp<uint64_t>(limit / 32, kProcessReserve, 64 * kMiB);
}

struct CgroupDirectory {
  std::string path;
  bool unified;  // v2
};

// mountinfo writes blanks, tabs, newlines and backslashes as \ooo.
std::string unescape(const std::string& field) {
  const auto octal = [](char c) { return c >= '0' && c <= '7'; };
  std::string plain;
  for (size_t i = 0; i < field.size(); ++i) {
    if (field[i] == '\\' && i + 3 < field.size() && octal(field[i + 1]) && octal(field[i + 2]) &&
        octal(field[i + 3])) {
      plain += static_cast<char>((field[i + 1] - '0') * 64 + (field[i + 2] - '0') * 8 +
                                 (field[i + 3] - '0'));
      i += 3;
    } else {
      plain += field[i];
    }
  }
  return plain;
}

bool has_item(const std::string& list, const std::string& item) {
  std::istringstream items(list);
  std::string each;
  while (std::getline(items, each, ',')) {
    if (each == item) return true;
  }
  return false;
}

// Our path in the hierarchy, as /proc/self/cgroup has it: "4:memory:/a/b" in v1, "0::/a/b" in v2.
std::optional<std::string> path_in_hierarchy(const std::string& file_path, bool unified) {
  std::ifstream file(file_path);
  std::string line;
  while (std::getline(file, line)) {
    const size_t first = line.find(':');
    const size_t second = first == std::string::npos ? first : line.find(':', first + 1);
    if (second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    if (unified ? controllers.empty() : has_item(controllers, "memory")) {
      return line.substr(second + 1);
    }
  }
  return std::nullopt;
}

// From our own cgroup up to the topmost that is visible here.
void append_directories(const MemoryRoots& roots, const std::string& mount_root,
                        const std::string& mount_point, bool unified,
                        std::vector<CgroupDirectory>& directories) {
  const std::optional<std::string> path = path_in_hierarchy(roots.cgroup, unified);
  if (!path) return;
  const std::string top = roots.prefix + mount_point;
  // Only what lies below the mount's root can be seen. A path outside (a cgroup namespace shows
  // it as "/../…") leaves the mount's root as the best there is.
  std::string below;
  const std::string root = mount_root == "/" ? "" : mount_root;
  const bool inside = path->compare(0, root.size(), root) == 0 &&
                      (path->size() == root.size() || (*path)[root.size()] == '/') &&
                      path->find("/..") == std::string::npos;
  if (inside) below = path->substr(root.size());
  while (!below.empty() && below.back() == '/') below.pop_back();
  while (!below.empty()) {
    directories.push_back({top + below, unified});
    below.resize(below.rfind('/'));
  }
  directories.push_back({top, unified});
}

std::vector<CgroupDirectory> cgroup_directories(const MemoryRoots& roots) {
  std::vector<CgroupDirectory> directories;
  std::ifstream file(roots.mountinfo);
  std::string line;
  bool seen[2] = {false, false};  // The same hierarchy may be mounted at several places.
  while (std::getline(file, line)) {
    // 36 35 98:0 /root /mount/point options… - type source super-options
    std::istringstream words(line);
    std::string id, parent, device, root, point, word, type, source, options;
    if (!(words >> id >> parent >> device >> root >> point)) continue;
    while (words >> word && word != "-") {
    }
    if (!(words >> type >> source >> options)) continue;
    const bool unified = type == "cgroup2";
    if (!unified && !(type == "cgroup" && has_item(options, "memory"))) continue;
    if (seen[unified]) continue;
    seen[unified] = true;
    append_directories(roots, unescape(root), unescape(point), unified, directories);
  }
  return directories;
}

struct Limit {
  uint64_t bytes;
  std::string name;
};

// What bounds a cgroup: memory.max kills, memory.high throttles to a standstill.
std::vector<Limit> limits_of(const CgroupDirectory& directory, bool with_high) {
  std::vector<std::string> names;
  if (directory.unified) {
    names.push_back("memory.max");
    if (with_high) names.push_back("memory.high");
  } else {
    names.push_back("memory.limit_in_bytes");
  }
  std::vector<Limit> limits;
  for (const std::string& name : names) {
    const std::optional<uint64_t> bytes = number_in(directory.path + "/" + name);
    if (bytes && *bytes < kUnlimited) limits.push_back({*bytes, name + " of " + directory.path});
  }
  return limits;
}

// What a cgroup holds and cannot drop: page cache that is not in use goes first.
std::optional<uint64_t> usage_of(const CgroupDirectory& directory) {
  const std::optional<uint64_t> held = number_in(
      directory.path + (directory.unified ? "/memory.current" : "/memory.usage_in_bytes"));
  if (!held) return std::nullopt;
  const std::optional<uint64_t> reclaimable = number_after(
      directory.path + "/memory.stat", directory.unified ? "inactive_file" : "total_inactive_file");
  return less(*held, reclaimable.value_or(0));
}

uint64_t resource_limit(int resource) {
  rlimit limit;
  if (getrlimit(static_cast<__rlimit_resource_t>(resource), &limit) != 0) return UINT64_MAX;
  return limit.rlim_cur == RLIM_INFINITY ? UINT64_MAX : limit.rlim_cur;
}

void tighten(Headroom& headroom, uint64_t bytes, const std::string& by) {
  if (bytes >= headroom.bytes) return;
  headroom.bytes = bytes;
  headroom.limited_by = by;
}

void tighten_by_resource(Headroom& headroom, uint64_t limit, const MemoryRoots& roots,
                         const std::string& held_key, const std::string& by) {
  if (limit == UINT64_MAX) return;
  const std::optional<uint64_t> held = number_after(roots.status, held_key);
  if (held) tighten(headroom, less(limit, *held + kProcessReserve), by);
}

}  // namespace

Headroom memory_headroom() { return memory_headroom_in({}); }

Headroom memory_headroom_in(const MemoryRoots& roots) {
  // No number at all: large, yet with room to add to.
  Headroom headroom{INT64_MAX, "nothing"};

  const std::optional<uint64_t> available = number_after(roots.meminfo, "MemAvailable:");
  if (available) {
    const uint64_t total = number_after(roots.meminfo, "MemTotal:").value_or(*available);
    tighten(headroom, less(*available, system_margin(total)), "MemAvailable");
  }
  // 2 is strict accounting: the system then refuses at CommitLimit, whatever is available.
  if (number_in(roots.overcommit) == uint64_t{2}) {
    const std::optional<uint64_t> limit = number_after(roots.meminfo, "CommitLimit:");
    const std::optional<uint64_t> committed = number_after(roots.meminfo, "Committed_AS:");
    if (limit && committed) tighten(headroom, less(*limit, *committed), "CommitLimit");
  }
  for (const CgroupDirectory& directory : cgroup_directories(roots)) {
    const std::vector<Limit> limits = limits_of(directory, true);
    if (limits.empty()) continue;
    const std::optional<uint64_t> usage = usage_of(directory);
    if (!usage) continue;
    for (const Limit& limit : limits) {
      tighten(headroom, less(limit.bytes, *usage + cgroup_margin(limit.bytes)), limit.name);
    }
  }
  tighten_by_resource(headroom, std::min(roots.rlimit_data, resource_limit(RLIMIT_DATA)), roots,
                      "VmData:", "RLIMIT_DATA");
  tighten_by_resource(headroom, std::min(roots.rlimit_address_space, resource_limit(RLIMIT_AS)),
                      roots, "VmSize:", "RLIMIT_AS");
  return headroom;
}

uint64_t memory_total() { return memory_total_in({}); }

uint64_t memory_total_in(const MemoryRoots& roots) {
  uint64_t total = number_after(roots.meminfo, "MemTotal:").value_or(INT64_MAX);
  for (const CgroupDirectory& directory : cgroup_directories(roots)) {
    for (const Limit& limit : limits_of(directory, false)) total = std::min(total, limit.bytes);
  }
  return total;
}

}  // namespace loopback
