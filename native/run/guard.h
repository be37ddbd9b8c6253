// The system-wide half of `mount --system`: it puts the devices at their real places, and stands by
// to take them away, also when the daemon is killed.
#pragma once

#include <string>

namespace loopback {

/// Says `ready` on standard output when all is there; returns when standard input ends, with
/// everything taken away. Throws where it could not all be put there: then nothing is.
void guard_system(const std::string& root);

}  // namespace loopback
