// JavaScript values to the core's and back.
#pragma once

#include <napi.h>

#include <string>
#include <vector>

#include "ring.h"
#include "v4l2_device.h"

namespace loopback {

/// An Error with `.code`: the errno's name, e.g. "EBUSY".
Napi::Error error_with_code(Napi::Env env, int error, const std::string& message);

/// Throws a TypeError that names the property where it is missing or no number within the bounds.
double number_property(const Napi::Object& object, const char* name, double least, double most);
std::string string_property(const Napi::Object& object, const char* name);
bool bool_property(const Napi::Object& object, const char* name);

/// Applies the properties that are there to `parameters`; `*dynamic_written` tells of `dynamic`.
void apply_parameters(const Napi::Object& changes, RingParameters* parameters,
                      bool* dynamic_written);
Napi::Object to_object(Napi::Env env, const RingParameters& parameters);
Napi::Object to_object(Napi::Env env, const RingCounters& counters);
Napi::Array to_array(Napi::Env env, const std::vector<ConsumerReport>& rows);

}  // namespace loopback
