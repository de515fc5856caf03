#include "tasks/data/haystack.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <memory>

#include "harness/core/error.h"
#include "tasks/data/locate.h"
#include "tasks/data/sentences.h"

namespace kvsweep {
namespace fs = std::filesystem;

std::vector<int64_t> even_grid(int64_t low, int64_t high, int64_t count) {
  std::vector<int64_t> grid;
  const double step = static_cast<double>(high - low) / static_cast<double>(count - 1);
  for (int64_t i = 0; i < count; ++i) {
    const double at = static_cast<double>(i) * step + static_cast<double>(low);
    grid.push_back(i + 1 == count ? high : std::llrint(std::nearbyint(at)));
  }
  return grid;
}

std::vector<int64_t> depth_grid(int64_t count) {
  return count == 1 ? std::vector<int64_t>{50} : even_grid(0, 100, count);
}

std::vector<int64_t> spread_order(int64_t count) {
  std::vector<int64_t> order;
  std::vector<bool> seen(static_cast<size_t>(count));
  for (uint64_t i = 0; std::ssize(order) < count; ++i) {
    double fraction = 0;
    double weight = 0.5;
    for (uint64_t bits = i; bits != 0; bits >>= 1, weight /= 2) fraction += weight * static_cast<double>(bits & 1);
    const auto at = static_cast<int64_t>(fraction * static_cast<double>(count));
    if (seen[static_cast<size_t>(at)]) continue;
    seen[static_cast<size_t>(at)] = true;
    order.push_back(at);
  }
  return order;
}

Haystack generated_haystack(uint64_t seed) {
  return {" ", [generator = std::make_shared<SentenceGenerator>(seed)] { return generator->next(); }};
}

Haystack noise_haystack() {
  // NVIDIA/RULER, scripts/data/synthetic/niah.py.
  return {"\n",
          [] { return "The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again."; }};
}

Haystack text_haystack(const std::vector<std::string>& sentences) {
  return {" ", [&sentences, at = size_t{0}]() mutable { return sentences[at++ % sentences.size()]; }};
}

std::string haystack_text(const DataLocator& data, const std::string& path) {
  const fs::path found = data.find(path);
  std::string text;
  for (const std::string& file : data_files(found)) {
    if (!fs::is_directory(found))
      text = read_utf8(found);
    else if (file.ends_with(".txt"))
      text += read_utf8(found / file) + "\n";
  }
  if (text.find_first_not_of(" \t\n\r\f\v") == std::string::npos)
    throw DataError(fmt::format("{}: no text (a .txt file, or a folder of them)", found.string()));
  return text;
}

std::vector<std::string> haystack_sentences(const DataLocator& data, const std::string& path) {
  return split_sentences(haystack_text(data, path));
}

}  // namespace kvsweep
