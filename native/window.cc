#include "window.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <system_error>

#include "memory_headroom.h"

namespace loopback {

namespace {

constexpr uint64_t kLimit = 1ull << 32;

// Of all windows of the process.
std::atomic<uint64_t> all_windows{0}, all_regions{0}, all_bytes{0};

[[noreturn]] void fail(int error, const char* what) {
  --all_windows;
  throw std::system_error(error, std::generic_category(), what);
}

}  // namespace

Window::Bounds Window::bounds() {
  static const uint64_t mappings = [] {
    uint64_t most = 65530;  // The kernel's default.
    std::ifstream("/proc/sys/vm/max_map_count") >> most;
    return most;
  }();
  static const uint64_t memory = memory_total();
  rlimit files{};
  getrlimit(RLIMIT_NOFILE, &files);
  return {files.rlim_cur / 4 * 3, mappings / 2, memory / 2};
}

Window::Window() : fd_(-1) {
  if (++all_windows > bounds().descriptors) fail(ENFILE, "too many open files");
  fd_ = memfd_create("v4l2loopback-window", MFD_CLOEXEC);
  if (fd_ < 0) fail(errno, "memfd_create");
  // Sparse: pages come as they are written.
  if (ftruncate(fd_, kLimit) != 0) {
    const int error = errno;
    close(fd_);
    fail(error, "ftruncate");
  }
}

Window::~Window() {
  close(fd_);
  --all_windows;
}

std::shared_ptr<Window::Region> Window::allocate(size_t length) {
  const Bounds most = bounds();
  const uint64_t others_bytes = all_bytes - bytes_, others_regions = all_regions - used_.size();
  if (bytes_ + length > (most.bytes - std::min(most.bytes, others_bytes)) / 2 ||
      used_.size() + 1 > (most.regions - std::min(most.regions, others_regions)) / 2)
    return nullptr;
  uint64_t at = next_;
  const auto overlap = [&](uint64_t from) {
    return std::find_if(used_.begin(), used_.end(), [&](const Extent& extent) {
      return from < extent.offset + extent.length && extent.offset < from + length;
    });
  };
  bool wrapped = false;
  while (true) {
    if (at + length > kLimit) {
      if (wrapped) return nullptr;
      wrapped = true;
      at = 0;
    }
    const auto hit = overlap(at);
    if (hit == used_.end()) break;
    at = hit->offset + hit->length;
  }
  void* data = mmap(nullptr, length, PROT_READ | PROT_WRITE, MAP_SHARED, fd_, at);
  if (data == MAP_FAILED) return nullptr;
  std::shared_ptr<Region> region(new Region(shared_from_this(), static_cast<uint32_t>(at), length,
                                            static_cast<uint8_t*>(data)));
  used_.push_back({at, length, region.get()});
  next_ = at + length;
  bytes_ += length;
  all_bytes += length;
  ++all_regions;
  return region;
}

// What lies behind the file's end, or was never written, is zeros.
void Window::read_at(uint64_t offset, void* to, size_t length) const {
  const ssize_t got = pread(fd_, to, length, static_cast<off_t>(offset));
  const size_t bytes = got > 0 ? static_cast<size_t>(got) : 0;
  memset(static_cast<uint8_t*>(to) + bytes, 0, length - bytes);
}

void Window::write_at(uint64_t offset, const void* from, size_t length) {
  if (offset >= kLimit) return;
  // Regions are whole pages, and so is what is written back: each page is of one or of none.
  for (const Extent& extent : used_) {
    const uint64_t start = std::max(offset, extent.offset);
    const uint64_t end = std::min(offset + length, extent.offset + extent.length);
    if (start >= end || extent.region->showing) continue;
    memcpy(extent.region->data() + (start - extent.offset),
           static_cast<const uint8_t*>(from) + (start - offset), end - start);
  }
}

Window::Region::~Region() {
  munmap(data_, length_);
  window_->bytes_ -= length_;
  all_bytes -= length_;
  --all_regions;
  fallocate(window_->fd_, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset_, length_);
  auto& used = window_->used_;
  used.erase(std::find_if(used.begin(), used.end(),
                          [this](const Extent& extent) { return extent.offset == offset_; }));
}

}  // namespace loopback
