#pragma once

#include <chrono>
#include <cstdint>
#include <string>

namespace kvsweep {

// How far long work is, on stderr: one line that redraws itself on a terminal, a plain line every ten seconds in a log.
// Work is counted in units of equal cost, so that throughput and ETA mean something; `done` work of an earlier run is
// left out of the rate.
class Progress {
 public:
  Progress(double total_units, int64_t total_items, std::string item_name);
  ~Progress();

  // Already there when this run starts.
  void skip(double units, int64_t items);
  void advance(double units, int64_t items);
  void label(const std::string& what);
  // A whole line (a message) that the bar must not overwrite.
  void say(const std::string& line);
  // The last state, once.
  void finish();

 private:
  void draw(bool force);
  std::string line() const;

  bool terminal_;
  double total_, done_ = 0, skipped_ = 0;
  int64_t total_items_, items_ = 0, skipped_items_ = 0;
  std::string item_name_, label_;
  std::chrono::steady_clock::time_point start_, drawn_;
  bool finished_ = false, visible_ = false, changed_ = true;
};

// "1 h 02 min", "3 min 20 s", "12 s", "0.8 s"
std::string human_duration(double seconds);
// "1.2 GiB", "345 MiB", "12 KiB", "17 B"
std::string human_bytes(double bytes);

}  // namespace kvsweep
