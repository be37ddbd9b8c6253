// device_talk: capabilities, formats, frame sizes and intervals, priority.
#pragma once

#include "talk_session.h"

inline std::string fixed_text(const uint8_t* bytes, size_t size) {
  return std::string(reinterpret_cast<const char*>(bytes),
                     strnlen(reinterpret_cast<const char*>(bytes), size));
}

inline int talk_querycap(Session& session, Words& words, JsonLine& answer) {
  v4l2_capability found{};
  const int error = call_ioctl(session.opener(words).fd, VIDIOC_QUERYCAP, &found);
  if (error != 0) return error;
  answer.text("driver", fixed_text(found.driver, sizeof found.driver));
  answer.text("card", fixed_text(found.card, sizeof found.card));
  answer.text("bus_info", fixed_text(found.bus_info, sizeof found.bus_info));
  answer.count("version", found.version).count("capabilities", found.capabilities);
  answer.count("device_caps", found.device_caps);
  answer.flag("capture", (found.device_caps & V4L2_CAP_VIDEO_CAPTURE) != 0);
  answer.flag("output", (found.device_caps & V4L2_CAP_VIDEO_OUTPUT) != 0);
  return 0;
}

inline void show_format(const v4l2_format& format, JsonLine& answer) {
  const v4l2_pix_format& pix = format.fmt.pix;
  answer.count("type", format.type).count("width", pix.width).count("height", pix.height);
  answer.text("fourcc", fourcc_text(pix.pixelformat)).count("field", pix.field);
  answer.count("bytesperline", pix.bytesperline).count("sizeimage", pix.sizeimage);
  answer.count("colorspace", pix.colorspace);
}

inline int talk_g_fmt(Session& session, Words& words, JsonLine& answer) {
  Opener& opener = session.opener(words);
  v4l2_format format{};
  format.type = words.type();
  const int error = call_ioctl(opener.fd, VIDIOC_G_FMT, &format);
  if (error == 0) show_format(format, answer);
  return error;
}

// NAME type WxH FOURCC [field=none|any|interlaced|N] [sizeimage=N] [bytesperline=N]
inline int set_format(unsigned long request, Session& session, Words& words, JsonLine& answer) {
  Opener& opener = session.opener(words);
  v4l2_format format{};
  format.type = words.type();
  v4l2_pix_format& pix = format.fmt.pix;
  words.size(&pix.width, &pix.height);
  pix.pixelformat = fourcc_of(words.take("FOURCC"));
  while (!words.empty()) {
    const std::string word = words.take("setting");
    const size_t equals = word.find('=');
    if (equals == std::string::npos) throw BadCommand{word + ": NAME=VALUE is wanted"};
    const std::string name = word.substr(0, equals);
    const std::string value = word.substr(equals + 1);
    if (name == "field") {
      pix.field = value == "any"          ? static_cast<uint32_t>(V4L2_FIELD_ANY)
                  : value == "none"       ? static_cast<uint32_t>(V4L2_FIELD_NONE)
                  : value == "interlaced" ? static_cast<uint32_t>(V4L2_FIELD_INTERLACED)
                                          : static_cast<uint32_t>(Words::parsed("field", value));
    } else if (name == "sizeimage") {
      pix.sizeimage = static_cast<uint32_t>(Words::parsed("sizeimage", value));
    } else if (name == "bytesperline") {
      pix.bytesperline = static_cast<uint32_t>(Words::parsed("bytesperline", value));
    } else {
      throw BadCommand{name + ": field, sizeimage or bytesperline is wanted"};
    }
  }
  const int error = call_ioctl(opener.fd, request, &format);
  if (error == 0) show_format(format, answer);
  return error;
}

inline int talk_s_fmt(Session& session, Words& words, JsonLine& answer) {
  return set_format(VIDIOC_S_FMT, session, words, answer);
}

inline int talk_try_fmt(Session& session, Words& words, JsonLine& answer) {
  return set_format(VIDIOC_TRY_FMT, session, words, answer);
}

inline int talk_enum_fmt(Session& session, Words& words, JsonLine& answer) {
  Opener& opener = session.opener(words);
  v4l2_fmtdesc found{};
  found.type = words.type();
  found.index = static_cast<uint32_t>(words.number("index"));
  if (const int error = call_ioctl(opener.fd, VIDIOC_ENUM_FMT, &found)) return error;
  answer.text("fourcc", fourcc_text(found.pixelformat)).count("flags", found.flags);
  answer.text("description", fixed_text(found.description, sizeof found.description));
  return 0;
}

inline int talk_enum_framesizes(Session& session, Words& words, JsonLine& answer) {
  Opener& opener = session.opener(words);
  v4l2_frmsizeenum found{};
  found.pixel_format = fourcc_of(words.take("FOURCC"));
  found.index = static_cast<uint32_t>(words.number("index"));
  if (const int error = call_ioctl(opener.fd, VIDIOC_ENUM_FRAMESIZES, &found)) return error;
  answer.count("type", found.type);
  if (found.type == V4L2_FRMSIZE_TYPE_DISCRETE) {
    answer.count("width", found.discrete.width).count("height", found.discrete.height);
    return 0;
  }
  const v4l2_frmsize_stepwise& range = found.stepwise;
  answer.count("min_width", range.min_width).count("max_width", range.max_width);
  answer.count("step_width", range.step_width).count("min_height", range.min_height);
  answer.count("max_height", range.max_height).count("step_height", range.step_height);
  return 0;
}

inline std::string fraction_text(const v4l2_fract& fraction) {
  return std::to_string(fraction.numerator) + "/" + std::to_string(fraction.denominator);
}

inline int talk_enum_frameintervals(Session& session, Words& words, JsonLine& answer) {
  Opener& opener = session.opener(words);
  v4l2_frmivalenum found{};
  found.pixel_format = fourcc_of(words.take("FOURCC"));
  words.size(&found.width, &found.height);
  found.index = static_cast<uint32_t>(words.number("index"));
  if (const int error = call_ioctl(opener.fd, VIDIOC_ENUM_FRAMEINTERVALS, &found)) return error;
  answer.count("type", found.type);
  if (found.type == V4L2_FRMIVAL_TYPE_DISCRETE) {
    answer.text("interval", fraction_text(found.discrete));
  } else {
    answer.text("min", fraction_text(found.stepwise.min));
    answer.text("max", fraction_text(found.stepwise.max));
    answer.text("step", fraction_text(found.stepwise.step));
  }
  return 0;
}

// Both kinds of v4l2_streamparm begin alike: capability, mode, timeperframe.
inline void show_parameters(const v4l2_streamparm& found, JsonLine& answer) {
  const v4l2_captureparm& capture = found.parm.capture;
  answer.text("timeperframe", fraction_text(capture.timeperframe));
  answer.count("capability", capture.capability);
  answer.count("buffers", found.type == V4L2_BUF_TYPE_VIDEO_OUTPUT ? found.parm.output.writebuffers
                                                                   : capture.readbuffers);
}

inline int talk_g_parm(Session& session, Words& words, JsonLine& answer) {
  Opener& opener = session.opener(words);
  v4l2_streamparm parameters{};
  parameters.type = words.type();
  const int error = call_ioctl(opener.fd, VIDIOC_G_PARM, &parameters);
  if (error == 0) show_parameters(parameters, answer);
  return error;
}

inline int talk_s_parm(Session& session, Words& words, JsonLine& answer) {
  Opener& opener = session.opener(words);
  v4l2_streamparm parameters{};
  parameters.type = words.type();
  const std::string interval = words.take("num/den");
  v4l2_fract& timeperframe = parameters.parm.capture.timeperframe;
  if (sscanf(interval.c_str(), "%u/%u", &timeperframe.numerator, &timeperframe.denominator) != 2) {
    throw BadCommand{interval + ": num/den is wanted"};
  }
  const int error = call_ioctl(opener.fd, VIDIOC_S_PARM, &parameters);
  if (error == 0) show_parameters(parameters, answer);
  return error;
}

inline int talk_g_priority(Session& session, Words& words, JsonLine& answer) {
  uint32_t priority = 0;
  const int error = call_ioctl(session.opener(words).fd, VIDIOC_G_PRIORITY, &priority);
  if (error == 0) answer.count("priority", priority);
  return error;
}

inline int talk_s_priority(Session& session, Words& words, JsonLine&) {
  Opener& opener = session.opener(words);
  auto priority = static_cast<uint32_t>(words.number("priority"));
  return call_ioctl(opener.fd, VIDIOC_S_PRIORITY, &priority);
}

inline void add_format_commands(Commands& commands) {
  commands["querycap"] = talk_querycap;
  commands["g_fmt"] = talk_g_fmt;
  commands["s_fmt"] = talk_s_fmt;
  commands["try_fmt"] = talk_try_fmt;
  commands["enum_fmt"] = talk_enum_fmt;
  commands["enum_framesizes"] = talk_enum_framesizes;
  commands["enum_frameintervals"] = talk_enum_frameintervals;
  commands["g_parm"] = talk_g_parm;
  commands["s_parm"] = talk_s_parm;
  commands["g_priority"] = talk_g_priority;
  commands["s_priority"] = talk_s_priority;
}
