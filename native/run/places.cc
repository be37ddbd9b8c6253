#include "places.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <sstream>

#include "../control_device.h"
#include "failure.h"

namespace loopback {

namespace {

/// What mountinfo names as the source of our tmpfs and overlays: so that a later start knows them.
constexpr char kSource[] = "v4l2loopback-fuse";

bool is_directory(const std::string& path) {
  struct stat found;
  return stat(path.c_str(), &found) == 0 && S_ISDIR(found.st_mode);
}

bool same_file(const std::string& one, const std::string& other) {
  struct stat a, b;
  return stat(one.c_str(), &a) == 0 && stat(other.c_str(), &b) == 0 && a.st_dev == b.st_dev &&
         a.st_ino == b.st_ino;
}

std::string link_of(int directory, const std::string& name) {
  char target[PATH_MAX];
  const ssize_t length = readlinkat(directory, name.c_str(), target, sizeof target);
  return length < 0 ? "" : std::string(target, static_cast<size_t>(length));
}

/// Only where it is still that of ours.
void remove_link(const std::string& target, const std::string& link) {
  if (link_of(AT_FDCWD, link) == target) unlink(link.c_str());
}

void make_directory(const std::string& path) {
  if (mkdir(path.c_str(), 0755) != 0 && errno != EEXIST) throw failure("can't make " + path);
}

// With what is mounted in it now, and not what will cover it.
int clone_tree(const std::string& path) {
  const int tree = static_cast<int>(
      syscall(SYS_open_tree, AT_FDCWD, path.c_str(),
              static_cast<unsigned>(OPEN_TREE_CLONE | AT_RECURSIVE | OPEN_TREE_CLOEXEC)));
  if (tree < 0) throw failure("can't copy the mount " + path);
  return tree;
}

void move_tree(int tree, const std::string& path) {
  if (syscall(SYS_move_mount, tree, "", AT_FDCWD, path.c_str(),
              static_cast<unsigned>(MOVE_MOUNT_F_EMPTY_PATH)) != 0)
    throw failure("can't mount on " + path);
}

}  // namespace

std::vector<Places::Entry> Places::entries(const std::string& directory) {
  std::vector<Entry> found;
  DIR* opened = opendir(directory.c_str());
  if (opened == nullptr) return found;
  while (const dirent* each = readdir(opened)) {
    const std::string name = each->d_name;
    struct stat status;
    if (name == "." || name == "..") continue;
    if (fstatat(dirfd(opened), each->d_name, &status, AT_SYMLINK_NOFOLLOW) == 0)
      found.push_back({name, status.st_mode & S_IFMT});
  }
  closedir(opened);
  return found;
}

void Places::bind(const std::string& what, const std::string& where) {
  if (mount(what.c_str(), where.c_str(), nullptr, MS_BIND | MS_REC, nullptr) != 0)
    throw failure("can't bind " + what + " to " + where);
}

// `old_directory` reaches what a mount has covered meanwhile.
void Places::bind_all(int old_directory, const std::vector<Entry>& entries,
                      const std::string& where) {
  const std::string old = "/proc/self/fd/" + std::to_string(old_directory) + "/";
  for (const auto& [name, type] : entries) {
    const std::string path = where + "/" + name;
    if (type == S_IFLNK) {
      if (symlink(link_of(old_directory, name).c_str(), path.c_str()) != 0)
        throw failure("can't make the link " + path);
      continue;
    }
    if (type == S_IFDIR) {
      make_directory(path);
    } else {
      const int made = open(path.c_str(), O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
      if (made < 0) throw failure("can't make " + path);
      close(made);
    }
    if (mount((old + name).c_str(), path.c_str(), nullptr, MS_BIND | MS_REC, nullptr) != 0) {
      // It has gone meanwhile, or may not be bound: then it is not to be seen.
      if (type == S_IFDIR)
        rmdir(path.c_str());
      else
        unlink(path.c_str());
    }
  }
}

void Places::cover(const std::string& place, const std::string& except) {
  std::vector<Entry> all = entries(place);
  std::erase_if(all, [&](const Entry& each) { return each.name == except; });
  const int old = open(place.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC);
  if (old < 0) throw failure("can't open " + place);
  if (mount(kSource, place.c_str(), "tmpfs", MS_NOSUID, "mode=0755") != 0) {
    const int error = errno;
    close(old);
    errno = error;
    throw failure("can't mount on " + place);
  }
  undo_.push_back([place] { umount2(place.c_str(), MNT_DETACH); });
  bind_all(old, all, place);
  close(old);
}

void Places::cover_dev() {
  const mode_t mask = umask(0);
  struct stat ptmx;
  const bool is_node = lstat("/dev/ptmx", &ptmx) == 0 && S_ISCHR(ptmx.st_mode);
  // Opening it looks for "pts" beside it, which a bind of the one file does not have: so it is made
  // anew or, where we may not, a link into a copy of the whole. A link into devpts, as containers
  // have it, may stay.
  const int all = is_node ? clone_tree("/dev") : -1;
  Places("").cover("/dev", is_node ? "ptmx" : "");
  if (is_node && mknod("/dev/ptmx", ptmx.st_mode, ptmx.st_rdev) != 0) {
    make_directory("/dev/.host");
    move_tree(all, "/dev/.host");
    if (symlink(".host/ptmx", "/dev/ptmx") != 0) throw failure("can't make the link /dev/ptmx");
  }
  if (all >= 0) close(all);
  umask(mask);
}

void Places::link_devices() {
  for (const auto& [name, type] : entries(root_ + "/dev")) {
    const std::string ours = root_ + "/dev/" + name;
    const std::string link = "/dev/" + name;
    if (same_file(ours, link)) continue;
    if (symlink(ours.c_str(), link.c_str()) != 0) {
      if (errno != EEXIST) throw failure("can't make the link " + link);
      // The control device of the kernel's own module, or of a run around this one.
      if (name == kControlName) continue;
      throw std::runtime_error(link + " is there already, and would be hidden; " +
                               "choose a video_nr that this machine does not have");
    }
    undo_.push_back([ours, link] { remove_link(ours, link); });
  }
}

// `place`/`name` becomes our directory, with the host's entries in it, if it has any.
void Places::put(const std::string& place, const std::string& name) {
  const std::string ours = root_ + place + "/" + name;
  const std::string path = place + "/" + name;
  const std::vector<Entry> hosts = entries(path);
  make_directory(path);
  if (hosts.empty() || place == "/sys/module") return bind(ours, path);
  // Links can be overlaid, and new ones of ours then appear; attributes must stay writable.
  const bool links = std::all_of(hosts.begin(), hosts.end(),
                                 [](const Entry& each) { return each.type == S_IFLNK; });
  if (links) return overlay(path, ours);
  cover(path);
  for (const auto& [device, type] : entries(ours)) {
    make_directory(path + "/" + device);
    bind(ours + "/" + device, path + "/" + device);
  }
}

void Places::overlay(const std::string& place, const std::string& ours) {
  const std::string options = "lowerdir=" + ours + ":" + place;
  if (mount(kSource, place.c_str(), "overlay", MS_RDONLY, options.c_str()) != 0)
    throw failure("can't lay " + ours + " over " + place);
  undo_.push_back([place] { umount2(place.c_str(), MNT_DETACH); });
}

void Places::show_in_sys() {
  const mode_t mask = umask(0);
  if (!is_directory("/sys/class")) {
    // No sysfs here at all: then ours is all there is.
    bind(root_ + "/sys", "/sys");
    undo_.push_back([] { umount2("/sys", MNT_DETACH); });
  } else {
    const std::pair<const char*, const char*> kinds[] = {{"/sys/class", "video4linux"},
                                                         {"/sys/devices/virtual", "video4linux"},
                                                         {"/sys/module", "v4l2loopback"}};
    for (const auto& [place, name] : kinds) {
      cover(place);
      put(place, name);
    }
    overlay("/sys/dev/char", root_ + "/sys/dev/char");
  }
  umask(mask);
}

void Places::show_in_udev() {
  const mode_t mask = umask(0);
  note_devices_for_udev();
  if (!is_directory("/run/udev/data")) {
    // No udev here: /run is covered, so that the host gets no directory of ours.
    cover("/run");
    make_directory("/run/udev");
    make_directory("/run/udev/data");
    bind(udev_notes(), "/run/udev/data");
  } else {
    overlay("/run/udev/data", udev_notes());
  }
  umask(mask);
}

void Places::note_devices_for_udev() const {
  make_directory(udev_notes());
  const std::string links = root_ + "/sys/dev/char";
  for (const auto& [numbers, type] : entries(links)) {
    std::string label;
    std::getline(std::ifstream(links + "/" + numbers + "/name"), label);
    std::ofstream(udev_notes() + "/c" + numbers)
        << "I:1\nE:ID_V4L_VERSION=2\nE:ID_V4L_PRODUCT=" << label
        << "\nE:ID_V4L_CAPABILITIES=:capture:video_output:\nV:1\n";
  }
}

void Places::follow_devices() {
  const std::vector<Entry> ours = entries(root_ + "/dev");
  // None at all: the daemon has gone, and its devices with it.
  if (ours.empty()) return;
  for (const auto& [name, type] : ours) {
    const std::string link = "/dev/" + name, target = root_ + "/dev/" + name;
    if (symlink(target.c_str(), link.c_str()) != 0) continue;
    undo_.push_back([target, link] { remove_link(target, link); });
    if (is_directory(udev_notes())) note_devices_for_udev();
  }
  for (const auto& [name, type] : entries("/dev")) {
    const std::string link = "/dev/" + name, target = root_ + "/dev/" + name;
    const bool there =
        std::any_of(ours.begin(), ours.end(), [&](const Entry& each) { return each.name == name; });
    if (type == S_IFLNK && !there) remove_link(target, link);
  }
}

void Places::clear_stale() {
  std::vector<std::string> places;
  std::ifstream mounts("/proc/self/mountinfo");
  for (std::string line; std::getline(mounts, line);) {
    std::istringstream words(line);
    std::string skipped, place, word;
    words >> skipped >> skipped >> skipped >> skipped >> place;
    while (words >> word && word != "-") {
    }
    words >> skipped >> word;
    if (word == kSource && place.starts_with("/sys/")) places.push_back(place);
  }
  // The last that was mounted first.
  for (auto place = places.rbegin(); place != places.rend(); ++place)
    umount2(place->c_str(), MNT_DETACH);
  for (const auto& [name, type] : entries("/dev")) {
    const std::string link = "/dev/" + name;
    if (type == S_IFLNK && link_of(AT_FDCWD, link).ends_with("/dev/" + name) &&
        access(link.c_str(), F_OK) != 0)
      unlink(link.c_str());
  }
}

void Places::undo() {
  for (auto step = undo_.rbegin(); step != undo_.rend(); ++step) (*step)();
  undo_.clear();
}

}  // namespace loopback
