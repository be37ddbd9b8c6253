// The first bytes of a measured frame: enough to see that none is missing, too little to cost.
#pragma once

#include <cstdint>
#include <cstring>

struct Stamp {
  uint64_t source;  // Which producer.
  uint64_t number;  // Its frames, from 0.
  int64_t sent_ns;  // CLOCK_MONOTONIC just before the call that sends it.
};

inline void put_stamp(uint8_t* frame, const Stamp& stamp) { memcpy(frame, &stamp, sizeof stamp); }

inline Stamp stamp_of(const uint8_t* frame) {
  Stamp stamp;
  memcpy(&stamp, frame, sizeof stamp);
  return stamp;
}
