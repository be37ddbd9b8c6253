// A V4L2 opener that does what it is told: one command a line on standard input, one JSON line for
// each on standard output, {"ok":true,...} or {"ok":false,"errno":"EBUSY"}. A command that makes no
// sense gets {"ok":false,"errno":null,"message":...}. Several openers may be open at once.
//
//   open NAME PATH [r|w|rw] [nonblock] [append] [truncate]    close NAME    dup NAME NEW
//   querycap NAME    g_fmt NAME type    s_fmt|try_fmt NAME type WxH FOURCC [field=] [sizeimage=]
//   enum_fmt NAME type index    enum_framesizes NAME FOURCC index
//   enum_frameintervals NAME FOURCC WxH index    g_parm NAME type    s_parm NAME type num/den
//   reqbufs NAME type count [memory]    create_bufs NAME type count [sizeimage]
//   querybuf NAME type index    map|unmap NAME type    fill NAME type index BYTE
//   peek NAME type index    qbuf NAME type index [bytesused] [timestamp_us]    dqbuf NAME type
//   streamon|streamoff NAME type    poll NAME in,out,pri timeout_ms    read NAME bytes
//   fork_read NAME bytes    write NAME bytes BYTE    fcntl NAME nonblock on|off
//   g_ctrl NAME id    s_ctrl NAME id value    queryctrl NAME id
//   g_ext_ctrls|s_ext_ctrls|try_ext_ctrls NAME which id[=value],...
//   subscribe|unsubscribe NAME type [id] [flags]    dqevent NAME
//   g_priority NAME    s_priority NAME n    ioctl NAME request(hex) [size]
//   alarm ms: signals, without SA_RESTART, interrupt the next command after so long
#include "json_line.h"
#include "stop_signals.h"
#include "talk_buffers.h"
#include "talk_controls.h"
#include "talk_files.h"
#include "talk_formats.h"

namespace {

bool read_line(std::string* line) {
  line->clear();
  for (char character = 0;;) {
    const ssize_t count = read(STDIN_FILENO, &character, 1);
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) return false;
    if (character == '\n') return true;
    *line += character;
  }
}

void carry_out(Session& session, const Commands& commands, const std::string& line) {
  Words words(line);
  JsonLine learned;
  int error = 0;
  std::string message;
  try {
    const std::string name = words.take("command");
    const auto command = commands.find(name);
    if (command == commands.end()) throw BadCommand{name + ": no such command"};
    // It repeats, so that it cannot come too early on a slow machine and then be missed.
    const int alarm_ms = session.alarm_ms;
    session.alarm_ms = 0;
    if (alarm_ms > 0) interrupt_calls(alarm_ms, alarm_ms);
    error = command->second(session, words, learned);
    if (alarm_ms > 0) interrupt_calls(0, 0);
  } catch (const BadCommand& bad) {
    interrupt_calls(0, 0);
    message = bad.message;
  }
  JsonLine answer;
  const bool ok = error == 0 && message.empty();
  answer.flag("ok", ok);
  if (!ok) answer.error(error);
  if (!message.empty()) answer.text("message", message);
  answer.members_of(learned).print();
}

}  // namespace

int main() {
  set_handler(SIGALRM, [](int) {});
  Commands commands;
  add_file_commands(commands);
  add_format_commands(commands);
  add_buffer_commands(commands);
  add_control_commands(commands);
  Session session;
  for (std::string line; read_line(&line);) carry_out(session, commands, line);
  return 0;
}
