// The directory of a mount: names, attributes, entries.
#include <dirent.h>
#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include <algorithm>
#include <charconv>
#include <string_view>

#include "device_inode.h"
#include "fuse_session.h"

namespace loopback {

namespace {

// With a size that no write reaches, the kernel never takes the inode's lock exclusively to extend
// the file (design section 3).
constexpr uint64_t kFileSize = 1ull << 62;
constexpr uint64_t kAttributesValidSeconds = 3600;

}  // namespace

uint64_t FuseSession::inode_number(const V4l2Device& device) const {
  return to_inode({kVideoMajor, device.setup().minor, device.setup().number});
}

bool FuseSession::dispatch_directory(const Incoming& in) {
  const Request request = request_of(in);
  switch (in.header->opcode) {
    case FUSE_LOOKUP:
      lookup(in);
      return true;
    case FUSE_FORGET:
      forget(in.header->nodeid, reinterpret_cast<const fuse_forget_in*>(in.body)->nlookup);
      return true;
    case FUSE_BATCH_FORGET: {
      const auto* batch = reinterpret_cast<const fuse_batch_forget_in*>(in.body);
      const auto* one = reinterpret_cast<const fuse_forget_one*>(batch + 1);
      const size_t fits = (in.body_size - sizeof *batch) / sizeof *one;
      for (uint32_t i = 0; i < std::min<size_t>(batch->count, fits); ++i)
        forget(one[i].nodeid, one[i].nlookup);
      return true;
    }
    case FUSE_GETATTR:
      getattr(in);
      return true;
    case FUSE_SETATTR:
      setattr(in);
      return true;
    case FUSE_OPENDIR: {
      const fuse_open_out out{};
      reply(request, &out, sizeof out);
      return true;
    }
    case FUSE_READDIR:
      readdir(in);
      return true;
    case FUSE_RELEASEDIR:
    case FUSE_FSYNCDIR:
      reply_error(request, 0);
      return true;
    case FUSE_STATFS: {
      fuse_statfs_out out{};
      out.st.bsize = out.st.frsize = 4096;
      out.st.namelen = 255;
      reply(request, &out, sizeof out);
      return true;
    }
    case FUSE_CREATE:
    case FUSE_MKNOD:
    case FUSE_MKDIR:
    case FUSE_SYMLINK:
    case FUSE_LINK:
    case FUSE_UNLINK:
    case FUSE_RMDIR:
    case FUSE_RENAME:
    case FUSE_RENAME2:
      reply_error(request, EPERM);
      return true;
    case FUSE_SETXATTR:
    case FUSE_GETXATTR:
    case FUSE_LISTXATTR:
    case FUSE_REMOVEXATTR:
      // Once: the kernel does not ask again.
      reply_error(request, ENOSYS);
      return true;
    case FUSE_DESTROY:
      reply_error(request, 0);
      return true;
    default:
      return false;
  }
}

fuse_attr FuseSession::attributes_of(uint64_t id) const {
  fuse_attr attr{};
  attr.atime = attr.mtime = attr.ctime = started_seconds_;
  attr.blksize = 4096;
  attr.uid = options_.uid;
  attr.gid = options_.gid;
  attr.nlink = 1;
  const auto node = nodes_.find(id);
  if (node != nodes_.end() && node->second.is_control) {
    attr.ino = to_inode(kControlInode);
    attr.mode = S_IFREG | (options_.mode & 0777);
    attr.size = kFileSize;
    return attr;
  }
  if (node == nodes_.end() || node->second.device == nullptr) {
    attr.ino = id == FUSE_ROOT_ID ? 1 : id;
    attr.mode = id == FUSE_ROOT_ID ? S_IFDIR | 0755 : S_IFREG;
    attr.nlink = id == FUSE_ROOT_ID ? 2 : 0;
    if (id == FUSE_ROOT_ID) attr.uid = attr.gid = 0;
    return attr;
  }
  attr.ino = inode_number(*node->second.device);
  attr.mode = S_IFREG | (options_.mode & 0777);
  attr.size = kFileSize;
  return attr;
}

void FuseSession::lookup(const Incoming& in) {
  const char* name = reinterpret_cast<const char*>(in.body);
  const size_t length = strnlen(name, in.body_size);
  constexpr size_t kPrefix = 5;
  uint32_t number = 0;
  const bool named = in.header->nodeid == FUSE_ROOT_ID && length > kPrefix &&
                     memcmp(name, "video", kPrefix) == 0 &&
                     std::from_chars(name + kPrefix, name + length, number).ptr == name + length &&
                     // One name for each: not video010.
                     "video" + std::to_string(number) == std::string(name, length);
  const auto device = named ? devices_.find(number) : devices_.end();
  const bool is_control =
      in.header->nodeid == FUSE_ROOT_ID && std::string_view(name, length) == kControlName;
  if (device == devices_.end() && !is_control) return reply_error(request_of(in), ENOENT);
  const uint64_t id = next_node_++;
  Node& node = nodes_[id];
  node.device = is_control ? nullptr : device->second.get();
  node.is_control = is_control;
  node.lookups = 1;
  fuse_entry_out out{};
  out.nodeid = id;
  out.attr = attributes_of(id);
  out.attr_valid = kAttributesValidSeconds;
  // An entry that is valid for no time makes the next lookup another inode.
  out.entry_valid = 0;
  reply(request_of(in), &out, sizeof out);
}

void FuseSession::forget(uint64_t id, uint64_t count) {
  const auto node = nodes_.find(id);
  if (node == nodes_.end()) return;
  node->second.lookups -= std::min(node->second.lookups, count);
  if (node->second.lookups == 0 && node->second.opens == 0) nodes_.erase(node);
}

void FuseSession::getattr(const Incoming& in) {
  if (in.header->nodeid != FUSE_ROOT_ID && !nodes_.contains(in.header->nodeid))
    return reply_error(request_of(in), ENOENT);
  fuse_attr_out out{};
  out.attr = attributes_of(in.header->nodeid);
  out.attr_valid = kAttributesValidSeconds;
  reply(request_of(in), &out, sizeof out);
}

// Truncating succeeds and does nothing, as on a device; so does touching. The rest is not ours.
void FuseSession::setattr(const Incoming& in) {
  const auto* wanted = reinterpret_cast<const fuse_setattr_in*>(in.body);
  if ((wanted->valid & (FATTR_MODE | FATTR_UID | FATTR_GID)) != 0)
    return reply_error(request_of(in), EPERM);
  getattr(in);
}

void FuseSession::readdir(const Incoming& in) {
  const auto* wanted = reinterpret_cast<const fuse_read_in*>(in.body);
  struct Entry {
    std::string name;
    uint64_t ino;
    uint32_t type;
  };
  std::vector<Entry> entries = {{".", 1, DT_DIR}, {"..", 1, DT_DIR}};
  for (const auto& [number, device] : devices_)
    entries.push_back({"video" + std::to_string(number), inode_number(*device), DT_REG});
  entries.push_back({kControlName, to_inode(kControlInode), DT_REG});
  std::vector<char> out;
  for (uint64_t at = wanted->offset; at < entries.size(); ++at) {
    const Entry& entry = entries[at];
    fuse_dirent dirent{};
    dirent.ino = entry.ino;
    dirent.off = at + 1;
    dirent.namelen = static_cast<uint32_t>(entry.name.size());
    dirent.type = entry.type;
    const size_t padded = FUSE_DIRENT_ALIGN(FUSE_NAME_OFFSET + entry.name.size());
    if (out.size() + padded > wanted->size) break;
    const size_t start = out.size();
    out.resize(start + padded);
    memcpy(out.data() + start, &dirent, FUSE_NAME_OFFSET);
    memcpy(out.data() + start + FUSE_NAME_OFFSET, entry.name.data(), entry.name.size());
  }
  reply(request_of(in), out.data(), out.size());
}

}  // namespace loopback
