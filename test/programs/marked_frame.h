// A frame that can be checked: a header, then a pattern that its producer's id and its number
// decide alone. A reader computes the same pattern, so every byte that is torn, stale or of
// another frame is found, at close to the speed of memory.
//
//   0        8     12    16       24       32      40                       length-2
//   | magic  | id  |  0  | number | length | check | pattern, 8-byte words ... | FF D9 |
//
// It begins with FF D8 and ends with FF D9, as a JPEG picture does: a device that may not ask how
// long a write was looks for these in MJPEG.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

constexpr uint64_t kFrameMagic = 0x454d4152464cd8ffULL;
constexpr uint64_t kPatternStep = 0x9e3779b97f4a7c15ULL;

struct FrameHeader {
  uint64_t magic;
  uint32_t id;
  uint32_t zero;
  uint64_t number;
  uint64_t length;
  uint64_t check;
};
static_assert(sizeof(FrameHeader) == 40);

// The smallest frame that can be marked: the header, one word, the end.
constexpr size_t kSmallestFrame = sizeof(FrameHeader) + 8 + 2;

inline uint64_t mixed(uint64_t value) {
  value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9ULL;
  value = (value ^ (value >> 27)) * 0x94d049bb133111ebULL;
  return value ^ (value >> 31);
}

inline uint64_t header_check(const FrameHeader& header) {
  return mixed(mixed(mixed(header.id + kFrameMagic) + header.number) + header.length);
}

// Marks `length` bytes at `frame`; `length` is at least kSmallestFrame.
inline void mark_frame(uint8_t* frame, size_t length, uint32_t id, uint64_t number) {
  FrameHeader header{kFrameMagic, id, 0, number, length, 0};
  header.check = header_check(header);
  memcpy(frame, &header, sizeof header);
  uint64_t word = header.check;
  size_t at = sizeof header;
  for (; at + 8 <= length; at += 8) {
    word += kPatternStep;
    memcpy(frame + at, &word, 8);
  }
  word += kPatternStep;
  memcpy(frame + at, &word, length - at);
  frame[length - 2] = 0xff;
  frame[length - 1] = 0xd9;
}

// Whether the header alone is whole. `length` of it then says how long the frame is.
inline bool read_header(const uint8_t* frame, size_t available, FrameHeader* header) {
  if (available < sizeof *header) return false;
  memcpy(header, frame, sizeof *header);
  return header->magic == kFrameMagic && header->zero == 0 &&
         header->check == header_check(*header) && header->length >= kSmallestFrame;
}

// Whether the `length` bytes at `frame` are one whole frame, as its producer marked it.
inline bool frame_is_whole(const uint8_t* frame, size_t length, FrameHeader* header) {
  if (!read_header(frame, length, header) || header->length != length) return false;
  if (frame[length - 2] != 0xff || frame[length - 1] != 0xd9) return false;
  // The last words are met by FF D9 in part: they are compared bytewise, all others by word.
  const size_t words_end = sizeof *header + (length - 2 - sizeof *header) / 8 * 8;
  uint64_t word = header->check;
  uint64_t difference = 0;
  size_t at = sizeof *header;
  for (; at < words_end; at += 8) {
    uint64_t found;
    memcpy(&found, frame + at, 8);
    word += kPatternStep;
    difference |= found ^ word;
  }
  for (; at < length - 2; ++at) {
    if ((at - sizeof *header) % 8 == 0) word += kPatternStep;
    const auto expected = static_cast<uint8_t>(word >> ((at - sizeof *header) % 8 * 8));
    difference |= static_cast<uint64_t>(frame[at] ^ expected);
  }
  return difference == 0;
}
