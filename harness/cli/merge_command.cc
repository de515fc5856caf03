#include "harness/cli/merge_command.h"

#include <fmt/format.h>

#include <algorithm>

#include "harness/core/error.h"
#include "harness/report/merge.h"
#include "harness/run/runner.h"

namespace kvsweep {
namespace {

constexpr size_t kShownIds = 5;

std::string shown(const IncompletePoint& point) {
  if (point.of == 0) return "no shard has begun it";
  const size_t count = std::min(kShownIds, point.missing.size());
  const std::vector<std::string> first(point.missing.begin(),
                                       point.missing.begin() + static_cast<std::ptrdiff_t>(count));
  return fmt::format("{} of {} samples, missing {}{}", point.samples, point.of, join(first),
                     count < point.missing.size() ? fmt::format(" and {} more", point.missing.size() - count) : "");
}

int merge(const std::vector<std::string>& directories, const std::string& out) {
  const MergeResult result = merge_shards({directories.begin(), directories.end()},
                                          out.empty() ? std::nullopt : std::optional<std::filesystem::path>(out));
  fmt::print("{}: {} samples of {} shards, {} duplicates; {} records written, {} failed, {} points incomplete\n",
             result.out.string(), result.samples, result.shards, result.duplicates, result.records, result.failed,
             result.incomplete.size());
  for (const IncompletePoint& point : result.incomplete)
    fmt::print("incomplete: {} ({}): {}\n", point.label, point.id, shown(point));
  if (!result.unfinished_shards.empty())
    fmt::print("not finished: {} {}\n", result.unfinished_shards.size() == 1 ? "shard" : "shards",
               join(result.unfinished_shards));
  return result.failed > 0 || !result.incomplete.empty() ? kExitFailedPoints : kExitOk;
}

}  // namespace

void add_merge(CLI::App& app, std::function<int()>& action) {
  static std::vector<std::string> directories;
  static std::string out;
  CLI::App* command = app.add_subcommand("merge", "Make the records of a sweep that ran in shards");
  command->add_option("directories", directories, "Results directories with shards")->required();
  command->add_option("--out", out, "New directory for the result (default, for one directory: its records.jsonl)");
  command->callback([&action] { action = [] { return merge(directories, out); }; });
}

}  // namespace kvsweep
