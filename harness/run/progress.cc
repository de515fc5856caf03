#include "harness/run/progress.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>

namespace kvsweep {
namespace {

constexpr int kBarCells = 24;
constexpr auto kTerminalPause = std::chrono::milliseconds(200);
constexpr auto kLogPause = std::chrono::seconds(10);

}  // namespace

std::string human_duration(double seconds) {
  if (seconds < 9.95) return fmt::format("{:.1f} s", seconds);
  const auto whole = static_cast<int64_t>(std::llround(seconds));
  if (whole < 60) return fmt::format("{} s", whole);
  if (whole < 3600) return fmt::format("{} min {:02} s", whole / 60, whole % 60);
  return fmt::format("{} h {:02} min", whole / 3600, whole % 3600 / 60);
}

std::string human_bytes(double bytes) {
  const char* units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
  size_t unit = 0;
  while (bytes >= 1024 && unit + 1 < std::size(units)) {
    bytes /= 1024;
    ++unit;
  }
  return unit == 0 || bytes >= 100 ? fmt::format("{:.0f} {}", bytes, units[unit])
                                   : fmt::format("{:.1f} {}", bytes, units[unit]);
}

Progress::Progress(double total_units, int64_t total_items, std::string item_name)
    : terminal_(isatty(STDERR_FILENO) == 1),
      total_(total_units),
      total_items_(total_items),
      item_name_(std::move(item_name)),
      start_(std::chrono::steady_clock::now()),
      drawn_(start_) {}

Progress::~Progress() {
  finish();
}

void Progress::skip(double units, int64_t items) {
  skipped_ += units;
  skipped_items_ += items;
}

void Progress::advance(double units, int64_t items) {
  done_ += units;
  items_ += items;
  changed_ = true;
  draw(false);
}

void Progress::label(const std::string& what) {
  label_ = what;
  draw(false);
}

void Progress::say(const std::string& text) {
  if (visible_) fmt::print(stderr, "\r\x1b[K");
  visible_ = false;
  fmt::print(stderr, "kvsweep: {}\n", text);
  draw(terminal_);
}

void Progress::finish() {
  if (finished_) return;
  draw(changed_);
  if (visible_) fmt::print(stderr, "\n");
  finished_ = true;
}

std::string Progress::line() const {
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
  const double share = total_ > 0 ? std::min(1.0, (done_ + skipped_) / total_) : 1.0;
  const double left = done_ > 0 ? (total_ - done_ - skipped_) * seconds / done_ : -1;
  std::string text = fmt::format("{:3.0f}%  {}/{} {}", 100 * share, items_ + skipped_items_, total_items_, item_name_);
  if (items_ > 0) text += fmt::format("  {:.2f} {}/s", static_cast<double>(items_) / seconds, item_name_);
  text += fmt::format("  {}", human_duration(seconds));
  if (left >= 0 && share < 1) text += fmt::format(", {} left", human_duration(left));
  if (!label_.empty()) text += "  " + label_;
  return text;
}

void Progress::draw(bool force) {
  const auto now = std::chrono::steady_clock::now();
  if (finished_ || (!force && now - drawn_ < (terminal_ ? kTerminalPause : kLogPause))) return;
  drawn_ = now;
  changed_ = false;
  if (!terminal_) {
    fmt::print(stderr, "kvsweep: {}\n", line());
    return;
  }
  const double share = total_ > 0 ? std::min(1.0, (done_ + skipped_) / total_) : 1.0;
  const int full = static_cast<int>(share * kBarCells);
  fmt::print(stderr, "\r\x1b[K[{:#<{}}{:.<{}}] {}", "", full, "", kBarCells - full, line());
  std::fflush(stderr);
  visible_ = true;
}

}  // namespace kvsweep
