// A hostile client: malformed ioctls on the devices of a mount, between right ones, reads, writes,
// mappings and forks; a second thread gets in their way.
//
//   device_fuzz DIRECTORY --seed S --calls N [--uid U] [--deadline SECONDS]
//
// N counts malformed ioctls whose argument the kernel can read: the others never reach the device.
// Ends with a JSON line, {"event":"done"}, or with one that says what was wrong: an errno that
// V4L2 does not name for that call, or a call that did not return.
#include <fcntl.h>
#include <linux/fs.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/wait.h>

#include "fuzz_requests.h"
#include "fuzz_watch.h"
#include "ordinary_user.h"
#include "v4l2_device.h"

namespace {

constexpr uint32_t kFiles = 10;
constexpr uint32_t kMaps = 8;
constexpr size_t kArgumentBytes = 1 << 14;  // As many as a request can name.
constexpr size_t kPage = 4096;

struct Map {
  uint8_t* start = nullptr;
  size_t length = 0;
};

struct File {
  int fd = -1;
  bool control = false;
  Map maps[kMaps];
};

struct Counts {
  uint64_t malformed = 0;   // Reached the device.
  uint64_t unreadable = 0;  // The kernel could not read the argument: it answered by itself.
  uint64_t right = 0;
  uint64_t other = 0;  // Not ioctls.
};

class Fuzz {
 public:
  Fuzz(std::string directory, uint64_t seed, Stamp* stamp)
      : directory_(std::move(directory)), random_(seed), stamp_(stamp) {
    argument_ =
        static_cast<uint8_t*>(mmap(nullptr, kArgumentBytes + 3 * kPage, PROT_READ | PROT_WRITE,
                                   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    // Behind the argument's last page comes one that is out of reach, and one that may be read
    // only.
    hole_ = argument_ + kArgumentBytes;
    mprotect(hole_, kPage, PROT_NONE);
    read_only_ = hole_ + kPage;
    mprotect(read_only_, kPage, PROT_READ);
  }

  void run(uint64_t calls) {
    File* file = &files_[0];
    while (counts_.malformed < calls) {
      // A while with one file, so that streams get somewhere in between.
      if (random_.chance(3)) file = &files_[random_.below(kFiles)];
      if (file->fd < 0 || random_.below(300) == 0) {
        reopen(file);
      } else if (random_.chance(75)) {
        malformed(*file);
      } else {
        valid(file);
      }
    }
    for (File& file : files_) close_file(&file);
  }

  const Counts& counts() const { return counts_; }
  int shared(uint32_t at) const { return shared_[at % kFiles]; }

 private:
  [[noreturn]] void wrong(const char* what, uint32_t request, const char* name, int error) {
    char number[16];
    snprintf(number, sizeof number, "0x%08x", request);
    JsonLine line;
    line.text("event", "wrong").text("what", what).text("request", number).text("name", name);
    line.count("afterMalformed", counts_.malformed).error(error).print();
    _exit(1);
  }

  // --- ioctls

  enum class Argument { kReadable, kUnreadable, kUnwritable };

  int call(const File& file, uint32_t request, void* argument, Argument kind) {
    const KnownRequest* known = find_known(file.control, request);
    const char* name = known != nullptr ? known->name : "unknown";
    stamp_->enter(name, request);
    const int result = ioctl(file.fd, request, argument);
    const int error = result < 0 ? errno : 0;
    stamp_->leave();
    if (!is_allowed(known, request, error, kind)) wrong("errno", request, name, error);
    return error;
  }

  static bool is_allowed(const KnownRequest* known, uint32_t request, int error, Argument kind) {
    const bool brings = (_IOC_DIR(request) & _IOC_WRITE) != 0 && _IOC_SIZE(request) > 0;
    if (kind == Argument::kUnreadable && brings) return error == EFAULT;
    if (kind != Argument::kReadable && error == EFAULT) return true;
    if (known == nullptr) return error == ENOTTY;
    if (error == 0) return true;
    for (const int allowed : known->errors) {
      if (allowed == error) return true;
    }
    return false;
  }

  uint32_t any_known(bool control) {
    return control ? random_.of(kControlRequests).request : random_.of(kDeviceRequests).request;
  }

  uint32_t any_request(bool control) {
    switch (random_.below(10)) {
      case 0:
      case 1:
        return unclaimed(static_cast<uint32_t>(random_.next()));
      case 2:
      case 3:
        return unclaimed(static_cast<uint32_t>(
            _IOC(random_.below(4), control ? '~' : 'V', random_.below(256),
                 random_.chance(50) ? random_.below(300) : random_.below(kArgumentBytes))));
      case 4: {
        // A real one, of another size or direction.
        const uint32_t request = any_known(control);
        return _IOC(random_.chance(50) ? random_.below(4) : _IOC_DIR(request), _IOC_TYPE(request),
                    _IOC_NR(request),
                    (_IOC_SIZE(request) + random_.below(17) - 8) & (kArgumentBytes - 1));
      }
      default:
        return any_known(control);
    }
  }

  // Numbers that the kernel takes for itself on every file.
  static uint32_t unclaimed(uint32_t request) {
    const uint32_t type = _IOC_TYPE(request);
    return type == 'T' || type == 'f' || type == 'X' || type == 'v' || type == 0 || type == 0x12 ||
                   type == 0x15 || type == 0x94
               ? request ^ (0x20u << _IOC_TYPESHIFT)
               : request;
  }

  void malformed(const File& file) {
    const uint32_t request = any_request(file.control);
    const size_t size = _IOC_SIZE(request);
    switch (random_.below(4)) {
      case 0:
        random_.fill(argument_, size);
        break;
      case 1:
        memset(argument_, 0, size);
        make_right(request, argument_, controls(), random_);
        random_.flip_bits(argument_, size);
        break;
      default:
        memset(argument_, 0, size);
        make_right(request, argument_, controls(), random_);
        for (uint32_t left = 1 + random_.below(3); left > 0; --left) {
          random_.set_edge(argument_, size);
        }
    }
    if (request == VIDIOC_G_EXT_CTRLS || request == VIDIOC_S_EXT_CTRLS ||
        request == VIDIOC_TRY_EXT_CTRLS) {
      misdirect_controls();
    }
    if (random_.chance(97)) {
      ++counts_.malformed;
      call(file, request, argument_, Argument::kReadable);
      return;
    }
    misplaced(file, request, size);
  }

  // The argument itself where the kernel cannot read it, or cannot write it.
  void misplaced(const File& file, uint32_t request, size_t size) {
    if (size == 0) return;
    switch (random_.below(4)) {
      case 0:
        call(file, request, nullptr, Argument::kUnreadable);
        break;
      case 1:
        call(file, request, hole_ - size / 2, Argument::kUnreadable);
        break;
      case 2:
        call(file, request, reinterpret_cast<void*>(random_.next() | 1ull << 63),
             Argument::kUnreadable);
        break;
      case 3:
        if (size > kPage) return;
        call(file, request, read_only_, Argument::kUnwritable);
    }
    ++counts_.unreadable;
  }

  v4l2_ext_control* controls() { return reinterpret_cast<v4l2_ext_control*>(hole_ - 40 * 20); }

  // The array that EXT_CTRLS points to: somewhere it should not be.
  void misdirect_controls() {
    v4l2_ext_controls outer;
    memcpy(&outer, argument_, sizeof outer);
    void* places[] = {nullptr,
                      hole_,
                      hole_ - 10,
                      read_only_,
                      argument_,
                      reinterpret_cast<void*>(random_.next()),
                      reinterpret_cast<void*>(~0ull - 15),
                      a_mapping()};
    if (random_.chance(60)) outer.controls = static_cast<v4l2_ext_control*>(random_.of(places));
    if (random_.chance(30)) outer.count = random_.edge();
    memcpy(argument_, &outer, sizeof outer);
  }

  // The first page of a mapped buffer, if there is one: memory that the session itself serves.
  void* a_mapping() {
    for (const File& file : files_) {
      for (const Map& map : file.maps) {
        if (map.start != nullptr && random_.chance(30)) return map.start;
      }
    }
    return hole_;
  }

  int right(const File& file, uint32_t request, void* argument) {
    ++counts_.right;
    return call(file, request, argument, Argument::kReadable);
  }

  // --- all else

  template <class Step>
  void other(const char* name, Step&& step) {
    ++counts_.other;
    stamp_->enter(name);
    step();
    stamp_->leave();
  }

  void check_io(const char* name, ssize_t result) {
    static const int kErrors[] = {EAGAIN, EINVAL, EBUSY, EINTR, ENOMEM, EBADF};
    if (result >= 0) return;
    const int error = errno;
    if (std::find(std::begin(kErrors), std::end(kErrors), error) == std::end(kErrors)) {
      wrong("errno", 0, name, error);
    }
  }

  void reopen(File* file) {
    close_file(file);
    file->control = random_.below(12) == 0;
    std::string path = directory_ + "/v4l2loopback";
    if (!file->control) {
      const uint32_t number = random_.chance(80) ? random_.below(4) : 50 + random_.below(6);
      path = directory_ + "/video" + std::to_string(number);
    }
    static const int kAccess[] = {O_RDWR, O_RDWR, O_RDWR, O_RDONLY, O_WRONLY};
    const int flags = random_.of(kAccess) | O_CLOEXEC | (random_.chance(75) ? O_NONBLOCK : 0) |
                      (random_.chance(5) ? O_TRUNC : 0) | (random_.chance(5) ? O_APPEND : 0);
    other("open", [&] { file->fd = open(path.c_str(), flags); });
    if (file->fd < 0 && errno != ENOENT && errno != ENODEV && errno != EMFILE && errno != ENFILE) {
      wrong("errno", 0, "open", errno);
    }
    shared_[file - files_] = file->control ? -1 : file->fd;
  }

  void close_file(File* file) {
    if (file->fd < 0) return;
    shared_[file - files_] = -1;
    if (random_.chance(70)) unmap(file);
    other("close", [&] { close(file->fd); });
    unmap(file);
    file->fd = -1;
  }

  void unmap(File* file) {
    for (Map& map : file->maps) {
      if (map.start != nullptr) munmap(map.start, map.length);
      map = {};
    }
  }

  void valid(File* file) {
    switch (random_.below(14)) {
      case 0: {
        v4l2_format format = right_format(random_, stream_type(random_));
        right(*file, VIDIOC_S_FMT, &format);
        break;
      }
      case 1:
      case 2:
        start_streaming(file);
        break;
      case 3:
      case 4:
      case 5:
        exchange_buffers(file);
        break;
      case 6: {
        uint32_t type = stream_type(random_);
        right(*file, random_.chance(50) ? VIDIOC_STREAMOFF : VIDIOC_STREAMON, &type);
        break;
      }
      case 7:
      case 8:
        read_or_write(*file);
        break;
      case 9:
        poll_it(*file);
        break;
      case 10:
        handle_descriptor(file);
        break;
      case 11:
        if (random_.chance(20)) fork_it(*file);
        break;
      case 12:
        odd_call(*file);
        break;
      case 13:
        unmap(file);
        break;
    }
  }

  void start_streaming(File* file) {
    uint32_t type = stream_type(random_);
    v4l2_requestbuffers wanted{};
    wanted.count = 1 + random_.below(4);
    wanted.type = type;
    wanted.memory = V4L2_MEMORY_MMAP;
    if (right(*file, VIDIOC_REQBUFS, &wanted) != 0) return;
    for (uint32_t index = 0; index < wanted.count; ++index) {
      v4l2_buffer buffer{};
      buffer.type = type;
      buffer.memory = V4L2_MEMORY_MMAP;
      buffer.index = index;
      if (right(*file, VIDIOC_QUERYBUF, &buffer) != 0) return;
      map_buffer(file, buffer);
      right(*file, VIDIOC_QBUF, &buffer);
    }
    right(*file, VIDIOC_STREAMON, &type);
  }

  void map_buffer(File* file, const v4l2_buffer& buffer) {
    Map& map = file->maps[random_.below(kMaps)];
    if (map.start != nullptr) munmap(map.start, map.length);
    map = {};
    void* start = MAP_FAILED;
    other("mmap", [&] {
      start = mmap(nullptr, buffer.length, PROT_READ | PROT_WRITE, MAP_SHARED, file->fd,
                   buffer.m.offset);
    });
    if (start == MAP_FAILED) return;
    map = {static_cast<uint8_t*>(start), buffer.length};
    other("touch", [&] {
      map.start[0] = static_cast<uint8_t>(random_.next());
      map.start[map.length - 1] ^= 0xff;
    });
  }

  void exchange_buffers(File* file) {
    v4l2_buffer buffer{};
    buffer.type = stream_type(random_);
    buffer.memory = V4L2_MEMORY_MMAP;
    if (right(*file, VIDIOC_DQBUF, &buffer) == 0) {
      right(*file, VIDIOC_QBUF, &buffer);
    } else {
      buffer = right_buffer(random_, buffer.type);
      right(*file, VIDIOC_QBUF, &buffer);
    }
  }

  void read_or_write(const File& file) {
    static uint8_t bytes[1 << 20];
    const size_t size = random_.chance(3) ? sizeof bytes : random_.below(9000);
    const bool whole = random_.chance(2);
    ssize_t result = 0;
    if (random_.chance(50)) {
      other("read", [&] { result = read(file.fd, bytes, size); });
      check_io("read", result);
    } else {
      other("write", [&] {
        result = whole ? pwrite(file.fd, bytes, size, random_.below(1 << 20))
                       : write(file.fd, bytes, size);
      });
      check_io("write", result);
    }
  }

  void poll_it(const File& file) {
    static const int16_t kEvents[] = {POLLIN, POLLOUT, POLLPRI, POLLIN | POLLOUT | POLLPRI, 0};
    pollfd watched{file.fd, random_.of(kEvents), 0};
    other("poll", [&] { poll(&watched, 1, static_cast<int>(random_.below(4))); });
    if (random_.chance(80)) return;
    const int epoll = epoll_create1(EPOLL_CLOEXEC);
    epoll_event event{};
    event.events = EPOLLIN | EPOLLPRI | (random_.chance(30) ? EPOLLET : 0u);
    other("epoll", [&] {
      epoll_ctl(epoll, EPOLL_CTL_ADD, file.fd, &event);
      epoll_wait(epoll, &event, 1, 1);
    });
    close(epoll);
  }

  void handle_descriptor(File* file) {
    if (random_.chance(40)) {
      const int flags = fcntl(file->fd, F_GETFL);
      fcntl(file->fd, F_SETFL, flags ^ O_NONBLOCK);
      return;
    }
    int second = -1;
    if (random_.chance(50)) {
      second = fcntl(file->fd, F_DUPFD_CLOEXEC, 0);
    } else {
      // Another open file of the same inode.
      char path[40];
      snprintf(path, sizeof path, "/proc/self/fd/%d", file->fd);
      other("open again", [&] { second = open(path, O_RDWR | O_CLOEXEC | O_NONBLOCK); });
    }
    if (second < 0) return;
    if (random_.chance(50)) std::swap(second, file->fd);
    shared_[file - files_] = file->control ? -1 : file->fd;
    other("close", [&] { close(second); });
  }

  void fork_it(const File& file) {
    pid_t child = -1;
    other("fork", [&] { child = fork(); });
    if (child == 0) {
      die_with_parent();
      // The watch did not come along.
      struct sigaction action {};
      action.sa_handler = [](int) {};
      sigaction(SIGALRM, &action, nullptr);
      const itimerval tick{{0, 5000}, {0, 5000}};
      setitimer(ITIMER_REAL, &tick, nullptr);
      for (int left = 20; left > 0; --left) malformed(file);
      _exit(0);
    }
    if (child < 0) return;
    int status = 0;
    other("waitpid", [&] {
      while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
      }
    });
    if (status != 0) wrong("a forked child's status", 0, "fork", status);
  }

  // Calls that a device does not know, or takes no notice of: they return, with whatever it is.
  void odd_call(const File& file) {
    static const unsigned long kClaimed[] = {FIONREAD,          FS_IOC_GETFLAGS,   FS_IOC_SETFLAGS,
                                             FS_IOC_FSGETXATTR, FS_IOC_GETVERSION, FIFREEZE,
                                             FIGETBSZ,          FIOASYNC};
    struct stat status;
    switch (random_.below(8)) {
      case 0:
        return other("a file's ioctl", [&] { ioctl(file.fd, random_.of(kClaimed), argument_); });
      case 1:
        return other("fstat", [&] { fstat(file.fd, &status); });
      case 2:
        return other("ftruncate", [&] { [[maybe_unused]] int r = ftruncate(file.fd, 100); });
      case 3:
        return other("fsync", [&] { fsync(file.fd); });
      case 4:
        return other("lseek", [&] { lseek(file.fd, random_.below(1 << 30), SEEK_SET); });
      case 5:
        return other("fallocate", [&] { fallocate(file.fd, 0, 0, 4096); });
      case 6: {
        int ends[2];
        if (pipe2(ends, O_CLOEXEC | O_NONBLOCK) != 0) return;
        other("splice", [&] {
          loff_t offset = loff_t{4096} * random_.below(1000);
          splice(file.fd, &offset, ends[1], nullptr, 4096, SPLICE_F_NONBLOCK);
        });
        close(ends[0]);
        close(ends[1]);
        return;
      }
      case 7:
        // A page of the file that is no buffer's.
        other("mmap anywhere", [&] {
          void* start = mmap(nullptr, kPage, PROT_READ | PROT_WRITE, MAP_SHARED, file.fd,
                             off_t{4096} * random_.below(1 << 20));
          if (start != MAP_FAILED) munmap(start, kPage);
        });
    }
  }

  const std::string directory_;
  Random random_;
  Stamp* stamp_;
  Counts counts_;
  uint8_t* argument_ = nullptr;
  uint8_t* hole_ = nullptr;
  uint8_t* read_only_ = nullptr;
  File files_[kFiles];
  std::atomic<int> shared_[kFiles] = {-1, -1, -1, -1, -1, -1, -1, -1, -1, -1};
};

// Gets in the way on the same open files. What it is answered depends on chance: nothing is said
// of that, but that it returns.
void interfere(const Fuzz& fuzz, uint64_t seed, Stamp* stamp, const std::atomic<bool>& ended) {
  Random random(seed);
  static uint8_t bytes[1 << 16];
  while (!ended) {
    const int fd = fuzz.shared(random.below(kFiles));
    stamp->enter("in the way");
    if (fd >= 0) {
      uint32_t type = stream_type(random);
      v4l2_requestbuffers wanted{};
      wanted.count = random.below(4);
      wanted.type = type;
      wanted.memory = V4L2_MEMORY_MMAP;
      v4l2_buffer buffer = right_buffer(random, type);
      switch (random.below(8)) {
        case 0:
          (void)!read(fd, bytes, random.below(sizeof bytes));
          break;
        case 1:
          (void)!write(fd, bytes, random.below(sizeof bytes));
          break;
        case 2:
          (void)!pwrite(fd, bytes, random.below(sizeof bytes), 0);
          break;
        case 3:
          ioctl(fd, VIDIOC_REQBUFS, &wanted);
          break;
        case 4:
          ioctl(fd, VIDIOC_STREAMOFF, &type);
          break;
        case 5:
          ioctl(fd, VIDIOC_STREAMON, &type);
          break;
        case 6:
          ioctl(fd, VIDIOC_QBUF, &buffer);
          break;
        case 7:
          ioctl(fd, VIDIOC_DQBUF, &buffer);
          break;
      }
    }
    stamp->leave();
    const timespec pause{0, 200'000};
    nanosleep(&pause, nullptr);
  }
}

}  // namespace

int main(int count, char** words) {
  const Options options(count, words, {"seed=", "calls=", "uid=", "deadline="});
  const auto seed = static_cast<uint64_t>(options.number("seed", 1));
  become_user(static_cast<uid_t>(options.number("uid", getuid())));
  Stamp main_stamp("fuzz"), second_stamp("in the way");
  Watch watch(static_cast<int>(options.number("deadline", 60)), 10);
  Fuzz fuzz(options.device(), seed, &main_stamp);
  std::atomic<bool> ended{false};
  std::thread second([&] { interfere(fuzz, seed + 1, &second_stamp, ended); });
  watch.add(&main_stamp, pthread_self());
  watch.add(&second_stamp, second.native_handle());
  watch.start();
  fuzz.run(static_cast<uint64_t>(options.number("calls", 1000)));
  ended = true;
  second.join();
  watch.end();
  const Counts& counts = fuzz.counts();
  JsonLine line;
  line.text("event", "done").count("malformed", counts.malformed);
  line.count("unreadable", counts.unreadable).count("right", counts.right);
  line.count("other", counts.other);
  line.number("worstMs", std::max(main_stamp.worst_ns(), second_stamp.worst_ns()) / 1'000'000);
  line.print();
  return 0;
}
