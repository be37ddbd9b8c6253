// `DeviceMount` of src/native.ts, and the devices in it.
#pragma once

#include <napi.h>

namespace loopback {

Napi::Function define_device_mount(Napi::Env env);

}  // namespace loopback
