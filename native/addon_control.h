#pragma once

#include <napi.h>

namespace loopback {

/// `controlAdd(path, {videoNr, cardLabel, …})`: asks the control device at `path`; the new number.
Napi::Value control_add(const Napi::CallbackInfo& info);
/// `controlRemove(path, videoNr)`.
void control_remove(const Napi::CallbackInfo& info);

}  // namespace loopback
