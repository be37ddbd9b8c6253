// The control device's other side: what the commands `add` and `delete` ask of a mounted daemon.
#include "addon_control.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <string>

#include "addon_values.h"
#include "control_device.h"

namespace loopback {

namespace {

/// What ioctl(2) returns. Throws with the errno's name where it fails.
int ask(const Napi::CallbackInfo& info, unsigned command, void* argument) {
  const std::string path = info[0].ToString().Utf8Value();
  const int fd = open(path.c_str(), O_RDWR | O_CLOEXEC);
  if (fd < 0)
    throw error_with_code(info.Env(), errno, path + " can't be opened: " + strerror(errno));
  const int result = ioctl(fd, command, argument);
  const int error = errno;
  close(fd);
  if (result < 0) throw error_with_code(info.Env(), error, strerror(error));
  return result;
}

}  // namespace

Napi::Value control_add(const Napi::CallbackInfo& info) {
  const auto given = info[1].As<Napi::Object>();
  ControlConfig config;
  config.output_nr = config.capture_nr =
      static_cast<int32_t>(number_property(given, "videoNr", -1, 65535));
  const std::string label = string_property(given, "cardLabel");
  memcpy(config.card_label, label.data(), std::min(label.size(), sizeof config.card_label - 1));
  config.max_width = static_cast<uint32_t>(number_property(given, "maxWidth", 0, 65536));
  config.max_height = static_cast<uint32_t>(number_property(given, "maxHeight", 0, 65536));
  config.max_buffers = static_cast<int32_t>(number_property(given, "maxBuffers", 0, INT32_MAX));
  config.max_openers = static_cast<int32_t>(number_property(given, "maxOpeners", 0, INT32_MAX));
  config.announce_all_caps = bool_property(given, "exclusiveCaps") ? 0 : 1;
  return Napi::Number::New(info.Env(), ask(info, kControlAdd, &config));
}

void control_remove(const Napi::CallbackInfo& info) {
  uint32_t number = info[1].ToNumber().Uint32Value();
  ask(info, kControlRemove, &number);
}

}  // namespace loopback
