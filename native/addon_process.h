#pragma once

#include <napi.h>

namespace loopback {

/// `exec(path, arguments)`: becomes another program, with the descriptors, signals and terminal
/// that this one was started with. Returns only by throwing.
void exec_program(const Napi::CallbackInfo& info);

/// `leaveTerminal()`: puts /dev/null in the place of standard streams that are a terminal. At its
/// exit Node asserts that it can still set a terminal's modes, and crashes where that has hung up.
void leave_terminal(const Napi::CallbackInfo& info);

}  // namespace loopback
