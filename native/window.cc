#include "window.h"

#include <errno.h>
#include <fcntl.h>
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

std::unique_ptr<Window::Region> Window::allocate(size_t length) {
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
  used_.push_back({at, length});
  next_ = at + length;
  return std::unique_ptr<Region>(
      new Region(this, static_cast<uint32_t>(at), length, static_cast<uint8_t*>(data)));
}

Window::Region::~Region() {
  munmap(data_, length_);
  fallocate(window_->fd_, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset_, length_);
  auto& used = window_->used_;
  used.erase(std::find_if(used.begin(), used.end(),
                          [this](const Extent& extent) { return extent.offset == offset_; }));
}

}  // namespace loopback
