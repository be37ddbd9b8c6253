#include "window.h"

#include <sys/resource.h>

#include <cerrno>
#include <optional>
#include <system_error>
#include <vector>

#include "check.h"
#include "live_session.h"

using namespace loopback;

namespace {

struct Holder {
  std::shared_ptr<Window> window = std::make_shared<Window>();
  std::vector<std::shared_ptr<Window::Region>> regions;

  // Until it is refused one, or has as many as two directions of V4L2 buffers.
  bool fill(size_t length, size_t most) {
    while (regions.size() < most) {
      auto region = window->allocate(length);
      if (region == nullptr) return false;
      regions.push_back(std::move(region));
    }
    return true;
  }
};

uint64_t regions_of(const std::vector<Holder>& holders) {
  uint64_t sum = 0;
  for (const Holder& holder : holders) sum += holder.regions.size();
  return sum;
}

}  // namespace

TEST(windowsTogetherTakeNoMoreMappingsThanTheirShare) {
  std::vector<Holder> holders;
  while (holders.emplace_back().fill(4096, 64)) CHECK(holders.size() < 2000);
  CHECK(regions_of(holders) <= Window::bounds().regions);
  CHECK(regions_of(holders) >= Window::bounds().regions / 2);
  holders.clear();
  CHECK(Holder().fill(4096, 64));
}

TEST(windowsTogetherTakeNoMoreMemoryThanTheirShare) {
  constexpr size_t kLength = size_t{64} << 20;
  std::vector<Holder> holders;
  // Four windows may have all there is below 4 GiB; then what is left is halved again and again.
  while (holders.size() < 1000) {
    holders.emplace_back().fill(kLength, 32);
    if (holders.back().regions.empty()) break;
  }
  CHECK(regions_of(holders) * kLength <= Window::bounds().bytes);
  CHECK(regions_of(holders) > 0);
  holders.clear();
  CHECK(Holder().window->allocate(kLength) != nullptr);
}

TEST(oneWindowLeavesOthersAsMuchAsItTakes) {
  uint64_t bytes = Window::bounds().bytes;
  std::vector<Holder> others;
  // What is left until a window's 4 GiB are half of it or more.
  for (constexpr size_t kLength = size_t{1} << 30; bytes > uint64_t{8} << 30; bytes -= kLength)
    CHECK_EQ(others.emplace_back().fill(kLength, 1), true);
  Holder first, second;
  const size_t length = static_cast<size_t>(bytes / 64) / 4096 * 4096;
  first.fill(length, 1000);
  CHECK(second.window->allocate(length) != nullptr);
}

TEST(windowsLeaveDescriptorsToTheRestOfTheProcess) {
  rlimit before;
  getrlimit(RLIMIT_NOFILE, &before);
  const rlimit tight{open_descriptors() + 400, before.rlim_max};
  setrlimit(RLIMIT_NOFILE, &tight);
  std::vector<Holder> holders;
  int error = 0;
  try {
    while (holders.size() < 1000) holders.emplace_back();
  } catch (const std::system_error& refused) {
    error = refused.code().value();
  }
  const size_t left = tight.rlim_cur - open_descriptors();
  holders.clear();
  setrlimit(RLIMIT_NOFILE, &before);
  CHECK_EQ(error, ENFILE);
  CHECK(left >= 90);
}
