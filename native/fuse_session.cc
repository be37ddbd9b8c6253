#include "fuse_session.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <utility>

#include "fuse_mount.h"

namespace loopback {

namespace {

constexpr size_t kPage = 4096;

// As many pages a request as the system allows (Linux 6.13 and later say; 256 before).
uint32_t max_pages() {
  uint32_t pages = 256;
  std::ifstream("/proc/sys/fs/fuse/max_pages_limit") >> pages;
  return std::clamp<uint32_t>(pages, 32, 4096);
}

}  // namespace

const char* io_mode_name(IoMode mode) {
  switch (mode) {
    case IoMode::kPassthrough:
      return "passthrough";
    case IoMode::kPageCache:
      return "page-cache";
    case IoMode::kReadWrite:
      return "read-write";
  }
  return "";
}

FuseSession::FuseSession(SessionOptions options) : options_(std::move(options)) {
  MountOptions mount;
  mount.mountpoint = options_.mountpoint;
  mount.allow_other = options_.allow_other;
  mount.max_read = ReplyPipe::most_bytes();
  gate_->session = this;
  fd_ = mount_fuse(mount);
  started_seconds_ = static_cast<uint64_t>(time(nullptr));
  try {
    initialize();
    choose_io_mode();
  } catch (...) {
    unmount_fuse(options_.mountpoint);
    close(fd_);
    throw;
  }
  start_threads();
}

FuseSession::~FuseSession() { stop(); }

// The first request of a mount is INIT; it is answered before anything else may be asked.
void FuseSession::initialize() {
  const uint32_t pages = max_pages();
  max_write_ = pages * kPage;
  std::vector<uint8_t> request(max_write_ + kPage);
  ssize_t size;
  do {
    size = ::read(fd_, request.data(), request.size());
  } while (size < 0 && (errno == EINTR || errno == EAGAIN));
  const auto* header = reinterpret_cast<const fuse_in_header*>(request.data());
  if (size < static_cast<ssize_t>(sizeof *header) || header->opcode != FUSE_INIT)
    throw MountError(size < 0 ? errno : EPROTO, "the kernel did not begin with FUSE_INIT");
  fuse_init_in in{};
  memcpy(&in, request.data() + sizeof *header,
         std::min(sizeof in, static_cast<size_t>(size) - sizeof *header));
  uint64_t offered = in.flags;
  if ((in.flags & FUSE_INIT_EXT) != 0) offered |= static_cast<uint64_t>(in.flags2) << 32;
  if (in.major != 7 || in.minor < 23)
    throw MountError(EPROTO, "the kernel speaks FUSE " + std::to_string(in.major) + "." +
                                 std::to_string(in.minor) + ", 7.23 or later is needed");
  passthrough_offered_ = (offered & FUSE_PASSTHROUGH) != 0;
  mmap_offered_ = (offered & FUSE_DIRECT_IO_ALLOW_MMAP) != 0;
  // Not FUSE_ATOMIC_O_TRUNC: the kernel then takes the file for empty, and mapping it for an error.
  const uint64_t wanted =
      offered & (FUSE_ASYNC_READ | FUSE_BIG_WRITES | FUSE_PARALLEL_DIROPS | FUSE_MAX_PAGES |
                 FUSE_INIT_EXT | FUSE_PASSTHROUGH | FUSE_DIRECT_IO_ALLOW_MMAP);
  WireInitOut out{};
  out.major = 7;
  out.minor = std::min<uint32_t>(in.minor, 40);
  out.max_readahead = 0;
  out.flags = static_cast<uint32_t>(wanted);
  out.flags2 = static_cast<uint32_t>(wanted >> 32);
  out.max_background = 64;
  out.congestion_threshold = 48;
  out.max_write = max_write_;
  out.time_gran = 1;
  out.max_pages = static_cast<uint16_t>(pages);
  // 1: a backing file lies on a file system that is not stacked itself.
  out.max_stack_depth = passthrough_offered_ ? 1 : 0;
  send(header->unique, 0, &out, sizeof out);
}

// INIT grants passthrough even where it will be refused; only the ioctl tells.
void FuseSession::choose_io_mode() {
  const auto available = [this](IoMode mode) {
    if (mode == IoMode::kReadWrite) return true;
    if (mode == IoMode::kPageCache) return mmap_offered_;
    if (!passthrough_offered_) return false;
    const int probe = memfd_create("v4l2loopback-probe", MFD_CLOEXEC);
    int32_t id = 0;
    const bool granted = probe >= 0 && open_backing(probe, &id);
    if (granted) ::ioctl(fd_, kBackingClose, &id);
    if (probe >= 0) close(probe);
    return granted;
  };
  if (options_.io_mode.has_value()) {
    if (!available(*options_.io_mode))
      throw MountError(EOPNOTSUPP, std::string("the kernel refuses io mode ") +
                                       io_mode_name(*options_.io_mode) + " here");
    io_mode_ = *options_.io_mode;
    return;
  }
  for (IoMode mode : {IoMode::kPassthrough, IoMode::kPageCache, IoMode::kReadWrite}) {
    if (!available(mode)) continue;
    io_mode_ = mode;
    break;
  }
  if (io_mode_ == IoMode::kReadWrite)
    options_.log(LogLevel::kWarn, -1,
                 "this kernel lets no program map our buffers: read() and write() only");
}

bool FuseSession::open_backing(int fd, int32_t* id) {
  WireBackingMap map{fd, 0, 0};
  *id = ::ioctl(fd_, kBackingOpen, &map);
  return *id > 0;
}

std::string FuseSession::add_device(DeviceSetup setup) {
  const uint32_t number = setup.number;
  const RingParameters parameters = setup.ring;
  // Of longer lines the bytes would not fit into 32 bits.
  if (std::max(setup.min_width, setup.min_height) > kLongestSide)
    return "the least size, " + std::to_string(setup.min_width) + "x" +
           std::to_string(setup.min_height) + ", is above " + std::to_string(kLongestSide) +
           " pixels a side";
  setup.max_width = std::min(setup.max_width, kLongestSide);
  setup.max_height = std::min(setup.max_height, kLongestSide);
  auto made = std::make_unique<V4l2Device>(std::move(setup), this, options_.log);
  // Before anybody can open it: frames of which no two fit are refused here.
  const std::string wrong = made->ring().set_parameters(parameters, false, monotonic_now());
  if (!wrong.empty()) return wrong;
  auto guard = lock();
  if (!devices_.try_emplace(number, std::move(made)).second)
    return "video" + std::to_string(number) + " is there already";
  return "";
}

int FuseSession::remove_device(uint32_t number) {
  std::unique_ptr<V4l2Device> removed;  // Destroyed after the lock is given back.
  auto guard = lock();
  const auto found = devices_.find(number);
  if (found == devices_.end()) return ENODEV;
  if (found->second->open_count() > 0) return EBUSY;
  removed = std::move(found->second);
  devices_.erase(found);
  for (auto& [id, node] : nodes_) {
    if (node.device == removed.get()) node.device = nullptr;
  }
  guard.unlock();
  return 0;
}

V4l2Device* FuseSession::device(uint32_t number) {
  const auto found = devices_.find(number);
  return found == devices_.end() ? nullptr : found->second.get();
}

std::vector<uint32_t> FuseSession::device_numbers() {
  auto guard = lock();
  std::vector<uint32_t> numbers;
  for (const auto& [number, device] : devices_) numbers.push_back(number);
  return numbers;
}

void FuseSession::kick() {
  {
    auto guard = lock();
    kicked_ = true;
  }
  clock_changed_.notify_one();
}

void FuseSession::stop() {
  // Before the readers end: a store may wait for a page that only they can bring.
  end_stores();
  join_threads();
  if (fd_ < 0) return;
  {
    std::lock_guard entered(gate_->mutex);
    gate_->session = nullptr;
  }
  {
    auto guard = lock();
    retrievals_.clear();
    for (auto& [number, device] : devices_) device->fail_all(ENODEV);
    for (const auto& [ticket, request] : control_calls_) reply_error(request, ENODEV);
    control_calls_.clear();
    while (!owed_.empty()) {
      Request request;
      request.unique = owed_.begin()->first;
      reply_error(request, ENODEV);
    }
  }
  if (!unmounted_) unmount_fuse(options_.mountpoint);
  unmounted_ = true;
  // What is still asked is answered ECONNABORTED by the kernel.
  close(fd_);
  fd_ = -1;
  aside_.end();
  auto guard = lock();
  files_.clear();
  control_files_.clear();
  nodes_.clear();
  stores_.clear();
  devices_.clear();
}

void FuseSession::dispatch(const Incoming& in) {
  if (!dispatch_file(in) && !dispatch_directory(in)) reply_error(request_of(in), ENOSYS);
}

Request FuseSession::request_of(const Incoming& in) const {
  Request request;
  request.unique = in.header->unique;
  request.tid = static_cast<pid_t>(in.header->pid);
  request.uid = in.header->uid;
  const auto node = nodes_.find(in.header->nodeid);
  if (node != nodes_.end() && node->second.device != nullptr)
    request.inode = inode_number(*node->second.device);
  return request;
}

// The kernel refuses an answer with ENOENT where the request was given up meanwhile: no loss.
void FuseSession::send(uint64_t unique, int error, const void* data, size_t size, const void* more,
                       size_t more_size) {
  fuse_out_header header;
  header.unique = unique;
  header.error = error;
  header.len = static_cast<uint32_t>(sizeof header + size + more_size);
  iovec parts[3] = {{&header, sizeof header},
                    {const_cast<void*>(data), size},
                    {const_cast<void*>(more), more_size}};
  [[maybe_unused]] const ssize_t sent = writev(fd_, parts, more_size > 0 ? 3 : size > 0 ? 2 : 1);
}

void FuseSession::reply_error(const Request& request, int error) {
  owed_.erase(request.unique);
  send(request.unique, -error);
}

void FuseSession::reply(const Request& request, const void* data, size_t size) {
  owed_.erase(request.unique);
  send(request.unique, 0, data, size);
}

void FuseSession::reply_bytes(const Request& request, Bytes bytes) {
  if (bytes.keeps == nullptr || copies_ == nullptr) return reply(request, bytes.data, bytes.size);
  owed_.erase(request.unique);
  const auto copy = [this, unique = request.unique](const Bytes& from, ReplyPipe& pipe) {
    const fuse_out_header header{static_cast<uint32_t>(sizeof header + from.size), 0, unique};
    if (!pipe.send(fd_, header, from.data, from.size)) send(unique, 0, from.data, from.size);
  };
  copies_->push_back({std::move(bytes), copy, {}});
}

// Into the program's buffer: the session's memfd, or by way of the page cache.
void FuseSession::show(const Opener& opener, const Request& request,
                       std::shared_ptr<Window::Region> region, Bytes bytes,
                       std::function<void()> then) {
  owed_.erase(request.unique);
  if (io_mode_ == IoMode::kPageCache)
    return store(opener.node, std::move(region), std::move(bytes), std::move(then));
  if (bytes.keeps == nullptr || copies_ == nullptr) {
    memcpy(region->data(), bytes.data, bytes.size);
    return then();
  }
  region->showing = true;
  const auto copy = [region](const Bytes& from, ReplyPipe&) {
    memcpy(region->data(), from.data, from.size);
  };
  copies_->push_back({std::move(bytes), copy, [this, node = opener.node, region, then] {
                        shown(node, region.get(), then);
                      }});
}

void FuseSession::shown(uint64_t node, Window::Region* region, const std::function<void()>& then) {
  region->showing = false;
  then();
  if (!std::exchange(region->awaited, false)) return;
  const auto found = nodes_.find(node);
  if (found == nodes_.end() || found->second.device == nullptr) return;
  found->second.device->look_again();
}

void FuseSession::reply_written(const Request& request, uint32_t bytes) {
  owed_.erase(request.unique);
  const auto answer = [this, unique = request.unique, bytes] {
    fuse_write_out out{bytes, 0};
    send(unique, 0, &out, sizeof out);
  };
  if (copies_ == nullptr || copies_->empty())
    answer();
  else
    copies_->push_back({{}, [answer](const Bytes&, ReplyPipe&) { answer(); }, {}});
}

// An ioctl's own error travels as its result: so the kernel copies the struct back all the same.
void FuseSession::reply_ioctl(const Request& request, int32_t result, const void* data,
                              size_t size) {
  owed_.erase(request.unique);
  fuse_ioctl_out out{};
  out.result = result;
  // No more than the ioctl's direction lets the caller have.
  send(request.unique, 0, &out, sizeof out, data, std::min<size_t>(size, request.out_size));
}

void FuseSession::notify_poll(uint64_t poll_handle) {
  fuse_notify_poll_wakeup_out out{poll_handle};
  send(0, FUSE_NOTIFY_POLL, &out, sizeof out);
}

void FuseSession::wake_at(Nanoseconds deadline) {
  if (deadline >= clock_at_) return;
  clock_at_ = deadline;
  clock_changed_.notify_one();
}

}  // namespace loopback
