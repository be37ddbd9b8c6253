// The places where programs and scripts look for a video device: /dev/videoN and /sys. Puts a
// daemon's files there, beside what the host has, and takes them away again.
//
// clang-format off
//   /dev/videoN                       a link into the daemon's directory. Not a bind of the file:
//                                     all opens of one bound file share an inode, and with it a lock
//   /sys/class/video4linux            ┐ a tmpfs over the directory above, in which all else is
//   /sys/devices/virtual/video4linux  │ bound as it was, and our directory among it
//   /sys/module/v4l2loopback          ┘
//   /sys/dev/char                     an overlay: links only, nothing to be written
//   /run/udev/data                    an overlay: what udev would have noted of our devices
// clang-format on
#pragma once

#include <functional>
#include <string>
#include <vector>

namespace loopback {

class Places {
 public:
  /// `root` is where the daemon's `dev` and `sys` are.
  explicit Places(std::string root) : root_(std::move(root)) {}

  /// Covers /dev with a tmpfs in which everything is bound as it was: what is made in it stays
  /// inside. Only for a private namespace.
  static void cover_dev();
  /// Throws where a device of the host's has the number of one of ours.
  void link_devices();
  void show_in_sys();
  /// libudev lists what udev has a note of: GStreamer's device monitor asks it. Only for a private
  /// namespace.
  void show_in_udev();
  /// Links devices that were added since, and takes away the links of those that were removed.
  void follow_devices();

  /// Takes away what a system-wide guard that was killed has left.
  static void clear_stale();
  /// Takes away what was put there, the last first. Never throws.
  void undo();

 private:
  struct Entry {
    std::string name;
    unsigned type;  // S_IFMT of it, not followed.
  };
  static std::vector<Entry> entries(const std::string& directory);
  static void bind(const std::string& what, const std::string& where);
  static void bind_all(int old_directory, const std::vector<Entry>& entries,
                       const std::string& where);
  /// Leaves out the entry `except`.
  void cover(const std::string& place, const std::string& except = "");
  void put(const std::string& place, const std::string& name);
  void overlay(const std::string& place, const std::string& ours);
  std::string udev_notes() const { return root_ + ".udev"; }
  void note_devices_for_udev() const;

  std::string root_;
  std::vector<std::function<void()>> undo_;
};

}  // namespace loopback
