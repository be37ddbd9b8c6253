// Shows our device files as character devices: a seccomp filter hands the stat family's calls of a
// program and all its descendants to us (seccomp_unotify(2)), whatever they are written in and
// however they are linked. What is not ours is told to go on in the kernel.
//
// It also says "sysfs" of what we mounted in /sys, since libudev asks (fstatfs).
#pragma once

namespace loopback {

/// Installs the filter in this thread, for it and all that it starts. The descriptor is where its
/// calls are answered; -1: the kernel refuses, with errno (EBUSY: an outer one is there already).
int install_stat_filter();

/// Answers calls until the process ends, on as many threads as wait at once: one may hang in a
/// file system that hangs. Returns at once.
void answer_stat_calls(int listener);

}  // namespace loopback
