#include "pixel_format.h"

#include <linux/videodev2.h>

#include <algorithm>
#include <cstdio>

#ifndef V4L2_PIX_FMT_AV1
#define V4L2_PIX_FMT_AV1 v4l2_fourcc('A', 'V', '0', '1')  // linux/videodev2.h, since 7.1
#endif

namespace loopback {
namespace {

// A compressed frame is bounded by 4 bytes a pixel, as v4l2loopback bounds it. Below this floor the
// headers of a picture may take more than its pixels.
constexpr uint64_t kCompressedFloor = 64 * 1024;

PixelFormat packed(uint32_t fourcc, const char* description, uint32_t bits,
                   uint32_t group_pixels = 1) {
  return {.fourcc = fourcc,
          .description = description,
          .depth_bits = bits,
          .line_bits = bits,
          .group_pixels = group_pixels};
}

// 8-bit luma, then two chroma planes.
PixelFormat planar(uint32_t fourcc, const char* description, uint32_t across, uint32_t down) {
  return {.fourcc = fourcc,
          .description = description,
          .depth_bits = 8 + 16 / (across * down),
          .line_bits = 8,
          .chroma_planes = 2,
          .chroma_bytes = 1,
          .chroma_across = across,
          .chroma_down = down};
}

// 8-bit luma, then one plane in which Cb and Cr alternate.
PixelFormat semi_planar(uint32_t fourcc, const char* description, uint32_t across, uint32_t down) {
  return {.fourcc = fourcc,
          .description = description,
          .depth_bits = 8 + 16 / (across * down),
          .line_bits = 8,
          .chroma_planes = 1,
          .chroma_bytes = 2,
          .chroma_across = across,
          .chroma_down = down};
}

PixelFormat compressed(uint32_t fourcc, const char* description) {
  return {.fourcc = fourcc, .description = description, .compressed = true};
}

// Sizes are those of V4L2's own definition of each format. v4l2loopback takes the number in a
// format's name for its size in memory and so makes Y10, Y12 and BGR666 too small (their samples
// lie in 16, 16 and 32 bits), Y4 and Y6 too small (8 bits), and 411P too large (12 bits).
std::vector<PixelFormat> table() {
  return {
      packed(V4L2_PIX_FMT_BGR32, "32-bit BGRA/X 8-8-8-8", 32),
      packed(V4L2_PIX_FMT_RGB32, "32-bit A/XRGB 8-8-8-8", 32),
      packed(V4L2_PIX_FMT_BGR24, "24-bit BGR 8-8-8", 24),
      packed(V4L2_PIX_FMT_RGB24, "24-bit RGB 8-8-8", 24),
      packed(V4L2_PIX_FMT_ABGR32, "32-bit BGRA 8-8-8-8", 32),
      packed(V4L2_PIX_FMT_XBGR32, "32-bit BGRX 8-8-8-8", 32),
      packed(V4L2_PIX_FMT_RGBA32, "32-bit RGBA 8-8-8-8", 32),
      packed(V4L2_PIX_FMT_RGB332, "8-bit RGB 3-3-2", 8),
      packed(V4L2_PIX_FMT_RGB444, "16-bit A/XRGB 4-4-4-4", 16),
      packed(V4L2_PIX_FMT_RGB555, "16-bit A/XRGB 1-5-5-5", 16),
      packed(V4L2_PIX_FMT_RGB565, "16-bit RGB 5-6-5", 16),
      packed(V4L2_PIX_FMT_RGB555X, "16-bit A/XRGB 1-5-5-5 BE", 16),
      packed(V4L2_PIX_FMT_RGB565X, "16-bit RGB 5-6-5 BE", 16),
      packed(V4L2_PIX_FMT_BGR666, "18-bit BGRX 6-6-6-14", 32),
      packed(V4L2_PIX_FMT_YUYV, "YUYV 4:2:2", 16, 2),
      packed(V4L2_PIX_FMT_UYVY, "UYVY 4:2:2", 16, 2),
      packed(V4L2_PIX_FMT_YVYU, "YVYU 4:2:2", 16, 2),
      packed(V4L2_PIX_FMT_VYUY, "VYUY 4:2:2", 16, 2),
      packed(V4L2_PIX_FMT_YYUV, "YYUV 4:2:2", 16, 2),
      packed(V4L2_PIX_FMT_YUV32, "32-bit A/XYUV 8-8-8-8", 32),
      packed(V4L2_PIX_FMT_GREY, "8-bit Greyscale", 8),
      packed(V4L2_PIX_FMT_Y4, "4-bit Greyscale", 8),
      packed(V4L2_PIX_FMT_Y6, "6-bit Greyscale", 8),
      packed(V4L2_PIX_FMT_Y10, "10-bit Greyscale", 16),
      packed(V4L2_PIX_FMT_Y12, "12-bit Greyscale", 16),
      packed(V4L2_PIX_FMT_Y16, "16-bit Greyscale", 16),
      packed(V4L2_PIX_FMT_YUV444, "16-bit A/XYUV 4-4-4-4", 16),
      packed(V4L2_PIX_FMT_YUV555, "16-bit A/XYUV 1-5-5-5", 16),
      packed(V4L2_PIX_FMT_YUV565, "16-bit YUV 5-6-5", 16),
      packed(V4L2_PIX_FMT_SRGGB8, "8-bit Bayer RGRG/GBGB", 8),
      packed(V4L2_PIX_FMT_SGRBG8, "8-bit Bayer GRGR/BGBG", 8),
      packed(V4L2_PIX_FMT_SGBRG8, "8-bit Bayer GBGB/RGRG", 8),
      packed(V4L2_PIX_FMT_SBGGR8, "8-bit Bayer BGBG/GRGR", 8),
      planar(V4L2_PIX_FMT_YVU410, "Planar YVU 4:1:0", 4, 4),
      planar(V4L2_PIX_FMT_YVU420, "Planar YVU 4:2:0", 2, 2),
      planar(V4L2_PIX_FMT_YUV410, "Planar YUV 4:1:0", 4, 4),
      planar(V4L2_PIX_FMT_YUV420, "Planar YUV 4:2:0", 2, 2),
      planar(V4L2_PIX_FMT_YUV422P, "Planar YUV 4:2:2", 2, 1),
      planar(V4L2_PIX_FMT_YUV411P, "Planar YUV 4:1:1", 4, 1),
      packed(V4L2_PIX_FMT_Y41P, "YUV 4:1:1 (Packed)", 12, 8),
      semi_planar(V4L2_PIX_FMT_NV12, "Y/CbCr 4:2:0", 2, 2),
      compressed(V4L2_PIX_FMT_MJPEG, "Motion-JPEG"),
      compressed(V4L2_PIX_FMT_JPEG, "JFIF JPEG"),
      compressed(V4L2_PIX_FMT_DV, "1394"),
      compressed(V4L2_PIX_FMT_MPEG, "MPEG-1/2/4"),
      compressed(V4L2_PIX_FMT_H264, "H.264"),
      compressed(V4L2_PIX_FMT_H264_NO_SC, "H.264 (No Start Codes)"),
      compressed(V4L2_PIX_FMT_H264_MVC, "H.264 MVC"),
      compressed(V4L2_PIX_FMT_H263, "H.263"),
      compressed(V4L2_PIX_FMT_MPEG1, "MPEG-1 ES"),
      compressed(V4L2_PIX_FMT_MPEG2, "MPEG-2 ES"),
      compressed(V4L2_PIX_FMT_MPEG4, "MPEG-4 Part 2 ES"),
      compressed(V4L2_PIX_FMT_XVID, "Xvid"),
      compressed(V4L2_PIX_FMT_VC1_ANNEX_G, "VC-1 (SMPTE 412M Annex G)"),
      compressed(V4L2_PIX_FMT_VC1_ANNEX_L, "VC-1 (SMPTE 412M Annex L)"),
      compressed(V4L2_PIX_FMT_VP8, "VP8"),
      compressed(V4L2_PIX_FMT_VP9, "VP9"),
      compressed(V4L2_PIX_FMT_HEVC, "HEVC"),
      compressed(V4L2_PIX_FMT_AV1, "AV1"),
  };
}

uint64_t divide_up(uint64_t dividend, uint64_t divisor) {
  return (dividend + divisor - 1) / divisor;
}

}  // namespace

const std::vector<PixelFormat>& pixel_formats() {
  static const std::vector<PixelFormat> formats = table();
  return formats;
}

const PixelFormat* find_pixel_format(uint32_t fourcc) {
  for (const PixelFormat& format : pixel_formats()) {
    if (format.fourcc == fourcc) return &format;
  }
  return nullptr;
}

uint32_t bytes_per_line(const PixelFormat& format, uint32_t width) {
  const uint64_t pixels = divide_up(width, format.group_pixels) * format.group_pixels;
  return static_cast<uint32_t>(pixels * format.line_bits / 8);
}

uint64_t sizeimage(const PixelFormat& format, uint32_t width, uint32_t height) {
  if (format.compressed) return std::max(uint64_t{4} * width * height, kCompressedFloor);
  const uint64_t first = uint64_t{bytes_per_line(format, width)} * height;
  const uint64_t samples =
      divide_up(width, format.chroma_across) * divide_up(height, format.chroma_down);
  return first + format.chroma_planes * format.chroma_bytes * samples;
}

std::string fourcc_text(uint32_t fourcc) {
  constexpr uint32_t kBigEndian = 1u << 31;
  std::string text;
  for (int shift = 0; shift < 32; shift += 8) {
    const unsigned char byte = ((fourcc & ~kBigEndian) >> shift) & 0xff;
    if (byte >= 0x20 && byte < 0x7f) {
      text += static_cast<char>(byte);
    } else {
      char escaped[5];
      std::snprintf(escaped, sizeof(escaped), "\\x%02x", byte);
      text += escaped;
    }
  }
  if (fourcc & kBigEndian) text += "-BE";
  return text;
}

}  // namespace loopback
