// Reads what a device tells of its ring, over and over, and checks that it adds up every time.
//
//   accounting_checker DIRECTORY [--turns N] [--frame-bytes N] [--reset-every N] [--switch-every N]
//
// DIRECTORY is that of the attributes: sys/class/video4linux/video10. A turn reads the counters,
// dynamic_buffer_stats, dynamic_buffer_consumers and the counters again, each in one read(2).
// --reset-every, --switch-every: after so many turns it resets the statistics, or changes the mode,
// itself; resets by others are noticed as well. --turns 0 (the default) goes on until SIGTERM.
// Prints {"event":"violation"} for the first ten rules that are broken, with the texts.
#include <optional>
#include <set>

#include "accounting_rules.h"
#include "json_line.h"
#include "v4l2_device.h"

namespace {

class Checker {
 public:
  explicit Checker(const Options& options)
      : directory_(options.device() + "/"),
        turns_(static_cast<uint64_t>(options.number("turns", 0))),
        reset_every_(static_cast<uint64_t>(options.number("reset-every", 0))),
        switch_every_(static_cast<uint64_t>(options.number("switch-every", 0))),
        rules_(static_cast<uint64_t>(options.number("frame-bytes", 0)),
               [this](const std::string& rule, const std::string& text) { broken(rule, text); }) {}

  int run() {
    JsonLine().text("event", "ready").print();
    while (g_stop == 0 && (turns_ == 0 || turn_ < turns_)) {
      ++turn_;
      act();
      try {
        check();
      } catch (const BadText& bad) {
        broken("the texts can be read", bad.what);
        break;
      }
    }
    JsonLine line;
    line.text("event", "done").error(0).texts("broken", {broken_.begin(), broken_.end()});
    line.count("turns", turn_).count("violations", violations_);
    line.count("active", active_).count("exact", exact_).count("resets", resets_);
    line.count("switches", switches_).count("mostConsumers", most_consumers_);
    line.count("mostDropped", most_dropped_).count("mostLeft", most_left_);
    line.count("mostStalled", most_stalled_).print();
    return violations_ == 0 ? 0 : 1;
  }

 private:
  void broken(const std::string& rule, const std::string& text) {
    ++violations_;
    if (!broken_.insert(rule).second || broken_.size() > 10) return;
    JsonLine().text("event", "violation").text("rule", rule).text("text", text).print();
  }

  void act() {
    if (switch_every_ > 0 && turn_ % switch_every_ == 0) {
      write_once(directory_ + "dynamic_buffering", ++switches_ % 2 == 1 ? "0" : "1");
    }
    if (reset_every_ > 0 && turn_ % reset_every_ == 0 &&
        write_once(directory_ + "dynamic_buffer_reset_stats", "1") == 0) {
      ++resets_;
      last_.reset();
    }
  }

  Counters counters() { return parse_counters(read_once(directory_ + "dynamic_buffer_counters")); }

  void check() {
    const Counters before = counters();
    const Stats stats = parse_stats(read_once(directory_ + "dynamic_buffer_stats"));
    const Consumers consumers = parse_consumers(read_once(directory_ + "dynamic_buffer_consumers"));
    const Counters after = counters();

    rules_.check(before, stats.active);
    rules_.check(after, stats.active);
    rules_.check(consumers);
    if (last_ && !Rules::maybe_reset(*last_, before)) rules_.check_order(*last_, before);
    if (!Rules::maybe_reset(before, after)) {
      rules_.check_order(before, after);
      rules_.check_between(before, consumers, after);
      if (stats.active && rules_.check_between(before, stats, after)) ++exact_;
    }
    if (stats.active) ++active_;
    most_consumers_ = std::max<uint64_t>(most_consumers_, consumers.rows.size());
    most_dropped_ = std::max(most_dropped_, consumers.total.dropped);
    most_left_ = std::max(most_left_, consumers.total.left);
    most_stalled_ = std::max(most_stalled_, after["stalled_consumers"]);
    last_ = after;
  }

  const std::string directory_;
  const uint64_t turns_, reset_every_, switch_every_;
  const Rules rules_;
  std::optional<Counters> last_;
  std::set<std::string> broken_;
  uint64_t turn_ = 0, violations_ = 0, active_ = 0, exact_ = 0, resets_ = 0, switches_ = 0;
  uint64_t most_consumers_ = 0, most_dropped_ = 0, most_left_ = 0, most_stalled_ = 0;
};

}  // namespace

int main(int count, char** arguments) {
  const Options options(count, arguments,
                        {"turns=", "frame-bytes=", "reset-every=", "switch-every="});
  catch_stop_signals();
  return Checker(options).run();
}
