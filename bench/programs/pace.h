// When the next frame is due: at a steady pace, or as a recorded load says. A load is a file of
// lines `SECONDS PRODUCER_FPS CONSUMER_FPS`, repeated from the top; a pace of 0 means no frames for
// a producer, and as fast as it can for a consumer.
#pragma once

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

class Pace {
 public:
  enum class Side { kProducer, kConsumer };

  Pace(Side side, double fps, const std::string& load) : side_(side), fps_(fps) {
    if (load.empty()) return;
    std::ifstream file(load);
    for (std::string line; std::getline(file, line);) {
      if (line.empty() || line[0] == '#') continue;
      double seconds = 0;
      double producer = 0;
      double consumer = 0;
      if (!(std::istringstream(line) >> seconds >> producer >> consumer) || seconds <= 0) {
        fprintf(stderr, "%s: not a line of a load: %s\n", load.c_str(), line.c_str());
        exit(2);
      }
      segments_.push_back({seconds, side == Side::kProducer ? producer : consumer});
      length_ += seconds;
    }
    if (segments_.empty()) {
      fprintf(stderr, "%s: there is no load in it\n", load.c_str());
      exit(2);
    }
  }

  bool is_free() const { return fps_ <= 0 && segments_.empty(); }

  // Both in nanoseconds from the start: the moment for a frame after one at `previous`.
  int64_t after(int64_t previous) const {
    double at = static_cast<double>(previous) / 1e9;
    for (;;) {
      double rest = 0;
      const double fps = fps_at(at, &rest);
      if (fps > 0) return static_cast<int64_t>((at + 1 / fps) * 1e9);
      if (side_ == Side::kConsumer) return previous;
      at += rest;
    }
  }

 private:
  struct Segment {
    double seconds, fps;
  };

  double fps_at(double at, double* rest) const {
    if (segments_.empty()) return fps_;
    double within = at - static_cast<double>(static_cast<int64_t>(at / length_)) * length_;
    for (const Segment& segment : segments_) {
      *rest = segment.seconds - within;
      if (*rest > 0) return segment.fps;
      within -= segment.seconds;
    }
    *rest = 1e-9;
    return segments_.back().fps;
  }

  Side side_;
  double fps_;
  double length_ = 0;
  std::vector<Segment> segments_;
};
