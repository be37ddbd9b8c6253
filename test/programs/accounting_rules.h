// What must hold in every reading of a ring's numbers, and between readings. Written anew from the
// contract, so that a fault in how the daemon writes a number is not shared.
#pragma once

#include <functional>

#include "accounting_text.h"

class Rules {
 public:
  // `frame_bytes`: the length of every frame, a whole number of pages; 0 where that differs.
  Rules(uint64_t frame_bytes,
        std::function<void(const std::string& rule, const std::string&)> broken)
      : frame_bytes_(frame_bytes), broken_(std::move(broken)) {}

  void check(const Consumers& consumers) const {
    const std::string& text = consumers.reading.text;
    Row sum{};
    for (const Row& row : consumers.rows) {
      check_law(row, text);
      hold(row.owed_bytes >= row.owed * kPage, "every frame owed is a page or more", text);
      hold(row.owed > 0 || row.owed_bytes + row.lag_ms == 0, "who is owed nothing lags not", text);
      if (frame_bytes_ > 0)
        hold(row.owed_bytes == row.owed * frame_bytes_, "owed_bytes are those of owed", text);
      sum.published += row.published;
      sum.delivered += row.delivered;
      sum.dropped += row.dropped;
      sum.owed += row.owed;
      sum.owed_bytes += row.owed_bytes;
      sum.lag_ms = std::max(sum.lag_ms, row.lag_ms);
    }
    const Row& total = consumers.total;
    check_law(total, text);
    // Past consumers are in it, and they are owed nothing.
    hold(total.published >= sum.published && total.delivered >= sum.delivered &&
             total.dropped >= sum.dropped,
         "the total is at least the sum", text);
    hold(total.owed == sum.owed && total.owed_bytes == sum.owed_bytes && total.lag_ms == sum.lag_ms,
         "what is owed in all is what consumers are owed", text);
  }

  void check(const Counters& c, bool dynamic) const {
    const std::string& text = c.reading.text;
    hold(c["size"] > 0 && c["size"] % kPage == 0, "size is whole pages", text);
    hold(c["used"] % kPage == 0, "used is whole pages", text);
    // A static ring may still hold what a dynamic one owed.
    if (dynamic) hold(c["used"] <= c["size"], "used <= size", text);
    hold((c["used"] > 0) == (c["owed_frames"] > 0), "used is what is owed", text);
    hold(c["owed_frames"] <= c["consumers"] * c["held_frames"], "what is owed is held", text);
    hold(c["used"] <= c["resident"] + c["held_frames"] * kPage, "what is used is resident", text);
    hold(c["stalled_consumers"] <= c["consumers"], "only consumers stall", text);
    for (const std::string kind : {"expand", "shrink"}) {
      const uint64_t count = c[(kind + "_count").c_str()], sum = c[(kind + "_ns").c_str()],
                     most = c[(kind + "_ns_max").c_str()];
      hold(count == 0 ? sum == 0 && most == 0
                      : sum >= count && most > 0 && most <= sum && sum <= count * most,
           kind + "s are measured, each of them", text);
    }
    for (const std::string what : {"published", "delivered", "dropped"}) {
      const uint64_t frames = c[(what + "_frames").c_str()], bytes = c[(what + "_bytes").c_str()];
      if (frame_bytes_ > 0)
        hold(bytes == frames * frame_bytes_, what + " frames have length", text);
      hold((frames == 0) == (bytes == 0), what + " frames have bytes", text);
    }
    if (frame_bytes_ > 0 && c["consumers"] > 0) {
      hold(c["used"] % frame_bytes_ == 0, "used is whole frames", text);
      const uint64_t slowest = c["used"] / frame_bytes_;
      hold(slowest <= c["owed_frames"] && c["owed_frames"] <= slowest * c["consumers"],
           "used is what the slowest is owed", text);
    }
  }

  // Whether a reset between them cannot be excluded.
  static bool maybe_reset(const Counters& before, const Counters& after) {
    const int64_t most_ms = (after.reading.end_ns - before.reading.begin_ns) / 1'000'000 + 1;
    return static_cast<int64_t>(after["uptime_ms"]) <= most_ms;
  }

  void check_order(const Counters& before, const Counters& after) const {
    const std::string text = before.reading.text + "then\n" + after.reading.text;
    for (const char* name :
         {"published_frames", "published_bytes", "delivered_frames", "delivered_bytes",
          "dropped_frames", "dropped_bytes", "left_frames", "aborted_frames", "expand_count",
          "expand_ns", "expand_ns_max", "shrink_count", "shrink_ns", "shrink_ns_max", "commit_ns",
          "release_ns"}) {
      hold(after[name] >= before[name], std::string(name) + " never goes back", text);
    }
    const auto passed = static_cast<int64_t>(after["uptime_ms"] - before["uptime_ms"]);
    hold(passed >= (after.reading.begin_ns - before.reading.end_ns) / 1'000'000 - 1 &&
             passed <= (after.reading.end_ns - before.reading.begin_ns) / 1'000'000 + 1,
         "uptime is the time that passes", text);
  }

  // Between two readings of the counters without a reset: what was read in between lies between.
  void check_between(const Counters& a, const Consumers& consumers, const Counters& b) const {
    const std::string text =
        a.reading.text + "then\n" + consumers.reading.text + "then\n" + b.reading.text;
    const auto within = [&](const char* name, uint64_t value) {
      hold(a[name] <= value && value <= b[name], std::string(name) + " agree with the rows", text);
    };
    within("delivered_frames", consumers.total.delivered);
    within("dropped_frames", consumers.total.dropped);
    within("left_frames", consumers.total.left);
  }

  // Returns whether nothing was resized meanwhile, so that all of it could be checked.
  bool check_between(const Counters& a, const Stats& s, const Counters& b) const {
    const std::string text = a.reading.text + "then\n" + s.reading.text + "then\n" + b.reading.text;
    const auto within = [&](const char* name, uint64_t value) {
      hold(a[name] <= value && value <= b[name], std::string(name) + " agree with the statistics",
           text);
    };
    within("published_frames", s.written);
    within("delivered_frames", s.read);
    within("dropped_frames", s.dropped);
    within("expand_count", s.expands);
    within("shrink_count", s.shrinks);
    hold(a["uptime_ms"] / 1000 <= s.uptime_s && s.uptime_s <= b["uptime_ms"] / 1000,
         "uptime agrees with the statistics", text);
    hold((s.expands > 0) == s.last_expand && (s.shrinks > 0) == s.last_shrink,
         "Last … is there once there was one", text);
    hold((s.expands > 0) == (s.expand_average != "0") &&
             (s.shrinks > 0) == (s.shrink_average != "0"),
         "a resize has taken time", text);
    if (a["published_bytes"] == b["published_bytes"])
      hold(s.written_bytes == size_text(a["published_bytes"]), "Total written", text);
    if (a["delivered_bytes"] == b["delivered_bytes"])
      hold(s.read_bytes == size_text(a["delivered_bytes"]), "Total read", text);

    const uint64_t size = a["size"];
    if (size != b["size"] || a["expand_count"] != b["expand_count"] ||
        a["shrink_count"] != b["shrink_count"])
      return false;
    hold(s.size == size_text(size), "Buffer size", text);
    hold(s.read_offset < size && s.write_offset < size, "offsets lie within the size", text);
    const uint64_t apart = (s.write_offset + size - s.read_offset % size) % size;
    const auto shows = [&](uint64_t used) {
      return s.used == size_text(used) && s.percent == used * 100 / size;
    };
    // Equal offsets are those of an empty or of a full ring.
    hold(shows(apart) || (apart == 0 && shows(size)), "Used is what the offsets say", text);
    hold(s.expand_average == average_text(a["expand_count"], a["expand_ns"]) &&
             s.shrink_average == average_text(a["shrink_count"], a["shrink_ns"]),
         "avg time is the mean", text);
    return true;
  }

 private:
  static constexpr uint64_t kPage = 4096;

  void hold(bool true_, const std::string& rule, const std::string& text) const {
    if (!true_) broken_(rule, text);
  }

  void check_law(const Row& row, const std::string& text) const {
    hold(row.published == row.delivered + row.dropped + row.owed + row.left,
         "published = delivered + dropped + owed + left", text);
  }

  static std::string size_text(uint64_t bytes) {
    const char* unit = bytes >= 1 << 30 ? "GB" : bytes >= 1 << 20 ? "MB" : "KB";
    const int shift = bytes >= 1 << 30 ? 30 : bytes >= 1 << 20 ? 20 : 10;
    const uint64_t hundredths =
        static_cast<uint64_t>((static_cast<__uint128_t>(bytes) * 100) >> shift);
    char shown[40];
    if (hundredths % 100 == 0)
      snprintf(shown, sizeof shown, "%llu %s", (unsigned long long)hundredths / 100, unit);
    else
      snprintf(shown, sizeof shown, "%llu.%02llu %s", (unsigned long long)hundredths / 100,
               (unsigned long long)hundredths % 100, unit);
    return shown;
  }

  static std::string average_text(uint64_t count, uint64_t nanoseconds) {
    if (count == 0) return "0";
    const double microseconds = static_cast<double>(nanoseconds) / static_cast<double>(count) / 1e3;
    if (microseconds >= 10) return std::to_string(static_cast<uint64_t>(microseconds));
    char shown[40];
    const auto hundredths = std::max<uint64_t>(static_cast<uint64_t>(microseconds * 100), 1);
    snprintf(shown, sizeof shown, "%llu.%02llu", (unsigned long long)hundredths / 100,
             (unsigned long long)hundredths % 100);
    return shown;
  }

  const uint64_t frame_bytes_;
  const std::function<void(const std::string&, const std::string&)> broken_;
};
