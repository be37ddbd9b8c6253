// The two sides of a ring, as ring*.cc see them; elsewhere they are opaque.
#pragma once

#include "ring.h"

namespace loopback {

struct Producer {
  uint64_t id = 0;
  Label label;
  Nanoseconds waiting_since = kNever;
  Consumer* own_consumer = nullptr;
  uint32_t pending = 0;  // Finished frames that wait for room.
};

struct Consumer {
  Label label;
  Frame* cursor = nullptr;   // The next frame that it is owed; nullptr: none.
  Frame* reading = nullptr;  // Pinned.
  bool waiting = false;
  bool handed = false;  // `reading` was given to it while it waited; its take comes.
  bool lapped = false;
  Nanoseconds last_taken = 0;
  uint64_t first_sequence = 0;
  uint64_t owed = 0;
  uint64_t owed_bytes = 0;
  Ring::Tally tally;
};

}  // namespace loopback
