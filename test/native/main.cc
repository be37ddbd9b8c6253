#include <cstdio>
#include <cstring>
#include <exception>
#include <string>
#include <vector>

#include "check.h"

namespace {

struct Test {
  const char* name;
  void (*body)();
};

std::vector<Test>& tests() {
  static std::vector<Test> all;
  return all;
}

// Threads of a test report what they know themselves: the scopes are those of the runner's thread.
thread_local std::vector<std::string> scopes;

bool wanted(const char* name, int argc, char** argv) {
  if (argc < 2) return true;
  for (int i = 1; i < argc; ++i) {
    if (std::strstr(name, argv[i]) != nullptr) return true;
  }
  return false;
}

}  // namespace

namespace check {

int add_test(const char* name, void (*body)()) {
  tests().push_back({name, body});
  return 0;
}

Scope::Scope(std::string text) { scopes.push_back(std::move(text)); }
Scope::~Scope() { scopes.pop_back(); }

void fail(const char* file, int line, const std::string& text) {
  std::string message = std::string(file) + ":" + std::to_string(line) + ": " + text;
  for (const std::string& scope : scopes) message += "\n    with " + scope;
  throw Failure(message);
}

}  // namespace check

int main(int argc, char** argv) {
  std::setvbuf(stdout, nullptr, _IOLBF, 0);
  int passed = 0, failed = 0, skipped = 0;
  for (const Test& test : tests()) {
    if (!wanted(test.name, argc, argv)) continue;
    try {
      test.body();
      ++passed;
      std::printf("ok    %s\n", test.name);
    } catch (const check::Skip& skip) {
      ++skipped;
      std::printf("skip  %s: %s\n", test.name, skip.what());
    } catch (const std::exception& error) {
      ++failed;
      std::printf("FAIL  %s\n  %s\n", test.name, error.what());
    }
  }
  std::printf("%d passed, %d failed, %d skipped\n", passed, failed, skipped);
  return failed == 0 && passed + skipped > 0 ? 0 : 1;
}
