// The control device's requests: what the session knows it answers, the rest is handed out.
#include <errno.h>
#include <string.h>

#include <algorithm>

#include "control_device.h"
#include "fuse_session.h"

namespace loopback {

void FuseSession::control_ioctl(const Request& request, uint32_t command, const void* argument,
                                uint64_t address) {
  ControlCall call;
  switch (command) {
    case kControlVersion:
      return reply_ioctl(request, 0, &kModuleVersion, sizeof kModuleVersion);
    case kControlQuery:
      memcpy(&call.config, argument, sizeof call.config);
      return query_device(request, call.config);
    case kControlAdd:
      memcpy(&call.config, argument, sizeof call.config);
      // Two numbers would be two devices, which upstream has not either.
      if (call.config.capture_nr >= 0 && call.config.capture_nr != call.config.output_nr)
        return reply_ioctl(request, -EINVAL, nullptr, 0);
      call.adds = true;
      break;
    case kControlAddByDefaults:
      if (address != 0) return reply_ioctl(request, -ENOTTY, nullptr, 0);
      call.adds = true;
      break;
    case kControlRemove: {
      uint32_t number;
      memcpy(&number, argument, sizeof number);
      call.config.output_nr = static_cast<int32_t>(number);
      break;
    }
    case kControlRemoveByValue:
      call.config.output_nr = static_cast<int32_t>(address);
      break;
    default:
      return reply_ioctl(request, -ENOTTY, nullptr, 0);
  }
  if (!options_.control) return reply_ioctl(request, -EOPNOTSUPP, nullptr, 0);
  call.ticket = request.unique;
  control_calls_[request.unique] = request;
  options_.control(call);
}

void FuseSession::query_device(const Request& request, ControlConfig config) {
  const int32_t number = config.output_nr >= 0 ? config.output_nr : config.capture_nr;
  const auto found = devices_.find(static_cast<uint32_t>(number));
  if (number < 0) return reply_ioctl(request, -EINVAL, nullptr, 0);
  if (found == devices_.end()) return reply_ioctl(request, -ENODEV, nullptr, 0);
  const DeviceSetup& setup = found->second->setup();
  config = {};
  config.output_nr = config.capture_nr = number;
  const size_t length = std::min(setup.card_label.size(), sizeof config.card_label - 1);
  memcpy(config.card_label, setup.card_label.data(), length);
  config.min_width = setup.min_width;
  config.max_width = setup.max_width;
  config.min_height = setup.min_height;
  config.max_height = setup.max_height;
  config.max_buffers = static_cast<int32_t>(found->second->ring().parameters().max_buffers);
  config.max_openers = static_cast<int32_t>(setup.max_openers);
  config.announce_all_caps = setup.exclusive_caps ? 0 : 1;
  reply_ioctl(request, 0, &config, sizeof config);
}

void FuseSession::answer_control(uint64_t ticket, int32_t result) {
  auto guard = lock();
  const auto waiting = control_calls_.find(ticket);
  if (waiting == control_calls_.end()) return;
  reply_ioctl(waiting->second, result, nullptr, 0);
  control_calls_.erase(waiting);
}

}  // namespace loopback
