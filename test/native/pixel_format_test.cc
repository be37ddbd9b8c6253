#include "pixel_format.h"

#include <linux/videodev2.h>

#include <cstring>
#include <set>

#include "check.h"

using namespace loopback;

namespace {

const PixelFormat& format(uint32_t fourcc) {
  const PixelFormat* found = find_pixel_format(fourcc);
  CHECK(found != nullptr);
  return *found;
}

uint64_t bytes(uint32_t fourcc, uint32_t width, uint32_t height) {
  return sizeimage(format(fourcc), width, height);
}

}  // namespace

TEST(pixelFormatsAreTheFiftyNineOfV4l2loopback) {
  CHECK_EQ(pixel_formats().size(), 59u);
  CHECK_EQ(fourcc_text(pixel_formats().front().fourcc), "BGR4");
  std::set<uint32_t> fourccs;
  for (const PixelFormat& each : pixel_formats()) {
    const check::Scope scope(fourcc_text(each.fourcc));
    CHECK(fourccs.insert(each.fourcc).second);
    CHECK(std::strlen(each.description) > 0);
    CHECK(std::strlen(each.description) < 32);
    CHECK_EQ(find_pixel_format(each.fourcc), &each);
    CHECK_EQ(each.compressed, each.depth_bits == 0);
    CHECK_EQ(each.compressed, each.line_bits == 0);
  }
}

TEST(pixelFormatsHaveThoseThatProgramsUseMost) {
  for (const uint32_t fourcc :
       {V4L2_PIX_FMT_YUYV, V4L2_PIX_FMT_UYVY, V4L2_PIX_FMT_NV12, V4L2_PIX_FMT_YUV420,
        V4L2_PIX_FMT_RGB24, V4L2_PIX_FMT_BGR24, V4L2_PIX_FMT_BGR32, V4L2_PIX_FMT_GREY,
        V4L2_PIX_FMT_MJPEG, V4L2_PIX_FMT_H264, V4L2_PIX_FMT_XBGR32}) {
    CHECK(find_pixel_format(fourcc) != nullptr);
  }
  CHECK_EQ(find_pixel_format(0), nullptr);
  CHECK_EQ(find_pixel_format(v4l2_fourcc('X', 'X', 'X', 'X')), nullptr);
}

TEST(sizeimageOfEvenSizes) {
  CHECK_EQ(bytes(V4L2_PIX_FMT_YUYV, 640, 480), 614400u);
  CHECK_EQ(bytes(V4L2_PIX_FMT_YUYV, 3840, 2160), 16588800u);
  CHECK_EQ(bytes(V4L2_PIX_FMT_YUV420, 640, 480), 460800u);
  CHECK_EQ(bytes(V4L2_PIX_FMT_NV12, 640, 480), 460800u);
  CHECK_EQ(bytes(V4L2_PIX_FMT_RGB24, 640, 480), 921600u);
  CHECK_EQ(bytes(V4L2_PIX_FMT_BGR32, 640, 480), 1228800u);
  CHECK_EQ(bytes(V4L2_PIX_FMT_GREY, 640, 480), 307200u);
  CHECK_EQ(bytes(V4L2_PIX_FMT_YUV410, 640, 480), 345600u);
  CHECK_EQ(bytes(V4L2_PIX_FMT_YUV422P, 640, 480), 614400u);
  CHECK_EQ(bytes(V4L2_PIX_FMT_YUV411P, 640, 480), 460800u);
  CHECK_EQ(bytes(V4L2_PIX_FMT_Y41P, 640, 480), 460800u);
  CHECK_EQ(bytes(V4L2_PIX_FMT_Y10, 640, 480), 614400u);
  CHECK_EQ(bytes(V4L2_PIX_FMT_BGR666, 640, 480), 1228800u);
}

TEST(sizeimageRoundsChromaUpForOddSizes) {
  CHECK_EQ(bytes(V4L2_PIX_FMT_YUV420, 3, 3), 9u + 2 * 4);
  CHECK_EQ(bytes(V4L2_PIX_FMT_NV12, 3, 3), 9u + 2 * 4);
  CHECK_EQ(bytes(V4L2_PIX_FMT_YUV410, 5, 5), 25u + 2 * 4);
  CHECK_EQ(bytes(V4L2_PIX_FMT_YVU410, 4, 5), 20u + 2 * 2);
  CHECK_EQ(bytes(V4L2_PIX_FMT_YUV422P, 3, 3), 9u + 2 * 6);
  CHECK_EQ(bytes(V4L2_PIX_FMT_YUV411P, 5, 3), 15u + 2 * 6);
  CHECK_EQ(bytes(V4L2_PIX_FMT_YUYV, 3, 3), 24u);
  CHECK_EQ(bytes(V4L2_PIX_FMT_Y41P, 9, 1), 24u);
  CHECK_EQ(bytes(V4L2_PIX_FMT_RGB24, 3, 3), 27u);
  CHECK_EQ(bytes(V4L2_PIX_FMT_YUV420, 1, 1), 3u);
}

TEST(sizeimageNeverWrapsAround) {
  CHECK_EQ(bytes(V4L2_PIX_FMT_BGR32, 65536, 65536), uint64_t{4} << 32);
  CHECK_EQ(bytes(V4L2_PIX_FMT_MJPEG, 65536, 65536), uint64_t{4} << 32);
}

TEST(sizeimageOfCompressedFormatsIsABound) {
  CHECK_EQ(bytes(V4L2_PIX_FMT_MJPEG, 640, 480), 1228800u);
  CHECK_EQ(bytes(V4L2_PIX_FMT_H264, 2, 2), 65536u);
  CHECK_EQ(bytes_per_line(format(V4L2_PIX_FMT_MJPEG), 640), 0u);
}

TEST(bytesPerLineIsThatOfTheFirstPlane) {
  CHECK_EQ(bytes_per_line(format(V4L2_PIX_FMT_YUYV), 640), 1280u);
  CHECK_EQ(bytes_per_line(format(V4L2_PIX_FMT_YUYV), 641), 1284u);
  CHECK_EQ(bytes_per_line(format(V4L2_PIX_FMT_YUV420), 641), 641u);
  CHECK_EQ(bytes_per_line(format(V4L2_PIX_FMT_NV12), 640), 640u);
  CHECK_EQ(bytes_per_line(format(V4L2_PIX_FMT_RGB24), 641), 1923u);
  CHECK_EQ(bytes_per_line(format(V4L2_PIX_FMT_Y41P), 640), 960u);
}

TEST(everyFormatHoldsAtLeastItsFirstPlane) {
  for (const PixelFormat& each : pixel_formats()) {
    const check::Scope scope(fourcc_text(each.fourcc));
    for (uint32_t width = 1; width < 40; ++width) {
      for (uint32_t height = 1; height < 40; ++height) {
        const uint64_t bytes = sizeimage(each, width, height);
        CHECK(bytes >= uint64_t{bytes_per_line(each, width)} * height);
        CHECK(bytes * 8 >= uint64_t{width} * height * each.depth_bits);
      }
    }
  }
}

TEST(fourccTextShowsWhatV4l2CtlShows) {
  CHECK_EQ(fourcc_text(V4L2_PIX_FMT_YUYV), "YUYV");
  CHECK_EQ(fourcc_text(V4L2_PIX_FMT_Y16), "Y16 ");
  CHECK_EQ(fourcc_text(V4L2_PIX_FMT_Y16_BE), "Y16 -BE");
  CHECK_EQ(fourcc_text(0x01020a41), "A\\x0a\\x02\\x01");
}
