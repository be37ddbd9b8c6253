#pragma once

#include <napi.h>

namespace loopback {

/// `exec(path, arguments)`: becomes another program, with the descriptors, signals and terminal
/// that this one was started with. Returns only by throwing.
void exec_program(const Napi::CallbackInfo& info);

}  // namespace loopback
