#pragma once

#include <stdexcept>
#include <string>

namespace loopback {

/// A mount that could not be made. `what()` is one sentence that names what is missing.
class MountError : public std::runtime_error {
 public:
  MountError(int error, const std::string& sentence)
      : std::runtime_error(sentence), errno_(error) {}
  /// The errno, never 0.
  int error() const { return errno_; }

 private:
  int errno_;
};

struct MountOptions {
  /// An existing directory, as an absolute path.
  std::string mountpoint;
  /// Users other than the one who mounts may go in.
  bool allow_other = false;
  /// What /proc/mounts shows as the source and, behind "fuse.", as the type.
  std::string fsname = "v4l2loopback";
  std::string subtype = "v4l2loopback";
  /// Largest read(2) request in bytes; 0 for the kernel's own limit.
  unsigned max_read = 0;
  /// The setuid helper; tests name another.
  std::string fusermount = "fusermount3";
};

/// Mounts, and returns the session's descriptor of /dev/fuse (O_CLOEXEC, the caller's to close):
/// by mount(2) where we may, else through fusermount3. Throws MountError.
int mount_fuse(const MountOptions& options);

/// Detaches the mount at once, also while files in it are open. 0 or an errno (EINVAL: nothing is
/// mounted there).
int unmount_fuse(const std::string& mountpoint, const std::string& fusermount = "fusermount3");

}  // namespace loopback
