// fuse-native runs libfuse's multi-threaded loop and leaks a thread's worth of event-loop handles
// for every worker that libfuse starts and ends. Loaded before libfuse with RTLD_GLOBAL, this name
// comes first, and gives it the single-threaded loop: attributes are rare and short.
#include <dlfcn.h>

struct fuse;

extern "C" __attribute__((visibility("default"))) int fuse_loop_mt(fuse* session) {
  using Loop = int (*)(fuse*);
  const auto loop = reinterpret_cast<Loop>(dlsym(RTLD_DEFAULT, "fuse_loop"));
  return loop == nullptr ? -1 : loop(session);
}
