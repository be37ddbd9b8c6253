// device_talk: streaming I/O.
#pragma once

#include "talk_session.h"

inline int talk_reqbufs(Session& session, Words& words, JsonLine& answer) {
  Opener& opener = session.opener(words);
  v4l2_requestbuffers request{};
  request.type = words.type();
  request.count = static_cast<uint32_t>(words.number("count"));
  request.memory = words.memory();
  const int error = call_ioctl(opener.fd, VIDIOC_REQBUFS, &request);
  if (error == 0) answer.count("count", request.count).count("capabilities", request.capabilities);
  return error;
}

// NAME type count [sizeimage]: the format is that of G_FMT.
inline int talk_create_bufs(Session& session, Words& words, JsonLine& answer) {
  Opener& opener = session.opener(words);
  v4l2_create_buffers request{};
  request.format.type = words.type();
  request.count = static_cast<uint32_t>(words.number("count"));
  request.memory = V4L2_MEMORY_MMAP;
  if (const int error = call_ioctl(opener.fd, VIDIOC_G_FMT, &request.format)) return error;
  const int64_t sizeimage = words.number_or("sizeimage", -1);
  if (sizeimage >= 0) request.format.fmt.pix.sizeimage = static_cast<uint32_t>(sizeimage);
  const int error = call_ioctl(opener.fd, VIDIOC_CREATE_BUFS, &request);
  if (error == 0) answer.count("index", request.index).count("count", request.count);
  return error;
}

inline int64_t timestamp_us(const v4l2_buffer& buffer) {
  return buffer.timestamp.tv_sec * 1'000'000LL + buffer.timestamp.tv_usec;
}

inline void show_buffer(const v4l2_buffer& buffer, JsonLine& answer) {
  static const struct {
    uint32_t bit;
    const char* name;
  } kNames[] = {
      {V4L2_BUF_FLAG_MAPPED, "mapped"},      {V4L2_BUF_FLAG_QUEUED, "queued"},
      {V4L2_BUF_FLAG_DONE, "done"},          {V4L2_BUF_FLAG_ERROR, "error"},
      {V4L2_BUF_FLAG_LAST, "last"},          {V4L2_BUF_FLAG_TIMESTAMP_MONOTONIC, "monotonic"},
      {V4L2_BUF_FLAG_TIMESTAMP_COPY, "copy"}};
  std::vector<std::string> names;
  for (const auto& known : kNames) {
    if ((buffer.flags & known.bit) != 0) names.push_back(known.name);
  }
  answer.count("index", buffer.index).count("bytesused", buffer.bytesused);
  answer.count("sequence", buffer.sequence).number("timestamp_us", timestamp_us(buffer));
  answer.count("flags", buffer.flags).texts("flagNames", names).count("field", buffer.field);
  answer.count("length", buffer.length).count("offset", buffer.m.offset);
}

inline int talk_querybuf(Session& session, Words& words, JsonLine& answer) {
  Opener& opener = session.opener(words);
  v4l2_buffer buffer{};
  buffer.type = words.type();
  buffer.memory = V4L2_MEMORY_MMAP;
  buffer.index = static_cast<uint32_t>(words.number("index"));
  const int error = call_ioctl(opener.fd, VIDIOC_QUERYBUF, &buffer);
  if (error == 0) show_buffer(buffer, answer);
  return error;
}

inline int talk_map(Session& session, Words& words, JsonLine& answer) {
  Opener& opener = session.opener(words);
  const uint32_t type = words.type();
  std::vector<MappedBuffer>& mapped = opener.mapped[type];
  const int access = fcntl(opener.fd, F_GETFL) & O_ACCMODE;
  const int protection = access == O_RDONLY ? PROT_READ : PROT_READ | PROT_WRITE;
  const int error = map_buffers(opener.fd, type, protection, &mapped);
  answer.count("count", mapped.size());
  return error;
}

inline MappedBuffer& mapped_buffer(Opener& opener, uint32_t type, int64_t index) {
  std::vector<MappedBuffer>& mapped = opener.mapped[type];
  if (index < 0 || static_cast<size_t>(index) >= mapped.size()) {
    throw BadCommand{std::to_string(index) + ": not mapped"};
  }
  return mapped[static_cast<size_t>(index)];
}

inline int talk_fill(Session& session, Words& words, JsonLine&) {
  Opener& opener = session.opener(words);
  const uint32_t type = words.type();
  const MappedBuffer& buffer = mapped_buffer(opener, type, words.number("index"));
  memset(buffer.start, static_cast<int>(words.number("BYTE")), buffer.length);
  return 0;
}

inline int talk_peek(Session& session, Words& words, JsonLine& answer) {
  Opener& opener = session.opener(words);
  const uint32_t type = words.type();
  const MappedBuffer& buffer = mapped_buffer(opener, type, words.number("index"));
  answer.number("first", buffer.start[0]).number("last", buffer.start[buffer.length - 1]);
  return 0;
}

inline int talk_qbuf(Session& session, Words& words, JsonLine& answer) {
  Opener& opener = session.opener(words);
  v4l2_buffer buffer{};
  buffer.type = words.type();
  buffer.memory = V4L2_MEMORY_MMAP;
  buffer.index = static_cast<uint32_t>(words.number("index"));
  buffer.field = V4L2_FIELD_NONE;
  const std::vector<MappedBuffer>& mapped = opener.mapped[buffer.type];
  const size_t whole = buffer.index < mapped.size() ? mapped[buffer.index].length : 0;
  buffer.bytesused =
      static_cast<uint32_t>(words.number_or("bytesused", static_cast<int64_t>(whole)));
  const int64_t stamp = words.number_or("timestamp_us", 0);
  buffer.timestamp.tv_sec = stamp / 1'000'000;
  buffer.timestamp.tv_usec = stamp % 1'000'000;
  const int error = call_ioctl(opener.fd, VIDIOC_QBUF, &buffer);
  if (error == 0) show_buffer(buffer, answer);
  return error;
}

inline int talk_dqbuf(Session& session, Words& words, JsonLine& answer) {
  Opener& opener = session.opener(words);
  v4l2_buffer buffer{};
  buffer.type = words.type();
  buffer.memory = V4L2_MEMORY_MMAP;
  if (const int error = call_ioctl(opener.fd, VIDIOC_DQBUF, &buffer)) return error;
  show_buffer(buffer, answer);
  const std::vector<MappedBuffer>& mapped = opener.mapped[buffer.type];
  if (buffer.index < mapped.size() && buffer.bytesused > 0 &&
      buffer.bytesused <= mapped[buffer.index].length) {
    const uint8_t* bytes = mapped[buffer.index].start;
    answer.number("first", bytes[0]).number("last", bytes[buffer.bytesused - 1]);
  }
  return 0;
}

inline int talk_streamon(Session& session, Words& words, JsonLine&) {
  Opener& opener = session.opener(words);
  uint32_t type = words.type();
  return call_ioctl(opener.fd, VIDIOC_STREAMON, &type);
}

inline int talk_streamoff(Session& session, Words& words, JsonLine&) {
  Opener& opener = session.opener(words);
  uint32_t type = words.type();
  return call_ioctl(opener.fd, VIDIOC_STREAMOFF, &type);
}

inline void add_buffer_commands(Commands& commands) {
  commands["reqbufs"] = talk_reqbufs;
  commands["create_bufs"] = talk_create_bufs;
  commands["querybuf"] = talk_querybuf;
  commands["map"] = talk_map;
  commands["fill"] = talk_fill;
  commands["peek"] = talk_peek;
  commands["qbuf"] = talk_qbuf;
  commands["dqbuf"] = talk_dqbuf;
  commands["streamon"] = talk_streamon;
  commands["streamoff"] = talk_streamoff;
}
