#include "addon_process.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <map>
#include <set>
#include <string>
#include <vector>

#include "addon_values.h"

namespace loopback {

namespace {

/// Node marks what it inherited close-on-exec, as it does what it opened itself. The latter are
/// event descriptors, and pipes of which it has both ends.
void keep_inherited_descriptors() {
  std::map<int, std::string> opened;
  std::set<std::string> read_ends, write_ends;
  DIR* directory = opendir("/proc/self/fd");
  if (directory == nullptr) return;
  while (const dirent* each = readdir(directory)) {
    const int fd = atoi(each->d_name);
    char target[PATH_MAX];
    const ssize_t length = readlinkat(dirfd(directory), each->d_name, target, sizeof target);
    if (length <= 0 || fd == dirfd(directory)) continue;
    opened[fd].assign(target, static_cast<size_t>(length));
    const bool writes = (fcntl(fd, F_GETFL) & O_ACCMODE) != O_RDONLY;
    (writes ? write_ends : read_ends).insert(opened[fd]);
  }
  closedir(directory);
  for (const auto& [fd, target] : opened) {
    const bool is_nodes =
        fd > STDERR_FILENO && (target.starts_with("anon_inode:") ||
                               (target.starts_with("pipe:") && read_ends.contains(target) &&
                                write_ends.contains(target)));
    if (!is_nodes) fcntl(fd, F_SETFD, 0);
  }
}

/// Node ignores these; whoever is exec'd would, too.
void restore_signals() {
  for (const int number : {SIGPIPE, SIGXFSZ}) signal(number, SIG_DFL);
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
}

}  // namespace

void exec_program(const Napi::CallbackInfo& info) {
  const std::string path = info[0].ToString().Utf8Value();
  std::vector<std::string> words = {path};
  const auto given = info[1].As<Napi::Array>();
  for (uint32_t at = 0; at < given.Length(); ++at)
    words.push_back(given.Get(at).ToString().Utf8Value());
  std::vector<char*> arguments;
  for (std::string& word : words) arguments.push_back(word.data());
  arguments.push_back(nullptr);
  keep_inherited_descriptors();
  restore_signals();
  execv(path.c_str(), arguments.data());
  throw error_with_code(info.Env(), errno, path + " can't be started: " + strerror(errno));
}

void leave_terminal(const Napi::CallbackInfo&) {
  const int null = open("/dev/null", O_RDWR | O_CLOEXEC);
  for (int fd = STDIN_FILENO; null >= 0 && fd <= STDERR_FILENO; ++fd) {
    // isatty(3) says no of one that has hung up.
    struct stat found;
    if (fstat(fd, &found) == 0 && S_ISCHR(found.st_mode)) dup2(null, fd);
  }
  if (null >= 0) close(null);
}

}  // namespace loopback
