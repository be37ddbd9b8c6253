#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace loopback {

/// One format that a device can carry. The table lives as long as the program.
struct PixelFormat {
  uint32_t fourcc;
  /// As VIDIOC_ENUM_FMT shows it: shorter than 32 bytes.
  const char* description;
  /// A frame has no fixed length; `sizeimage` is then only a bound.
  bool compressed = false;
  /// Bits a pixel over all planes, of the memory that it takes; 0 for a compressed format.
  uint32_t depth_bits = 0;
  /// Bits a pixel in the first plane, from which bytesperline follows; 0 for a compressed format.
  uint32_t line_bits = 0;
  /// Pixels of a packed format that share their chroma and so cannot be cut apart: a line has a
  /// whole number of such groups.
  uint32_t group_pixels = 1;
  /// Chroma planes behind the first one (0 for packed formats) and the bytes of a sample in each: 2
  /// where Cb and Cr alternate in one plane.
  uint32_t chroma_planes = 0;
  uint32_t chroma_bytes = 0;
  /// Pixels that one chroma sample stands for, across and down.
  uint32_t chroma_across = 1;
  uint32_t chroma_down = 1;
};

/// All formats in the order of VIDIOC_ENUM_FMT: those of v4l2loopback 0.15.
const std::vector<PixelFormat>& pixel_formats();

/// Null where the device does not carry that format.
const PixelFormat* find_pixel_format(uint32_t fourcc);

/// Bytes from one line of the first plane to the next; 0 for compressed formats.
uint32_t bytes_per_line(const PixelFormat& format, uint32_t width);

/// Bytes of one frame; for compressed formats the most that one frame may have. Chroma of an odd
/// size is rounded up, so that the last column and line have a sample too.
uint64_t sizeimage(const PixelFormat& format, uint32_t width, uint32_t height);

/// The four characters ("YUYV"). Trailing blanks stay ("Y16 "), unprintable bytes are shown as
/// "\x01", and a big-endian format (bit 31) has "-BE" behind.
std::string fourcc_text(uint32_t fourcc);

}  // namespace loopback
