// `Ring` of src/native.ts: a ring without a device.
#pragma once

#include <napi.h>

namespace loopback {

Napi::Function define_ring(Napi::Env env);

}  // namespace loopback
