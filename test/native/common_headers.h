// What most of the core includes: compiled once for all files (scripts/test-native.mjs). The addon
// is compiled without, so no file can forget an include of its own.
#ifndef TEST_NATIVE_COMMON_HEADERS_H
#define TEST_NATIVE_COMMON_HEADERS_H

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <unordered_map>
#include <vector>

#endif
