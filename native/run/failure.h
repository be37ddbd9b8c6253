#pragma once

#include <string.h>

#include <cerrno>
#include <stdexcept>
#include <string>

namespace loopback {

/// An error whose message is the sentence and what errno says.
inline std::runtime_error failure(const std::string& sentence) {
  return std::runtime_error(sentence + ": " + strerror(errno));
}

}  // namespace loopback
