// What a file is to each call of the stat family. Linked statically: no preloaded library reaches
// it.
//
//     device_kind PATH
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

namespace {

char kind(int failed, unsigned mode) {
  if (failed != 0) return '!';
  return S_ISCHR(mode) ? 'c' : S_ISREG(mode) ? '-' : '?';
}

}  // namespace

int main(int, char** arguments) {
  const char* path = arguments[1];
  struct stat one {
  }, two{}, three{};
  struct statx four {};
  const int file = open(path, O_RDWR | O_NONBLOCK);
  const int a = stat(path, &one);
  const int b = fstat(file, &two);
  const int c = fstatat(AT_FDCWD, path, &three, 0);
  const int d = statx(AT_FDCWD, path, 0, STATX_BASIC_STATS, &four);
  printf("stat=%c fstat=%c fstatat=%c statx=%c major=%u minor=%u\n", kind(a, one.st_mode),
         kind(b, two.st_mode), kind(c, three.st_mode), kind(d, four.stx_mode), major(two.st_rdev),
         four.stx_rdev_minor);
  return 0;
}
