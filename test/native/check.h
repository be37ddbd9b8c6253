// Just enough to write tests with: TEST(name) { CHECK(…); CHECK_EQ(actual, expected); }
//
// A failed check ends its test. The runner (main.cc) goes on with the next one.
#pragma once

#include <functional>
#include <sstream>
#include <stdexcept>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>

namespace check {

struct Failure : std::runtime_error {
  using std::runtime_error::runtime_error;
};

/// Thrown where a test cannot be done here; the reason is shown and counted.
struct Skip : std::runtime_error {
  using std::runtime_error::runtime_error;
};

int add_test(const char* name, void (*body)());

/// What a failure inside the body tells besides: a seed, a step.
class Scope {
 public:
  explicit Scope(std::string text);
  ~Scope();
  Scope(const Scope&) = delete;
  Scope& operator=(const Scope&) = delete;
};

[[noreturn]] void fail(const char* file, int line, const std::string& text);

template <typename T>
std::string shown(const T& value) {
  std::ostringstream stream;
  if constexpr (std::is_enum_v<T>) {
    stream << static_cast<long long>(value);
  } else {
    stream << value;
  }
  return stream.str();
}

template <typename A, typename B>
bool same(const A& a, const B& b) {
  if constexpr (std::is_integral_v<A> && std::is_integral_v<B> && !std::is_same_v<A, bool> &&
                !std::is_same_v<B, bool>) {
    return std::cmp_equal(a, b);
  } else {
    return a == b;
  }
}

}  // namespace check

#define TEST(name)                                                                      \
  static void test_##name();                                                            \
  [[maybe_unused]] static const int added_##name = check::add_test(#name, test_##name); \
  static void test_##name()

#define CHECK(condition)                                                        \
  do {                                                                          \
    if (!(condition)) check::fail(__FILE__, __LINE__, "not true: " #condition); \
  } while (false)

#define CHECK_EQ(actual, expected)                                              \
  do {                                                                          \
    const auto check_actual = (actual);                                         \
    const auto check_expected = (expected);                                     \
    if (!check::same(check_actual, check_expected)) {                           \
      check::fail(__FILE__, __LINE__,                                           \
                  #actual " is " + check::shown(check_actual) + ", expected " + \
                      check::shown(check_expected));                            \
    }                                                                           \
  } while (false)

#define SKIP(reason) throw check::Skip(reason)
