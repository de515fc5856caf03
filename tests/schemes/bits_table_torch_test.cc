// Gate: the table "Measured bits" of docs/schemes.md says what caches filled with that many tokens hold.
#include <ATen/ATen.h>
#include <c10/core/InferenceMode.h>
#include <fmt/format.h>

#include <algorithm>
#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <set>
#include <sstream>

#include "harness/core/error.h"
#include "tests/support/golden.h"
#include "tests/support/torch/scheme_probe.h"

namespace kvsweep::testing {
namespace {

struct Shape {
  const char* name;
  int64_t layers, heads, dim;
};

constexpr Shape kShapes[] = {{"Llama-3.1-8B", 32, 8, 128}, {"SmolLM2-135M", 30, 3, 64}};
constexpr int64_t kLengths[] = {128, 1024, 8192, 32768};

struct TableRow {
  std::string text;  // "kivi k_bits=2 group=32"
  std::string scheme;
  Settings settings;
  std::vector<std::string> cells;  // kLengths of the first shape, then of the second
};

std::vector<std::string> split(const std::string& text, char separator) {
  std::vector<std::string> parts;
  std::istringstream in(text);
  for (std::string part; std::getline(in, part, separator);) parts.push_back(part);
  return parts;
}

std::string trimmed(const std::string& text) {
  const size_t from = text.find_first_not_of(" `"), to = text.find_last_not_of(" `");
  return from == std::string::npos ? "" : text.substr(from, to - from + 1);
}

// Rows of the table whose first cell is a configuration in backticks.
std::vector<TableRow> rows_of_table() {
  const std::string page = read_text(std::filesystem::path(KVSWEEP_SOURCE_DIR) / "docs/schemes.md");
  const size_t at = page.find("## Measured bits");
  REQUIRE(at != std::string::npos);
  std::vector<TableRow> rows;
  for (const std::string& line : split(page.substr(at), '\n')) {
    if (!line.starts_with("| `")) continue;
    const std::vector<std::string> cells = split(line, '|');
    REQUIRE(cells.size() == 10);
    TableRow row;
    row.text = trimmed(cells[1]);
    const std::vector<std::string> words = split(row.text, ' ');
    row.scheme = words[0];
    for (size_t i = 1; i < words.size(); ++i)
      row.settings[words[i].substr(0, words[i].find('='))] = words[i].substr(words[i].find('=') + 1);
    for (size_t i = 2; i < cells.size(); ++i) row.cells.push_back(trimmed(cells[i]));
    rows.push_back(row);
  }
  return rows;
}

const Rope& rope_of(const Shape& shape) {
  static std::map<int64_t, Rope> ropes;
  return ropes
      .try_emplace(shape.dim, std::vector<float>(static_cast<size_t>(shape.dim / 2), 0.01F), 1, at::kCPU, 1 << 15)
      .first->second;
}

// Bytes of a cache whose every layer got the same `tokens` tokens.
double live_bytes(const TableRow& row, const Shape& shape, int64_t layers, int64_t tokens) {
  const CacheContext context{layers, shape.heads, shape.dim, at::kBFloat16, at::kCPU, &rope_of(shape), tokens};
  const auto entry = std::find_if(scheme_table().begin(), scheme_table().end(),
                                  [&](const SchemeEntry& one) { return one.name == row.scheme; });
  REQUIRE(entry != scheme_table().end());
  const std::vector<SchemeCase> usable = usable_cases(*entry, row.settings, context);
  REQUIRE_FALSE(usable.empty());  // two where an artifact is optional: the row is the one without
  const auto cache = usable[0].scheme()->make_cache(context);
  const at::Tensor x = at::randn({shape.heads, tokens, shape.dim}, at::kFloat).to(at::kBFloat16);
  for (int64_t layer = 0; layer < layers; ++layer) cache->append(layer, {x, x, 0});
  cache->finish_context();
  ByteLedger ledger;
  cache->account(ledger);
  return static_cast<double>(ledger.live_bytes());
}

// The first layer may differ from the others: it alone and one other are filled.
std::string bits(const TableRow& row, const Shape& shape, int64_t tokens) {
  const double first = live_bytes(row, shape, 1, tokens), both = live_bytes(row, shape, 2, tokens);
  const auto layers = static_cast<double>(shape.layers);
  const double bytes = first + (layers - 1) * (both - first);
  return fmt::format("{:.3f}", 8 * bytes / static_cast<double>(2 * shape.layers * shape.heads * tokens * shape.dim));
}

void check_lengths(int64_t from, int64_t to) {
  const c10::InferenceMode no_autograd;
  for (const TableRow& row : rows_of_table()) {
    INFO("| `" << row.text << "` |");
    for (size_t shape = 0; shape < std::size(kShapes); ++shape)
      for (size_t at = 0; at < std::size(kLengths); ++at) {
        if (kLengths[at] < from || kLengths[at] > to) continue;
        INFO(kShapes[shape].name << ", " << kLengths[at] << " tokens");
        CHECK(row.cells[shape * std::size(kLengths) + at] == bits(row, kShapes[shape], kLengths[at]));
      }
  }
}

TEST_CASE("the table of measured bits has a row for every scheme") {
  std::set<std::string> shown;
  for (const TableRow& row : rows_of_table()) shown.insert(row.scheme);
  for (const SchemeEntry& entry : scheme_table()) {
    INFO(entry.name);
    CHECK(shown.contains(entry.name));
  }
}

TEST_CASE("the table of measured bits holds for short contexts") {
  check_lengths(0, 1024);
}

TEST_CASE("the table of measured bits holds for long contexts", "[slow]") {
  check_lengths(1025, 1 << 20);
}

}  // namespace
}  // namespace kvsweep::testing
