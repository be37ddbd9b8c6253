// Does one thing to a device that no well-behaved program does, and says what came of it in a JSON
// line, {"event":"tried"}. Some attempts then last until SIGTERM.
//
//   device_intruder DEVICE --attempt NAME [--uid U]
#include "intruder_buffers.h"
#include "intruder_memory.h"
#include "intruder_waits.h"
#include "ordinary_user.h"

namespace {

// Takes back what device_fuzz may have set.
void reset(const std::string& path) {
  const int fd = open_device(path, O_RDWR | O_NONBLOCK);
  for (uint32_t number = 0; number < 3; ++number) {
    v4l2_control control{(V4L2_CID_USER_BASE | 0xf000) + number, 0};
    must(call_ioctl(fd, VIDIOC_S_CTRL, &control), "S_CTRL");
  }
  // Whoever has a timeout image to write, writes it: the next producer is one again.
  const char byte = 0;
  if (write(fd, &byte, 1) < 0) give_up("write");
  JsonLine().text("event", "tried").error(0).print();
}

const struct {
  const char* name;
  void (*make)(const std::string& path);
} kAttempts[] = {
    {"reset", reset},
    {"buffers-while-reading", buffers_while_reading},
    {"buffers-while-writing", buffers_while_writing},
    {"buffers-of-both-directions", buffers_of_both_directions},
    {"truncate-and-map", truncate_and_map},
    {"impossible-times", impossible_times},
    {"buffers-too-small", buffers_too_small},
    {"image-of-another-format", image_of_another_format},
    {"many-images", many_images},
    {"many-subscriptions", many_subscriptions},
    {"many-writes", many_writes},
    {"many-opens", many_opens},
    {"controls-in-the-dark", controls_in_the_dark},
    {"one-control", one_control},
    {"many-splices", many_splices},
    {"dequeue-behind-epoll", dequeue_behind_epoll},
    {"vector-in-a-buffer", vector_in_a_buffer},
    {"fault-all-the-time", fault_all_the_time},
};

}  // namespace

int main(int count, char** words) {
  const Options options(count, words, {"attempt=", "uid="});
  become_user(static_cast<uid_t>(options.number("uid", 65534)));
  catch_stop_signals();
  const std::string name = options.text("attempt", "");
  for (const auto& attempt : kAttempts) {
    if (name != attempt.name) continue;
    attempt.make(options.device());
    return 0;
  }
  fprintf(stderr, "there is no attempt '%s'\n", name.c_str());
  return 2;
}
