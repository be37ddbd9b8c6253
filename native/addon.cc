// The addon's exports; src/native.ts says what each is for. N-API stays in addon*.cc.
#include <dlfcn.h>
#include <errno.h>
#include <napi.h>
#include <string.h>

#include "addon_control.h"
#include "addon_devices.h"
#include "addon_process.h"
#include "addon_ring.h"
#include "addon_values.h"
#include "fuse_mount.h"
#include "pixel_format.h"

namespace loopback {

namespace {

std::string path_argument(const Napi::CallbackInfo& info) {
  if (info.Length() < 1 || !info[0].IsString())
    throw Napi::TypeError::New(info.Env(), "a path is a string");
  return info[0].As<Napi::String>().Utf8Value();
}

void load_library(const Napi::CallbackInfo& info) {
  if (dlopen(path_argument(info).c_str(), RTLD_NOW | RTLD_GLOBAL) == nullptr)
    throw error_with_code(info.Env(), ELIBACC, dlerror());
}

void unmount(const Napi::CallbackInfo& info) {
  const std::string path = path_argument(info);
  const int error = unmount_fuse(path);
  if (error != 0)
    throw error_with_code(info.Env(), error, path + " can't be unmounted: " + strerror(error));
}

Napi::Value list_pixel_formats(const Napi::CallbackInfo& info) {
  Napi::Array array = Napi::Array::New(info.Env());
  uint32_t at = 0;
  for (const PixelFormat& format : pixel_formats()) {
    Napi::Object object = Napi::Object::New(info.Env());
    object.Set("fourcc", fourcc_text(format.fourcc));
    object.Set("description", format.description);
    object.Set("compressed", format.compressed);
    array.Set(at++, object);
  }
  return array;
}

Napi::Object initialize(Napi::Env env, Napi::Object exports) {
  exports.Set("Ring", define_ring(env));
  exports.Set("DeviceMount", define_device_mount(env));
  exports.Set("loadLibrary", Napi::Function::New<load_library>(env, "loadLibrary"));
  exports.Set("exec", Napi::Function::New<exec_program>(env, "exec"));
  exports.Set("controlAdd", Napi::Function::New<control_add>(env, "controlAdd"));
  exports.Set("controlRemove", Napi::Function::New<control_remove>(env, "controlRemove"));
  exports.Set("leaveTerminal", Napi::Function::New<leave_terminal>(env, "leaveTerminal"));
  exports.Set("unmount", Napi::Function::New<unmount>(env, "unmount"));
  exports.Set("pixelFormats", Napi::Function::New<list_pixel_formats>(env, "pixelFormats"));
  return exports;
}

}  // namespace

NODE_API_MODULE(v4l2loopback_fuse, initialize)

}  // namespace loopback
