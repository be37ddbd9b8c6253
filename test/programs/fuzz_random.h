// Numbers that a seed decides, and bytes of the kind that programs get wrong.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <iterator>

class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}

  uint64_t next() {
    uint64_t value = state_ += 0x9e3779b97f4a7c15ULL;
    value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9ULL;
    value = (value ^ (value >> 27)) * 0x94d049bb133111ebULL;
    return value ^ (value >> 31);
  }
  uint32_t below(uint32_t bound) { return static_cast<uint32_t>((next() >> 32) * bound >> 32); }
  bool chance(uint32_t percent) { return below(100) < percent; }

  template <class T, size_t size>
  const T& of(const T (&choices)[size]) {
    return choices[below(size)];
  }

  uint32_t edge() {
    static const uint32_t kEdges[] = {
        0,        1,        2,       3,          31,         32,         33,         255,
        256,      1023,     1024,    1025,       4095,       4096,       65535,      65536,
        1u << 20, 1u << 30, ~0u / 4, 0x7fffffff, 0x80000000, 0x80000001, 0xfffffffe, ~0u};
    return of(kEdges);
  }

  void fill(uint8_t* bytes, size_t size) {
    for (size_t at = 0; at < size; at += 8) {
      const uint64_t word = next();
      memcpy(bytes + at, &word, size - at < 8 ? size - at : 8);
    }
  }
  void flip_bits(uint8_t* bytes, size_t size) {
    if (size == 0) return;
    for (uint32_t left = 1 + below(8); left > 0; --left) {
      bytes[below(static_cast<uint32_t>(size))] ^= static_cast<uint8_t>(1u << below(8));
    }
  }
  // One aligned number becomes one at an edge.
  void set_edge(uint8_t* bytes, size_t size) {
    if (size < 4) return;
    const uint32_t value = edge();
    memcpy(bytes + size_t{4} * below(static_cast<uint32_t>(size / 4)), &value, 4);
  }

 private:
  uint64_t state_;
};
