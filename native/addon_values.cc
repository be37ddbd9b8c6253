#include "addon_values.h"

#include <string.h>

#include <cmath>

namespace loopback {

Napi::Error error_with_code(Napi::Env env, int error, const std::string& message) {
  Napi::Error made = Napi::Error::New(env, message);
  const char* name = strerrorname_np(error);
  made.Value().Set("code", Napi::String::New(env, name != nullptr ? name : "EIO"));
  return made;
}

double number_property(const Napi::Object& object, const char* name, double least, double most) {
  const Napi::Value value = object.Get(name);
  if (!value.IsNumber())
    throw Napi::TypeError::New(object.Env(), std::string(name) + " is not a number");
  const double number = value.As<Napi::Number>().DoubleValue();
  if (!(number >= least && number <= most) || number != std::floor(number))
    throw error_with_code(object.Env(), EINVAL,
                          std::string(name) + " " + value.ToString().Utf8Value() +
                              " is not a whole number from " +
                              std::to_string(static_cast<int64_t>(least)) + " to " +
                              std::to_string(static_cast<int64_t>(most)));
  return number;
}

std::string string_property(const Napi::Object& object, const char* name) {
  const Napi::Value value = object.Get(name);
  if (!value.IsString())
    throw Napi::TypeError::New(object.Env(), std::string(name) + " is not a string");
  return value.As<Napi::String>().Utf8Value();
}

bool bool_property(const Napi::Object& object, const char* name) {
  const Napi::Value value = object.Get(name);
  if (!value.IsBoolean())
    throw Napi::TypeError::New(object.Env(), std::string(name) + " is not true or false");
  return value.As<Napi::Boolean>().Value();
}

void apply_parameters(const Napi::Object& changes, RingParameters* parameters,
                      bool* dynamic_written) {
  const auto given = [&](const char* name) { return !changes.Get(name).IsUndefined(); };
  const auto whole = [&](const char* name, double most) {
    return number_property(changes, name, 0, most);
  };
  constexpr double kBytes = 1ull << 48;
  *dynamic_written = given("dynamic");
  if (*dynamic_written) parameters->dynamic = bool_property(changes, "dynamic");
  if (given("maxBuffers"))
    parameters->max_buffers = static_cast<uint32_t>(whole("maxBuffers", 1024));
  if (given("min")) parameters->min = static_cast<uint64_t>(whole("min", kBytes));
  if (given("max")) parameters->max = static_cast<uint64_t>(whole("max", kBytes));
  if (given("highWatermark"))
    parameters->high_watermark = static_cast<uint32_t>(whole("highWatermark", UINT32_MAX));
  if (given("lowWatermark"))
    parameters->low_watermark = static_cast<uint32_t>(whole("lowWatermark", UINT32_MAX));
  if (given("shrinkDelayMs"))
    parameters->shrink_delay_ms = static_cast<uint32_t>(whole("shrinkDelayMs", UINT32_MAX));
  if (given("stallTimeoutMs"))
    parameters->stall_timeout_ms = static_cast<uint32_t>(whole("stallTimeoutMs", UINT32_MAX));
  const auto choice = [&](const char* name, const char* first, const char* second) {
    const std::string text = string_property(changes, name);
    if (text == first) return true;
    if (text == second) return false;
    throw error_with_code(
        changes.Env(), EINVAL,
        std::string(name) + " " + text + " is neither " + first + " nor " + second);
  };
  if (given("overflow"))
    parameters->overflow = choice("overflow", "block", "drop") ? Overflow::kBlock : Overflow::kDrop;
  if (given("lap"))
    parameters->lap = choice("lap", "newest", "oldest") ? Lap::kNewest : Lap::kOldest;
}

Napi::Object to_object(Napi::Env env, const RingParameters& parameters) {
  Napi::Object object = Napi::Object::New(env);
  object.Set("dynamic", parameters.dynamic);
  object.Set("maxBuffers", parameters.max_buffers);
  object.Set("min", static_cast<double>(parameters.min));
  object.Set("max", static_cast<double>(parameters.max));
  object.Set("highWatermark", parameters.high_watermark);
  object.Set("lowWatermark", parameters.low_watermark);
  object.Set("shrinkDelayMs", parameters.shrink_delay_ms);
  object.Set("overflow", parameters.overflow == Overflow::kBlock ? "block" : "drop");
  object.Set("stallTimeoutMs", parameters.stall_timeout_ms);
  object.Set("lap", parameters.lap == Lap::kNewest ? "newest" : "oldest");
  return object;
}

Napi::Object to_object(Napi::Env env, const RingCounters& c) {
  Napi::Object object = Napi::Object::New(env);
  const auto set = [&](const char* name, double value) { object.Set(name, value); };
  set("size", c.size);
  set("used", c.used);
  set("resident", c.resident);
  set("heldFrames", c.held_frames);
  set("publishedFrames", c.published_frames);
  set("publishedBytes", c.published_bytes);
  set("deliveredFrames", c.delivered_frames);
  set("deliveredBytes", c.delivered_bytes);
  set("droppedFrames", c.dropped_frames);
  set("droppedBytes", c.dropped_bytes);
  set("leftFrames", c.left_frames);
  set("owedFrames", c.owed_frames);
  set("abortedFrames", c.aborted_frames);
  set("expandCount", c.expand_count);
  set("expandNs", c.expand_ns);
  set("expandNsMax", c.expand_ns_max);
  set("shrinkCount", c.shrink_count);
  set("shrinkNs", c.shrink_ns);
  set("shrinkNsMax", c.shrink_ns_max);
  set("commitNs", c.commit_ns);
  set("releaseNs", c.release_ns);
  set("producers", c.producers);
  set("consumers", c.consumers);
  set("stalledConsumers", c.stalled_consumers);
  set("uptimeMs", c.uptime_ms);
  set("readOffset", c.read_offset);
  set("writeOffset", c.write_offset);
  set("lastExpandMs", c.last_expand_ms);
  set("lastShrinkMs", c.last_shrink_ms);
  return object;
}

Napi::Array to_array(Napi::Env env, const std::vector<ConsumerReport>& rows) {
  Napi::Array array = Napi::Array::New(env, rows.size());
  for (uint32_t i = 0; i < rows.size(); ++i) {
    const ConsumerReport& row = rows[i];
    Napi::Object object = Napi::Object::New(env);
    object.Set("pid", row.pid);
    object.Set("command", row.command);
    object.Set("published", static_cast<double>(row.published));
    object.Set("delivered", static_cast<double>(row.delivered));
    object.Set("dropped", static_cast<double>(row.dropped));
    object.Set("owed", static_cast<double>(row.owed));
    object.Set("left", static_cast<double>(row.left));
    object.Set("owedBytes", static_cast<double>(row.owed_bytes));
    object.Set("lagMs", static_cast<double>(row.lag_ms));
    array.Set(i, object);
  }
  return array;
}

}  // namespace loopback
