// device_talk: controls, events, and any other ioctl.
#pragma once

#include "talk_session.h"

inline int talk_g_ctrl(Session& session, Words& words, JsonLine& answer) {
  Opener& opener = session.opener(words);
  v4l2_control control{static_cast<uint32_t>(words.number("id")), 0};
  const int error = call_ioctl(opener.fd, VIDIOC_G_CTRL, &control);
  if (error == 0) answer.number("value", control.value);
  return error;
}

inline int talk_s_ctrl(Session& session, Words& words, JsonLine& answer) {
  Opener& opener = session.opener(words);
  v4l2_control control{};
  control.id = static_cast<uint32_t>(words.number("id"));
  control.value = static_cast<int32_t>(words.number("value"));
  const int error = call_ioctl(opener.fd, VIDIOC_S_CTRL, &control);
  if (error == 0) answer.number("value", control.value);
  return error;
}

inline int talk_queryctrl(Session& session, Words& words, JsonLine& answer) {
  Opener& opener = session.opener(words);
  v4l2_queryctrl found{};
  found.id = static_cast<uint32_t>(words.number("id"));
  if (const int error = call_ioctl(opener.fd, VIDIOC_QUERYCTRL, &found)) return error;
  const char* name = reinterpret_cast<const char*>(found.name);
  answer.count("id", found.id).text("name", std::string(name, strnlen(name, sizeof found.name)));
  answer.count("type", found.type).number("minimum", found.minimum);
  answer.number("maximum", found.maximum).number("step", found.step);
  answer.number("default", found.default_value).count("flags", found.flags);
  return 0;
}

// NAME which id[=value],...
inline int ext_controls(unsigned long request, Session& session, Words& words, JsonLine& answer) {
  Opener& opener = session.opener(words);
  v4l2_ext_controls all{};
  all.which = static_cast<uint32_t>(words.number("which"));
  std::vector<v4l2_ext_control> controls;
  std::istringstream list(words.take_or(""));
  for (std::string word; std::getline(list, word, ',');) {
    const size_t equals = word.find('=');
    v4l2_ext_control control{};
    control.id = static_cast<uint32_t>(Words::parsed("id", word.substr(0, equals)));
    if (equals != std::string::npos) {
      control.value = static_cast<int32_t>(Words::parsed("value", word.substr(equals + 1)));
    }
    controls.push_back(control);
  }
  all.count = static_cast<uint32_t>(controls.size());
  all.controls = controls.data();
  const int error = call_ioctl(opener.fd, request, &all);
  answer.count("error_idx", all.error_idx);
  std::string values = "[";
  for (const v4l2_ext_control& control : controls) {
    values += (values.size() > 1 ? "," : "") + std::to_string(control.value);
  }
  answer.raw("values", values + "]");
  return error;
}

inline int talk_g_ext_ctrls(Session& session, Words& words, JsonLine& answer) {
  return ext_controls(VIDIOC_G_EXT_CTRLS, session, words, answer);
}

inline int talk_s_ext_ctrls(Session& session, Words& words, JsonLine& answer) {
  return ext_controls(VIDIOC_S_EXT_CTRLS, session, words, answer);
}

inline int talk_try_ext_ctrls(Session& session, Words& words, JsonLine& answer) {
  return ext_controls(VIDIOC_TRY_EXT_CTRLS, session, words, answer);
}

inline v4l2_event_subscription subscription(Words& words) {
  v4l2_event_subscription wanted{};
  wanted.type = static_cast<uint32_t>(words.number("type"));
  wanted.id = static_cast<uint32_t>(words.number_or("id", 0));
  wanted.flags = static_cast<uint32_t>(words.number_or("flags", 0));
  return wanted;
}

inline int talk_subscribe(Session& session, Words& words, JsonLine&) {
  Opener& opener = session.opener(words);
  v4l2_event_subscription wanted = subscription(words);
  return call_ioctl(opener.fd, VIDIOC_SUBSCRIBE_EVENT, &wanted);
}

inline int talk_unsubscribe(Session& session, Words& words, JsonLine&) {
  Opener& opener = session.opener(words);
  v4l2_event_subscription wanted = subscription(words);
  return call_ioctl(opener.fd, VIDIOC_UNSUBSCRIBE_EVENT, &wanted);
}

inline int talk_dqevent(Session& session, Words& words, JsonLine& answer) {
  v4l2_event event{};
  const int error = call_ioctl(session.opener(words).fd, VIDIOC_DQEVENT, &event);
  if (error != 0) return error;
  answer.count("type", event.type).count("id", event.id).count("sequence", event.sequence);
  answer.count("pending", event.pending);
  if (event.type == V4L2_EVENT_SOURCE_CHANGE) answer.count("changes", event.u.src_change.changes);
  if (event.type == V4L2_EVENT_CTRL) {
    answer.count("changes", event.u.ctrl.changes).number("value", event.u.ctrl.value);
  }
  return 0;
}

// NAME request size: with a zeroed argument, which has room whatever the request says.
inline int talk_ioctl(Session& session, Words& words, JsonLine& answer) {
  Opener& opener = session.opener(words);
  const std::string text = words.take("request");
  const unsigned long request = strtoul(text.c_str(), nullptr, 16);
  const auto size = static_cast<size_t>(words.number_or("size", 0));
  std::vector<uint8_t> argument(std::max<size_t>(size, 65536));
  const int result = ioctl(opener.fd, request, argument.data());
  if (result < 0) return errno;
  std::string bytes;
  for (size_t i = 0; i < std::min<size_t>(size, 64); ++i) {
    char shown[4];
    snprintf(shown, sizeof shown, "%02x", argument[i]);
    bytes += shown;
  }
  answer.number("result", result).text("bytes", bytes);
  return 0;
}

inline void add_control_commands(Commands& commands) {
  commands["g_ctrl"] = talk_g_ctrl;
  commands["s_ctrl"] = talk_s_ctrl;
  commands["queryctrl"] = talk_queryctrl;
  commands["g_ext_ctrls"] = talk_g_ext_ctrls;
  commands["s_ext_ctrls"] = talk_s_ext_ctrls;
  commands["try_ext_ctrls"] = talk_try_ext_ctrls;
  commands["subscribe"] = talk_subscribe;
  commands["unsubscribe"] = talk_unsubscribe;
  commands["dqevent"] = talk_dqevent;
  commands["ioctl"] = talk_ioctl;
}
