// The device files of a mount: each request is decoded here and decided by the device.
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>

#include <algorithm>
#include <system_error>

#include "caller.h"
#include "fuse_session.h"

namespace loopback {

bool FuseSession::dispatch_file(const Incoming& in) {
  const Request request = request_of(in);
  switch (in.header->opcode) {
    case FUSE_OPEN:
      open(in);
      return true;
    case FUSE_READ: {
      if (page_read(in)) return true;
      const auto* read = reinterpret_cast<const fuse_read_in*>(in.body);
      // Not read(2): a splice, which a device does not know. It must not wait: it may be one of the
      // few requests that the kernel sends in the background, as each close is.
      if ((read->read_flags & FUSE_READ_LOCKOWNER) == 0) {
        reply_error(request, EINVAL);
        return true;
      }
      OpenFile* opened = file(read->fh);
      if (opened == nullptr)
        reply_error(request, control_files_.contains(read->fh) ? EINVAL : EBADF);
      else
        opened->device->read(opened->opener, request, read->size, static_cast<int>(read->flags));
      return true;
    }
    case FUSE_WRITE: {
      if (page_write(in)) return true;
      const auto* write = reinterpret_cast<const fuse_write_in*>(in.body);
      OpenFile* opened = file(write->fh);
      if (opened == nullptr) {
        reply_error(request, control_files_.contains(write->fh) ? EINVAL : EBADF);
      } else {
        writer_repeats_ = last_writer_ == write->fh;
        last_writer_ = write->fh;
        opened->device->write(opened->opener, request, in.first, in.rest,
                              static_cast<int>(write->flags), &slot_);
      }
      return true;
    }
    case FUSE_IOCTL:
      ioctl(in);
      return true;
    case FUSE_POLL:
      poll(in);
      return true;
    case FUSE_RELEASE:
      release(in);
      return true;
    case FUSE_INTERRUPT: {
      // The request waits with a device, or is looked into aside, or has been answered.
      const uint64_t unique = reinterpret_cast<const fuse_interrupt_in*>(in.body)->unique;
      const bool waits = std::any_of(devices_.begin(), devices_.end(), [unique](auto& each) {
        return each.second->interrupt(unique);
      });
      if (!waits) interrupt_aside(unique);
      return true;
    }
    case FUSE_NOTIFY_REPLY:
      retrieved(in);
      return true;
    case FUSE_FSYNC:
      reply_error(request, 0);
      return true;
    case FUSE_FLUSH:
    case FUSE_ACCESS:
    case FUSE_LSEEK:
    case FUSE_COPY_FILE_RANGE:
    case FUSE_FALLOCATE:
      // Once: the kernel then does without.
      reply_error(request, ENOSYS);
      return true;
    default:
      return false;
  }
}

FuseSession::OpenFile* FuseSession::file(uint64_t handle) {
  const auto found = files_.find(handle);
  return found == files_.end() ? nullptr : &found->second;
}

void FuseSession::open(const Incoming& in) {
  const auto* wanted = reinterpret_cast<const fuse_open_in*>(in.body);
  const Request request = request_of(in);
  const auto found = nodes_.find(in.header->nodeid);
  if (found == nodes_.end()) return reply_error(request, ENODEV);
  Node& node = found->second;
  WireOpenOut out{};
  if (node.is_control) {
    out.open_flags = FOPEN_DIRECT_IO | FOPEN_NOFLUSH;
    out.fh = next_file_++;
    ++node.opens;
    control_files_[out.fh] = in.header->nodeid;
    return reply(request, &out, sizeof out);
  }
  if (node.device == nullptr) return reply_error(request, ENODEV);
  // Every read and write is a request; none is cut at a file's end, which a device has not.
  out.open_flags = FOPEN_DIRECT_IO | FOPEN_NOFLUSH;
  try {
    if (node.window == nullptr) node.window = std::make_shared<Window>();
  } catch (const std::system_error& error) {
    return reply_error(request, error.code().value());
  }
  if (io_mode_ == IoMode::kPassthrough) {
    // An inode has one backing file: a second open of it (by /proc/self/fd) shares the window.
    if (node.opens == 0 && !open_backing(node.window->fd(), &node.backing_id))
      return reply_error(request, errno);
    // Not FOPEN_PARALLEL_DIRECT_WRITES: of a file's writes one waits with us, with its bytes; the
    // others wait in the kernel.
    out.open_flags |= FOPEN_PASSTHROUGH;
    out.backing_id = node.backing_id;
  } else if (io_mode_ == IoMode::kPageCache) {
    out.open_flags |= FOPEN_KEEP_CACHE;
  }
  Opener* opener = node.device->open(static_cast<int>(wanted->flags),
                                     process_of(static_cast<pid_t>(in.header->pid)), node.window);
  opener->node = in.header->nodeid;
  ++node.opens;
  out.fh = next_file_++;
  files_[out.fh] = {in.header->nodeid, node.device, opener};
  reply(request, &out, sizeof out);
}

void FuseSession::release(const Incoming& in) {
  const auto* wanted = reinterpret_cast<const fuse_release_in*>(in.body);
  const auto found = files_.find(wanted->fh);
  if (const auto control = control_files_.find(wanted->fh); control != control_files_.end()) {
    const auto at = nodes_.find(control->second);
    if (at != nodes_.end() && --at->second.opens == 0 && at->second.lookups == 0) nodes_.erase(at);
    control_files_.erase(control);
  } else if (found != files_.end()) {
    const OpenFile closed = found->second;
    files_.erase(found);
    std::erase_if(retrievals_,
                  [&](const auto& each) { return each.second.opener == closed.opener; });
    closed.device->release(closed.opener);
    const auto at = nodes_.find(closed.node);
    if (at != nodes_.end() && --at->second.opens == 0) {
      Node& node = at->second;
      if (node.backing_id > 0) ::ioctl(fd_, kBackingClose, &node.backing_id);
      node.backing_id = 0;
      node.window.reset();
      if (node.lookups == 0) nodes_.erase(at);
    }
  }
  reply_error(request_of(in), 0);
}

void FuseSession::ioctl(const Incoming& in) {
  const auto* wanted = reinterpret_cast<const fuse_ioctl_in*>(in.body);
  Request request = request_of(in);
  request.out_size = wanted->out_size;
  OpenFile* opened = file(wanted->fh);
  const bool is_control = control_files_.contains(wanted->fh);
  if (opened == nullptr && !is_control) return reply_error(request, ENOTTY);
  const uint32_t size = _IOC_SIZE(wanted->cmd);
  const uint8_t* brought = in.body + sizeof *wanted;
  const size_t brought_size = in.body_size - sizeof *wanted;
  // 32-bit programs have structs of another layout.
  if ((!is_control && _IOC_TYPE(wanted->cmd) != 'V') || (wanted->flags & FUSE_IOCTL_32BIT) != 0 ||
      wanted->in_size > brought_size || wanted->in_size > size)
    return reply_error(request, ENOTTY);
  alignas(16) uint8_t argument[1 << _IOC_SIZEBITS];
  memset(argument, 0, size);
  memcpy(argument, brought, wanted->in_size);
  if (is_control) return control_ioctl(request, wanted->cmd, argument, wanted->arg);
  opened->device->ioctl(opened->opener, request, wanted->cmd, argument, wanted->arg);
}

void FuseSession::poll(const Incoming& in) {
  const auto* wanted = reinterpret_cast<const fuse_poll_in*>(in.body);
  OpenFile* opened = file(wanted->fh);
  fuse_poll_out out{POLLERR, 0};
  if (opened != nullptr)
    out.revents =
        opened->device->poll(opened->opener, wanted->events,
                             (wanted->flags & FUSE_POLL_SCHEDULE_NOTIFY) != 0, wanted->kh);
  reply(request_of(in), &out, sizeof out);
}

}  // namespace loopback
