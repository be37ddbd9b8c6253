// The buffers that an opener maps: a sparse memfd of its own.
//
// V4L2 fixes the number of mapped buffers at REQBUFS while the ring changes its size; so buffers
// are not ring slots but a window: QBUF on OUTPUT publishes out of it, DQBUF on CAPTURE copies the
// cursor's frame into it. Nothing that a program writes into its window can reach the ring.
//
// Offsets handed to a program stay below 4 GiB, since v4l2_buffer.m.offset has 32 bits. Freed
// regions are punched out at once, also while a program still maps them (it then reads zeros), and
// their offsets are used again only after all others were.
//
// Windows cost the process descriptors, mappings and memory, and whoever may open a device has as
// many as the system lets him open. So what all windows take together is bounded, and no window
// takes more than half of what the others leave.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

namespace loopback {

class Window : public std::enable_shared_from_this<Window> {
 public:
  /// Throws std::system_error where no memfd can be had; ENFILE where the process must keep the
  /// descriptors that are left.
  Window();
  ~Window();
  Window(const Window&) = delete;

  int fd() const { return fd_; }

  /// Mapped into this process until the last reference goes; keeps its window.
  class Region {
   public:
    ~Region();
    uint8_t* data() const { return data_; }
    uint32_t offset() const { return offset_; }
    size_t length() const { return length_; }
    /// A frame is on its way in, and to the page cache: what the kernel writes back meanwhile is
    /// older.
    std::atomic<bool> showing{false};
    /// A DQBUF waits for the end of that.
    bool awaited = false;

   private:
    friend class Window;
    Region(std::shared_ptr<Window> window, uint32_t offset, size_t length, uint8_t* data)
        : window_(std::move(window)), offset_(offset), length_(length), data_(data) {}
    std::shared_ptr<Window> window_;
    uint32_t offset_;
    size_t length_;
    uint8_t* data_;
  };

  /// nullptr where no room is left below 4 GiB, or no memory.
  std::shared_ptr<Region> allocate(size_t length);

  /// What all windows of the process may have together.
  struct Bounds {
    uint64_t descriptors;
    uint64_t regions;
    uint64_t bytes;
  };
  static Bounds bounds();

  /// Page-cache mode: bytes at an offset of the file, which are those of the memfd. Writing leaves
  /// regions alone that are being shown.
  void read_at(uint64_t offset, void* to, size_t length) const;
  void write_at(uint64_t offset, const void* from, size_t length);

 private:
  struct Extent {
    uint64_t offset;
    uint64_t length;
    Region* region;
  };
  int fd_;
  uint64_t next_ = 0;
  uint64_t bytes_ = 0;
  std::vector<Extent> used_;
};

}  // namespace loopback
