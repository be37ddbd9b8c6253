// The buffers that an opener maps: a sparse memfd of its own.
//
// V4L2 fixes the number of mapped buffers at REQBUFS while the ring changes its size; so buffers
// are not ring slots but a window: QBUF on OUTPUT publishes out of it, DQBUF on CAPTURE copies the
// cursor's frame into it. Nothing that a program writes into its window can reach the ring.
//
// Offsets handed to a program stay below 4 GiB, since v4l2_buffer.m.offset has 32 bits. Freed
// regions are punched out at once, also while a program still maps them (it then reads zeros), and
// their offsets are used again only after all others were.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

namespace loopback {

class Window {
 public:
  /// Throws std::system_error where no memfd can be had.
  Window();
  ~Window();
  Window(const Window&) = delete;

  int fd() const { return fd_; }

  /// Mapped into this process until the last reference goes.
  class Region {
   public:
    ~Region();
    uint8_t* data() const { return data_; }
    uint32_t offset() const { return offset_; }
    size_t length() const { return length_; }

   private:
    friend class Window;
    Region(Window* window, uint32_t offset, size_t length, uint8_t* data)
        : window_(window), offset_(offset), length_(length), data_(data) {}
    Window* window_;
    uint32_t offset_;
    size_t length_;
    uint8_t* data_;
  };

  /// nullptr where no room is left below 4 GiB, or no memory.
  std::unique_ptr<Region> allocate(size_t length);

 private:
  struct Extent {
    uint64_t offset;
    uint64_t length;
  };
  int fd_;
  uint64_t next_ = 0;
  std::vector<Extent> used_;
};

}  // namespace loopback
