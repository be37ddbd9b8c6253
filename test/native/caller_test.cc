#include "caller.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <functional>

#include "check.h"
#include "temporary_directory.h"

using namespace loopback;

namespace {

// A child that does one thing; killed and waited for with the test.
class Child {
 public:
  explicit Child(const std::function<void()>& body) {
    pid_ = fork();
    if (pid_ == 0) {
      body();
      _exit(0);
    }
    CHECK(pid_ > 0);
  }
  ~Child() {
    kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
  }
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;
  pid_t pid() const { return pid_; }

 private:
  pid_t pid_;
};

struct Pipe {
  int read_end, write_end;
  Pipe() {
    int ends[2];
    CHECK_EQ(pipe2(ends, O_CLOEXEC), 0);
    read_end = ends[0];
    write_end = ends[1];
  }
  ~Pipe() {
    close(read_end);
    close(write_end);
  }
  // Until not one more byte fits.
  void fill() const {
    fcntl(write_end, F_SETFL, O_NONBLOCK);
    char page[4096] = {0};
    while (write(write_end, page, sizeof(page)) > 0) {
    }
    while (write(write_end, page, 1) > 0) {
    }
    fcntl(write_end, F_SETFL, 0);
  }
};

// Asks again until the answer is there, since the child needs its time to get to the call.
template <typename Ask>
auto eventually(Ask ask) {
  for (int attempt = 0; attempt < 6000; ++attempt) {
    if (auto answer = ask()) return answer;
    const timespec pause{0, 10000000};
    nanosleep(&pause, nullptr);
  }
  return ask();
}

bool may_read_calls(pid_t pid) {
  return access(("/proc/" + std::to_string(pid) + "/syscall").c_str(), R_OK) == 0;
}

uint64_t inode_of(int fd) {
  struct stat status;
  CHECK_EQ(fstat(fd, &status), 0);
  return status.st_ino;
}

}  // namespace

TEST(descriptorFlagsShowWhatFcntlSet) {
  const TemporaryDirectory files;
  const std::string path = files.write("file", "x");
  const int fd = open(path.c_str(), O_RDWR | O_CLOEXEC);
  CHECK(fd >= 0);
  const pid_t self = static_cast<pid_t>(syscall(SYS_gettid));
  std::optional<int> flags = descriptor_flags(self, inode_of(fd));
  CHECK(flags.has_value());
  CHECK_EQ(*flags & O_ACCMODE, O_RDWR);
  CHECK_EQ(*flags & O_NONBLOCK, 0);
  fcntl(fd, F_SETFL, O_NONBLOCK);
  flags = descriptor_flags(self, inode_of(fd));
  CHECK_EQ(*flags & O_NONBLOCK, O_NONBLOCK);

  struct stat status;
  CHECK_EQ(fstat(fd, &status), 0);
  CHECK(descriptor_flags(self, status.st_ino, status.st_dev).has_value());
  CHECK(!descriptor_flags(self, status.st_ino + 1000000007));
  close(fd);
}

TEST(descriptorFlagsIgnoreTheSameInodeOfAnotherMount) {
  const TemporaryDirectory files;
  const int fd = open(files.write("file", "x").c_str(), O_RDONLY | O_CLOEXEC);
  struct stat here, elsewhere;
  CHECK_EQ(fstat(fd, &here), 0);
  CHECK_EQ(stat("/proc", &elsewhere), 0);
  const pid_t self = static_cast<pid_t>(syscall(SYS_gettid));
  const bool listed = descriptor_flags(self, here.st_ino, here.st_dev).has_value();
  CHECK(listed);
  CHECK(!descriptor_flags(self, here.st_ino, elsewhere.st_dev));
  close(fd);
}

TEST(descriptorFlagsPreferTheDescriptorOfThePresentCall) {
  const Pipe pipe;
  pipe.fill();
  // Two open files of one pipe, which have one inode: the lower one is not the one in use.
  const Child child([&] {
    const std::string path = "/proc/self/fd/" + std::to_string(pipe.write_end);
    const int other = open(path.c_str(), O_WRONLY | O_APPEND);
    char byte = 0;
    if (other > pipe.write_end) (void)!write(other, &byte, 1);
    pause();
  });
  if (!may_read_calls(child.pid())) SKIP("/proc/PID/syscall is not there");
  CHECK(eventually([&] { return write_byte_count(child.pid()); }).has_value());
  const std::optional<int> flags = descriptor_flags(child.pid(), inode_of(pipe.write_end));
  CHECK(flags.has_value());
  CHECK_EQ(*flags & O_APPEND, O_APPEND);
}

TEST(writeByteCountOfABlockedWrite) {
  const Pipe pipe;
  pipe.fill();
  const Child child([&] {
    static char frame[123456];
    (void)!write(pipe.write_end, frame, sizeof(frame));
  });
  if (!may_read_calls(child.pid())) SKIP("/proc/PID/syscall is not there");
  const auto count = eventually([&] { return write_byte_count(child.pid()); });
  CHECK(count.has_value());
  CHECK_EQ(*count, 123456u);
}

TEST(writeByteCountOfABlockedWritevIsTheSumOfItsParts) {
  const Pipe pipe;
  pipe.fill();
  const Child child([&] {
    static char frame[70000];
    const iovec parts[3] = {{frame, 70000}, {frame, 5}, {frame, 1000}};
    (void)!writev(pipe.write_end, parts, 3);
  });
  if (!may_read_calls(child.pid())) SKIP("/proc/PID/syscall is not there");
  const auto count = eventually([&] { return write_byte_count(child.pid()); });
  CHECK(count.has_value());
  CHECK_EQ(*count, 71005u);
}

TEST(writeByteCountIsUnknownInAnotherCall) {
  const Pipe pipe;
  const Child child([&] {
    char byte;
    (void)!read(pipe.read_end, &byte, 1);
  });
  if (!may_read_calls(child.pid())) SKIP("/proc/PID/syscall is not there");
  // Once it waits in read, its descriptor is known and its byte count is not.
  CHECK(eventually([&] { return descriptor_flags(child.pid(), inode_of(pipe.read_end)); }));
  CHECK(!write_byte_count(child.pid()));
  CHECK(!write_byte_count(0));
}

TEST(commandAndProcessOfAThread) {
  const pid_t self = getpid();
  CHECK_EQ(process_of(static_cast<pid_t>(syscall(SYS_gettid))), self);
  char name[32] = {0};
  std::FILE* file = std::fopen("/proc/self/comm", "w");
  if (file == nullptr) SKIP("/proc/self/comm is not writable");
  std::FILE* old = std::fopen("/proc/self/comm", "r");
  CHECK(std::fgets(name, sizeof(name), old) != nullptr);
  std::fclose(old);
  std::fputs(
      "a\tb\x01"
      "c",
      file);
  std::fclose(file);
  const std::string command = command_of(self);
  file = std::fopen("/proc/self/comm", "w");
  std::fputs(name, file);
  std::fclose(file);
  CHECK_EQ(command, "a b c");
  CHECK_EQ(command_of(0), "?");
}

TEST(anEndedProcessIsUnknownAndNoError) {
  pid_t gone;
  {
    const Child child([] {});
    gone = child.pid();
  }
  CHECK_EQ(command_of(gone), "?");
  CHECK_EQ(process_of(gone), gone);
  CHECK(!descriptor_flags(gone, 1));
  CHECK(!write_byte_count(gone));
  char byte = 0;
  CHECK_EQ(read_caller_memory(gone, 4096, &byte, 1), ESRCH);
  CHECK_EQ(write_caller_memory(gone, 4096, &byte, 1), ESRCH);
}

TEST(callerMemoryIsCopiedWholeOrNotAtAll) {
  const size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  void* area = mmap(nullptr, 2 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  CHECK(area != MAP_FAILED);
  munmap(static_cast<char*>(area) + page, page);
  std::memset(area, 'A', page);
  const uint64_t address = reinterpret_cast<uint64_t>(area);
  char copy[16] = {0};
  const pid_t self = getpid();
  CHECK_EQ(read_caller_memory(self, address + page - 16, copy, 16), 0);
  CHECK_EQ(std::string(copy, 16), std::string(16, 'A'));
  CHECK_EQ(read_caller_memory(self, address + page - 8, copy, 16), EFAULT);
  CHECK_EQ(read_caller_memory(self, 0, copy, 1), EFAULT);
  CHECK_EQ(write_caller_memory(self, address, "hello", 5), 0);
  CHECK_EQ(std::string(static_cast<char*>(area), 5), "hello");
  CHECK_EQ(write_caller_memory(self, address + page - 2, "hello", 5), EFAULT);
  CHECK_EQ(read_caller_memory(self, 0, copy, 0), 0);
  munmap(area, page);
}
