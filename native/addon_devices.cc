#include "addon_devices.h"

#include <errno.h>
#include <string.h>

#include <memory>
#include <optional>

#include "addon_values.h"
#include "fuse_mount.h"
#include "fuse_session.h"

namespace loopback {

namespace {

struct LogLine {
  LogLevel level;
  int device;
  std::string message;
};

const char* level_name(LogLevel level) {
  switch (level) {
    case LogLevel::kDebug:
      return "debug";
    case LogLevel::kInfo:
      return "info";
    case LogLevel::kWarn:
      return "warn";
    case LogLevel::kError:
      return "error";
  }
  return "info";
}

/// Log lines and the end of the session, from any thread to JavaScript.
class Reports {
 public:
  Reports(Napi::Env env, Napi::Function log, Napi::Function ended, Napi::Function control)
      : log_(Napi::ThreadSafeFunction::New(env, log, "v4l2loopback-log", 1024, 1)),
        ended_(Napi::ThreadSafeFunction::New(env, ended, "v4l2loopback-ended", 1, 1)),
        control_(Napi::ThreadSafeFunction::New(env, control, "v4l2loopback-control", 0, 1)) {
    // None keeps the process alive.
    log_.Unref(env);
    ended_.Unref(env);
    control_.Unref(env);
  }

  void log(LogLevel level, int device, const std::string& message) {
    auto* line = new LogLine{level, device, message};
    // A full queue drops the line: a slow log must never hold up a frame.
    const napi_status status =
        log_.NonBlockingCall(line, [](Napi::Env env, Napi::Function call, LogLine* data) {
          std::unique_ptr<LogLine> owned(data);
          Napi::Object record = Napi::Object::New(env);
          record.Set("level", level_name(owned->level));
          record.Set("device", owned->device);
          record.Set("message", owned->message);
          call.Call({record});
        });
    if (status != napi_ok) delete line;
  }

  void ended() { ended_.NonBlockingCall(); }

  void control(const ControlCall& call) {
    auto* copy = new ControlCall(call);
    const napi_status status = control_.NonBlockingCall(
        copy, [](Napi::Env env, Napi::Function function, ControlCall* data) {
          std::unique_ptr<ControlCall> owned(data);
          function.Call({control_object(env, *owned)});
        });
    if (status != napi_ok) delete copy;
  }

  void close() {
    log_.Release();
    ended_.Release();
    control_.Release();
  }

 private:
  static Napi::Object control_object(Napi::Env env, const ControlCall& call) {
    const ControlConfig& config = call.config;
    Napi::Object object = Napi::Object::New(env);
    object.Set("ticket", Napi::BigInt::New(env, call.ticket));
    object.Set("adds", call.adds);
    object.Set("videoNr", config.output_nr);
    object.Set("cardLabel", std::string(config.card_label,
                                        strnlen(config.card_label, sizeof config.card_label)));
    object.Set("minWidth", config.min_width);
    object.Set("maxWidth", config.max_width);
    object.Set("minHeight", config.min_height);
    object.Set("maxHeight", config.max_height);
    object.Set("maxBuffers", config.max_buffers);
    object.Set("maxOpeners", config.max_openers);
    object.Set("exclusiveCaps", config.announce_all_caps == 0);
    return object;
  }

  Napi::ThreadSafeFunction log_, ended_, control_;
};

/// One device, by its number: it may have been removed meanwhile, then calls throw ENODEV.
class DeviceObject : public Napi::ObjectWrap<DeviceObject> {
 public:
  static Napi::Function define(Napi::Env env) {
    return DefineClass(env, "Device",
                       {InstanceAccessor<&DeviceObject::video_nr>("videoNr"),
                        InstanceMethod<&DeviceObject::parameters>("parameters"),
                        InstanceMethod<&DeviceObject::set_parameters>("setParameters"),
                        InstanceMethod<&DeviceObject::counters>("counters"),
                        InstanceMethod<&DeviceObject::consumers>("consumers"),
                        InstanceMethod<&DeviceObject::reset_counters>("resetCounters"),
                        InstanceMethod<&DeviceObject::format>("format"),
                        InstanceMethod<&DeviceObject::set_rate>("setRate"),
                        InstanceMethod<&DeviceObject::buffers>("buffers"),
                        InstanceMethod<&DeviceObject::state>("state"),
                        InstanceMethod<&DeviceObject::max_openers>("maxOpeners"),
                        InstanceMethod<&DeviceObject::set_max_openers>("setMaxOpeners"),
                        InstanceMethod<&DeviceObject::open_count>("openCount")});
  }

  explicit DeviceObject(const Napi::CallbackInfo& info) : ObjectWrap(info) {
    session_ = *info[0].As<Napi::External<std::shared_ptr<FuseSession>>>().Data();
    number_ = info[1].As<Napi::Number>().Uint32Value();
  }

 private:
  /// Runs `step` on the device, under the session's lock.
  template <class Step>
  auto with(const Napi::CallbackInfo& info, Step&& step) {
    // Under one lock: it may be removed in between else.
    auto guard = session_->lock();
    V4l2Device* device = session_->device(number_);
    if (device == nullptr)
      throw error_with_code(info.Env(), ENODEV,
                            "there is no video" + std::to_string(number_) + " any more");
    return step(*device);
  }

  Napi::Value video_nr(const Napi::CallbackInfo& info) {
    return Napi::Number::New(info.Env(), number_);
  }

  Napi::Value parameters(const Napi::CallbackInfo& info) {
    return to_object(info.Env(),
                     with(info, [](auto& device) { return device.ring().parameters(); }));
  }

  void set_parameters(const Napi::CallbackInfo& info) {
    RingParameters next = with(info, [](auto& device) { return device.ring().parameters(); });
    bool dynamic_written = false;
    apply_parameters(info[0].As<Napi::Object>(), &next, &dynamic_written);
    const std::string wrong = with(info, [&](auto& device) {
      return device.ring().set_parameters(next, dynamic_written, monotonic_now());
    });
    if (!wrong.empty()) throw error_with_code(info.Env(), EINVAL, wrong);
    session_->kick();
  }

  Napi::Value counters(const Napi::CallbackInfo& info) {
    return to_object(info.Env(), with(info, [](auto& device) {
                       return device.ring().counters(monotonic_now());
                     }));
  }

  Napi::Value consumers(const Napi::CallbackInfo& info) {
    return to_array(info.Env(), with(info, [](auto& device) {
                      return device.ring().consumer_reports(monotonic_now());
                    }));
  }

  void reset_counters(const Napi::CallbackInfo& info) {
    with(info, [](auto& device) { device.ring().reset_counters(monotonic_now()); });
  }

  Napi::Value format(const Napi::CallbackInfo& info) {
    return Napi::String::New(info.Env(),
                             with(info, [](auto& device) { return device.format_text(); }));
  }

  void set_rate(const Napi::CallbackInfo& info) {
    const double numerator = info[0].ToNumber().DoubleValue();
    const double denominator = info[1].ToNumber().DoubleValue();
    const bool possible = numerator >= 1 && denominator >= 1 && numerator <= UINT32_MAX &&
                          denominator <= UINT32_MAX && with(info, [&](auto& device) {
                            return device.set_rate(static_cast<uint32_t>(numerator),
                                                   static_cast<uint32_t>(denominator));
                          });
    if (!possible)
      throw error_with_code(info.Env(), EINVAL,
                            "a rate of " + info[0].ToString().Utf8Value() + "/" +
                                info[1].ToString().Utf8Value() +
                                " frames a second is not within 1/1000 and 1000");
  }

  Napi::Value buffers(const Napi::CallbackInfo& info) {
    return Napi::Number::New(info.Env(),
                             with(info, [](auto& device) { return device.streaming_buffers(); }));
  }

  Napi::Value state(const Napi::CallbackInfo& info) {
    const bool streams = with(info, [](auto& device) { return device.producer_streams(); });
    return Napi::String::New(info.Env(), streams ? "capture" : "output");
  }

  Napi::Value max_openers(const Napi::CallbackInfo& info) {
    return Napi::Number::New(info.Env(),
                             with(info, [](auto& device) { return device.max_openers(); }));
  }

  void set_max_openers(const Napi::CallbackInfo& info) {
    const double count = info[0].ToNumber().DoubleValue();
    const bool possible = count >= 0 && count <= UINT32_MAX && with(info, [&](auto& device) {
                            return device.set_max_openers(static_cast<uint32_t>(count));
                          });
    if (!possible)
      throw error_with_code(info.Env(), EINVAL,
                            "max_openers " + info[0].ToString().Utf8Value() +
                                " is below the number of producers and consumers there are");
  }

  Napi::Value open_count(const Napi::CallbackInfo& info) {
    return Napi::Number::New(info.Env(),
                             with(info, [](auto& device) { return device.open_count(); }));
  }

  std::shared_ptr<FuseSession> session_;
  uint32_t number_ = 0;
};

class DeviceMountObject : public Napi::ObjectWrap<DeviceMountObject> {
 public:
  static Napi::Function define(Napi::Env env) {
    return DefineClass(env, "DeviceMount",
                       {InstanceAccessor<&DeviceMountObject::io_mode>("ioMode"),
                        InstanceMethod<&DeviceMountObject::add_device>("addDevice"),
                        InstanceMethod<&DeviceMountObject::remove_device>("removeDevice"),
                        InstanceMethod<&DeviceMountObject::devices>("devices"),
                        InstanceMethod<&DeviceMountObject::answer_control>("answerControl"),
                        InstanceMethod<&DeviceMountObject::stop>("stop")});
  }

  explicit DeviceMountObject(const Napi::CallbackInfo& info) : ObjectWrap(info) {
    const Napi::Env env = info.Env();
    if (info.Length() < 1 || !info[0].IsObject())
      throw Napi::TypeError::New(env, "a DeviceMount is made with an object of options");
    const auto given = info[0].As<Napi::Object>();
    SessionOptions options;
    options.mountpoint = string_property(given, "mountpoint");
    options.allow_other = bool_property(given, "allowOther");
    options.uid = static_cast<uint32_t>(number_property(given, "uid", 0, UINT32_MAX));
    options.gid = static_cast<uint32_t>(number_property(given, "gid", 0, UINT32_MAX));
    options.mode = static_cast<uint32_t>(number_property(given, "mode", 0, 0777));
    const std::string mode = string_property(given, "ioMode");
    for (IoMode each : {IoMode::kPassthrough, IoMode::kPageCache, IoMode::kReadWrite}) {
      if (mode == io_mode_name(each)) options.io_mode = each;
    }
    if (!options.io_mode.has_value() && mode != "auto")
      throw error_with_code(
          env, EINVAL,
          "ioMode " + mode + " is not one of auto, passthrough, page-cache, read-write");
    for (const char* name : {"log", "ended", "control"}) {
      if (!given.Get(name).IsFunction())
        throw Napi::TypeError::New(env, std::string(name) + " is not a function");
    }
    reports_ = std::make_shared<Reports>(env, given.Get("log").As<Napi::Function>(),
                                         given.Get("ended").As<Napi::Function>(),
                                         given.Get("control").As<Napi::Function>());
    // Whatever still runs when the session is gone holds the reports, and finds them closed.
    options.log = [reports = reports_](LogLevel level, int device, const std::string& message) {
      reports->log(level, device, message);
    };
    options.ended = [reports = reports_] { reports->ended(); };
    options.control = [reports = reports_](const ControlCall& call) { reports->control(call); };
    try {
      session_ = std::make_shared<FuseSession>(std::move(options));
    } catch (const MountError& error) {
      reports_->close();
      throw error_with_code(env, error.error(), error.what());
    }
    device_class_ = Napi::Persistent(DeviceObject::define(env));
  }

  ~DeviceMountObject() override { end(); }

 private:
  void end() {
    if (ended_ || !session_) return;
    ended_ = true;
    session_->stop();
    reports_->close();
  }

  Napi::Object device_object(Napi::Env env, uint32_t number) {
    return device_class_.New({Napi::External<std::shared_ptr<FuseSession>>::New(env, &session_),
                              Napi::Number::New(env, number)});
  }

  Napi::Value io_mode(const Napi::CallbackInfo& info) {
    return Napi::String::New(info.Env(), io_mode_name(session_->io_mode()));
  }

  Napi::Value add_device(const Napi::CallbackInfo& info) {
    const Napi::Env env = info.Env();
    const auto given = info[0].As<Napi::Object>();
    const auto whole = [&](const char* name, double least, double most) {
      return static_cast<uint32_t>(number_property(given, name, least, most));
    };
    DeviceSetup setup;
    setup.number = whole("videoNr", 0, 65535);
    setup.minor = whole("minor", 0, 1048575);
    setup.card_label = string_property(given, "cardLabel");
    setup.exclusive_caps = bool_property(given, "exclusiveCaps");
    setup.max_openers = whole("maxOpeners", 0, UINT32_MAX);
    setup.min_width = whole("minWidth", 1, 65536);
    setup.min_height = whole("minHeight", 1, 65536);
    setup.max_width = whole("maxWidth", setup.min_width, 65536);
    setup.max_height = whole("maxHeight", setup.min_height, 65536);
    bool dynamic_written;
    apply_parameters(given.Get("ring").As<Napi::Object>(), &setup.ring, &dynamic_written);
    {
      auto guard = session_->lock();
      if (session_->device(setup.number) != nullptr)
        throw error_with_code(env, EEXIST,
                              "video" + std::to_string(setup.number) + " is there already");
    }
    const uint32_t number = setup.number;
    const std::string wrong = session_->add_device(std::move(setup));
    if (!wrong.empty()) throw error_with_code(env, EINVAL, wrong);
    return device_object(env, number);
  }

  void remove_device(const Napi::CallbackInfo& info) {
    const uint32_t number = info[0].ToNumber().Uint32Value();
    const int error = session_->remove_device(number);
    const std::string name = "video" + std::to_string(number);
    if (error == ENODEV) throw error_with_code(info.Env(), error, "there is no " + name);
    if (error != 0) throw error_with_code(info.Env(), error, name + " is open");
  }

  void answer_control(const Napi::CallbackInfo& info) {
    bool lossless;
    const uint64_t ticket = info[0].As<Napi::BigInt>().Uint64Value(&lossless);
    session_->answer_control(ticket, info[1].ToNumber().Int32Value());
  }

  Napi::Value devices(const Napi::CallbackInfo& info) {
    Napi::Array array = Napi::Array::New(info.Env());
    uint32_t at = 0;
    for (uint32_t number : session_->device_numbers())
      array.Set(at++, device_object(info.Env(), number));
    return array;
  }

  void stop(const Napi::CallbackInfo&) { end(); }

  bool ended_ = false;
  std::shared_ptr<Reports> reports_;
  std::shared_ptr<FuseSession> session_;
  Napi::FunctionReference device_class_;
};

}  // namespace

Napi::Function define_device_mount(Napi::Env env) { return DeviceMountObject::define(env); }

}  // namespace loopback
