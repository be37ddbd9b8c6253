// What a device is compared with: the same frames by another way, measured in the same manner.
//
//   transport WAY --bytes N --frames N [--warmup N] [--fps F]
//
//   memcpy   arena ─▶ arena
//   cached   one buffer ─▶ another, always the same two
//   tmpfs    arena ─ pwrite ─▶ a tmpfs file of 64 MB, its pages there already ─ pread ─▶ arena
//   pipe     arena ─ write ─▶ a pipe of 1 MiB ─ read ─▶ arena, two processes
//   unix     the same through a stream socket pair
//   fuse     the same through a file of a FUSE mount that does nothing else (bare_fuse.h)
//   fuse-uring
//            the same, where its requests come by io_uring (bare_fuse_uring.h)
//   wake     a few bytes through a pipe at --fps: how long it takes to wake a reader
//
// Each side prints a line: {"event":"sent"} and {"event":"done"}.
#include <sys/socket.h>
#include <sys/wait.h>

#include "../../native/fuse_mount.h"
#include "../../test/programs/json_line.h"
#include "../../test/programs/stop_signals.h"
#include "../../test/programs/v4l2_device.h"
#include "arena.h"
#include "bare_fuse_uring.h"
#include "samples.h"
#include "stamped_frame.h"

namespace {

constexpr int kPipeBytes = 1 << 20;
constexpr size_t kFileBytes = size_t{64} << 20;

[[noreturn]] void fail(const char* what) {
  JsonLine().text("event", "done").error(errno).text("at", what).print();
  exit(1);
}

struct Load {
  size_t bytes;
  uint64_t frames;
  uint64_t warmup;
  double fps;
  uint64_t all() const { return warmup + frames; }
};

// Runs `step` for every frame, and prints how long those after the warm-up took.
template <typename Step>
void measure(const char* event, const Load& load, Step step) {
  Samples calls(load.frames);
  Samples sents(load.frames);
  int64_t start_ns = now_ns();
  int64_t start_cpu_ns = cpu_ns();
  for (uint64_t number = 0; number < load.all(); ++number) {
    if (number == load.warmup) {
      start_ns = now_ns();
      start_cpu_ns = cpu_ns();
    }
    const int64_t before = now_ns();
    const int64_t sent_ns = step(number);
    const int64_t after = now_ns();
    if (number < load.warmup) continue;
    calls.add(after - before);
    if (sent_ns != 0) sents.add(after - sent_ns);
  }
  JsonLine line;
  line.text("event", event).count("frames", load.all()).error(0);
  line.number("elapsedNs", now_ns() - start_ns).number("cpuNs", cpu_ns() - start_cpu_ns);
  line.raw("callNs", calls.json()).raw("sentNs", sents.json()).print();
}

void copy_memory(const Load& load, size_t arena_bytes) {
  Arena from(load.bytes, arena_bytes);
  Arena to(load.bytes, arena_bytes);
  measure("done", load, [&](uint64_t) {
    memcpy(to.next(), from.next(), load.bytes);
    return 0;
  });
}

void through_file(const Load& load) {
  // A memfd is a file of the kernel's own tmpfs.
  const int fd = memfd_create("bench", MFD_CLOEXEC);
  const size_t bytes = std::max(kFileBytes, load.bytes);
  if (fd < 0 || fallocate(fd, 0, 0, static_cast<off_t>(bytes)) != 0) fail("fallocate");
  Arena from(load.bytes);
  Arena to(load.bytes);
  const size_t places = bytes / load.bytes;
  measure("done", load, [&](uint64_t number) {
    const auto at = static_cast<off_t>(number % places * load.bytes);
    const auto wanted = static_cast<ssize_t>(load.bytes);
    if (pwrite(fd, from.next(), load.bytes, at) != wanted) fail("pwrite");
    if (pread(fd, to.next(), load.bytes, at) != wanted) fail("pread");
    return 0;
  });
}

void send_whole(int fd, const uint8_t* frame, size_t bytes) {
  for (size_t done = 0; done < bytes;) {
    const ssize_t step = write(fd, frame + done, bytes - done);
    if (step < 0) fail("write");
    done += static_cast<size_t>(step);
  }
}

void receive_whole(int fd, uint8_t* frame, size_t bytes) {
  for (size_t done = 0; done < bytes;) {
    const ssize_t step = read(fd, frame + done, bytes - done);
    if (step <= 0) fail("read");
    done += static_cast<size_t>(step);
  }
}

// `ends`: to read from, to write to.
void between_processes(const Load& load, const int (&ends)[2]) {
  const pid_t child = fork();
  if (child < 0) fail("fork");
  if (child == 0) {
    close(ends[0]);
    Arena from(load.bytes);
    const int64_t begin_ns = now_ns();
    measure("sent", load, [&](uint64_t number) {
      if (load.fps > 0)
        sleep_until(begin_ns + static_cast<int64_t>(static_cast<double>(number) * 1e9 / load.fps));
      uint8_t* frame = from.next();
      put_stamp(frame, {0, number, now_ns()});
      send_whole(ends[1], frame, load.bytes);
      return 0;
    });
    _exit(0);
  }
  close(ends[1]);
  Arena to(load.bytes);
  measure("done", load, [&](uint64_t) {
    uint8_t* frame = to.next();
    receive_whole(ends[0], frame, load.bytes);
    return stamp_of(frame).sent_ns;
  });
  int status = 0;
  waitpid(child, &status, 0);
  if (status != 0) exit(1);
}

void through_pipe(const Load& load) {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) fail("pipe");
  if (fcntl(ends[1], F_SETPIPE_SZ, kPipeBytes) < 0) fail("F_SETPIPE_SZ");
  between_processes(load, ends);
}

void through_socket(const Load& load) {
  int ends[2];
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) fail("socketpair");
  // More than wmem_max for root alone; an ordinary user's socket keeps what it may have.
  const int bytes = kPipeBytes;
  if (setsockopt(ends[1], SOL_SOCKET, SO_SNDBUFFORCE, &bytes, sizeof bytes) != 0)
    setsockopt(ends[1], SOL_SOCKET, SO_SNDBUF, &bytes, sizeof bytes);
  between_processes(load, ends);
}

template <typename Server>
void through_fuse(const Load& load) {
  char folder[] = "/tmp/bare-fuse-XXXXXX";
  if (mkdtemp(folder) == nullptr) fail("mkdtemp");
  loopback::MountOptions mount;
  mount.mountpoint = folder;
  mount.fsname = mount.subtype = "bare";
  mount.max_read = loopback::ReplyPipe::most_bytes();
  const int session = loopback::mount_fuse(mount);
  const pid_t server = fork();
  if (server < 0) fail("fork");
  if (server == 0) {
    Server(session, load.bytes).serve();
    _exit(0);
  }
  close(session);
  const std::string path = std::string(folder) + "/" + BareFuse::kFile;
  const int ends[2] = {open(path.c_str(), O_RDONLY | O_CLOEXEC),
                       open(path.c_str(), O_WRONLY | O_CLOEXEC)};
  const int error = errno;
  // At once, so that nothing is left whatever happens: it ends with its last open file.
  loopback::unmount_fuse(folder);
  rmdir(folder);
  errno = error;
  if (ends[0] < 0 || ends[1] < 0) fail("open");
  between_processes(load, ends);
  close(ends[0]);
  waitpid(server, nullptr, 0);
}

}  // namespace

int main(int count, char** arguments) {
  const Options options(count, arguments, {"bytes=", "frames=", "warmup=", "fps="});
  const std::string& way = options.device();
  const Load load{static_cast<size_t>(options.number("bytes", 614400)),
                  static_cast<uint64_t>(options.number("frames", 100)),
                  static_cast<uint64_t>(options.number("warmup", 0)), options.real("fps", 0)};
  if (way == "memcpy") {
    copy_memory(load, Arena::kBytes);
  } else if (way == "cached") {
    copy_memory(load, load.bytes);
  } else if (way == "tmpfs") {
    through_file(load);
  } else if (way == "pipe" || way == "wake") {
    through_pipe(load);
  } else if (way == "unix") {
    through_socket(load);
  } else if (way == "fuse") {
    through_fuse<BareFuse>(load);
  } else if (way == "fuse-uring") {
    through_fuse<BareFuseUring>(load);
  } else {
    fprintf(stderr, "%s: memcpy, cached, tmpfs, pipe, unix, fuse, fuse-uring or wake is wanted\n",
            way.c_str());
    return 2;
  }
}
