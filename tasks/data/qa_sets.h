#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace kvsweep {

// A question whose answer stands in some documents of a set; all by index into QaSet::documents.
struct QaQuestion {
  std::string question;
  std::vector<std::string> answers;
  std::vector<int64_t> documents;  // that answer it
  std::vector<int64_t> related;    // of the same article, without `documents`
};

struct QaSet {
  std::vector<std::string> documents;  // sorted, each once
  std::vector<QaQuestion> questions;   // in the order of the file; those without an answer left out
};

// The official files: SQuAD 2.0 (dev-v2.0.json) and HotpotQA in the distractor setting (hotpot_dev_distractor_v1.json;
// a document is its title, a line break and its sentences; the question's ten paragraphs are its `documents`). Read as
// NVIDIA/RULER's qa.py reads them. Throw DataError naming file and place.
QaSet read_squad(const std::filesystem::path& file);
QaSet read_hotpotqa(const std::filesystem::path& file);

}  // namespace kvsweep
