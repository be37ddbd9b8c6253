#include "window.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <system_error>

namespace loopback {

namespace {
constexpr uint64_t kLimit = 1ull << 32;
}

Window::Window() : fd_(memfd_create("v4l2loopback-window", MFD_CLOEXEC)) {
  if (fd_ < 0) throw std::system_error(errno, std::generic_category(), "memfd_create");
  // Sparse: pages come as they are written.
  if (ftruncate(fd_, kLimit) != 0) {
    const int error = errno;
    close(fd_);
    throw std::system_error(error, std::generic_category(), "ftruncate");
  }
}

Window::~Window() { close(fd_); }

std::shared_ptr<Window::Region> Window::allocate(size_t length) {
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
  fallocate(window_->fd_, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset_, length_);
  auto& used = window_->used_;
  used.erase(std::find_if(used.begin(), used.end(),
                          [this](const Extent& extent) { return extent.offset == offset_; }));
}

}  // namespace loopback
