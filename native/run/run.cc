// The native half of `v4l2loopback-fuse run` and `mount --system`; src/cli starts it.
//
//     v4l2loopback_run own N WORD×N -- COMMAND…   with a daemon of its own: its command line
//     v4l2loopback_run join DIR -- COMMAND…       with the daemon that is mounted at DIR
//     v4l2loopback_run system DIR                 puts DIR's devices at their real places for
//                                                 everybody, says `ready`, and takes them away at
//                                                 the end of standard input
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <string>
#include <vector>

#include "character_devices.h"
#include "failure.h"
#include "guard.h"
#include "keeper.h"
#include "namespaces.h"
#include "places.h"

namespace loopback {

namespace {

// As shells do.
constexpr int kNotFound = 127;
constexpr int kNotExecutable = 126;

void say(const std::string& sentence) {
  fprintf(stderr, "v4l2loopback-fuse: %s\n", sentence.c_str());
}

/// Node has raised it to the most there may be; a program that uses select(2) minds.
void restore_descriptor_limit() {
  rlimit parents, ours;
  if (prlimit(getppid(), RLIMIT_NOFILE, nullptr, &parents) != 0 ||
      getrlimit(RLIMIT_NOFILE, &ours) != 0 || parents.rlim_cur >= ours.rlim_cur)
    return;
  ours.rlim_cur = parents.rlim_cur;
  setrlimit(RLIMIT_NOFILE, &ours);
}

/// A directory in the private /dev for a daemon's files; another `run` around us may have one.
std::string make_root() {
  std::string root = "/dev/.v4l2loopback-fuse";
  while (mkdir(root.c_str(), 0755) != 0) {
    if (errno != EEXIST) throw failure("can't make " + root);
    root += "+";
  }
  return root;
}

/// A directory given by its name looks at what was mounted over it only when it is looked up anew.
void look_up_anew() {
  char directory[PATH_MAX];
  if (getcwd(directory, sizeof directory) == nullptr || chdir(directory) != 0)
    say("the working directory can't be entered anew");
}

void show_character_devices(Keeper* keeper) {
  const int listener = install_stat_filter();
  // Inside another `run`, whose keeper answers for us as well.
  if (listener < 0 && errno != EBUSY)
    say(std::string("programs that insist on a character device won't take ours: ") +
        strerror(errno));
  // Nothing of ours may call stat in between: nobody answers yet.
  keeper->answer(listener);
  if (listener >= 0) close(listener);
}

int exec_command(const std::vector<std::string>& words) {
  std::vector<char*> arguments;
  for (const std::string& word : words) arguments.push_back(const_cast<char*>(word.c_str()));
  arguments.push_back(nullptr);
  execvp(arguments[0], arguments.data());
  const int error = errno;
  say(words[0] + ": " + strerror(error));
  return error == ENOENT ? kNotFound : kNotExecutable;
}

int run(const std::string& joined, std::vector<std::string> daemon,
        const std::vector<std::string>& command) {
  restore_descriptor_limit();
  enter_private_namespace();
  Places::cover_dev();
  const std::string root = make_root();
  if (!joined.empty() &&
      mount(joined.c_str(), root.c_str(), nullptr, MS_BIND | MS_REC, nullptr) != 0)
    throw failure("can't bind " + joined);
  if (!daemon.empty()) daemon.insert(daemon.end(), {"--mountpoint", root});
  Keeper keeper(root, daemon);
  if (keeper.failed() != 0) return keeper.failed();
  Places places(root);
  places.link_devices();
  places.show_in_sys();
  places.show_in_udev();
  look_up_anew();
  // So that our own commands find it.
  setenv("V4L2LOOPBACK_FUSE_MOUNTPOINT", root.c_str(), 1);
  show_character_devices(&keeper);
  return exec_command(command);
}

int main(const std::vector<std::string>& words) {
  size_t at = 0;
  const auto next = [&] {
    if (at == words.size()) throw std::runtime_error("v4l2loopback_run is started by its program");
    return words[at++];
  };
  const std::string verb = next();
  std::string joined;
  std::vector<std::string> daemon;
  if (verb == "system") {
    guard_system(next());
    return 0;
  }
  if (verb == "join") joined = next();
  if (verb == "own") {
    for (unsigned long count = strtoul(next().c_str(), nullptr, 10); count > 0; --count)
      daemon.push_back(next());
  }
  if (next() != "--") throw std::runtime_error("-- is missing");
  return run(joined, daemon, {words.begin() + static_cast<long>(at), words.end()});
}

}  // namespace

}  // namespace loopback

int main(int count, char** arguments) {
  try {
    return loopback::main({arguments + 1, arguments + count});
  } catch (const std::exception& error) {
    loopback::say(error.what());
    return 1;
  }
}
