#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "harness/core/task.h"

namespace kvsweep {

// Chinese word segmentation as jieba 0.42.1 does it in jieba.cut(text) (accurate mode, HMM on): the most likely path
// through the words of a dictionary, then Viterbi over the states begin, middle, end, single for runs of characters
// that the dictionary leaves alone. Source: github.com/fxsjy/jieba, __init__.py and finalseg/__init__.py.
//
// Its tables are read at run time from the package's own files: dict.txt, and prob_start.py, prob_trans.py and
// prob_emit.py of finalseg/.
class Jieba {
 public:
  // folder: the package's, "jieba". Throws DataError naming the file (and line) that is missing or malformed.
  explicit Jieba(const std::filesystem::path& folder);
  ~Jieba();
  Jieba(Jieba&&) noexcept;

  // The words; joined they are the text.
  std::vector<std::string> cut(std::string_view text) const;

 private:
  struct Tables;
  std::unique_ptr<const Tables> tables_;
};

// Folder of jieba's tables: jieba/ below a data root, else where Debian's python3-jieba lays them. Throws DataError
// that says where it was looked for and which package has them.
std::filesystem::path find_jieba(const DataLocator& data);

}  // namespace kvsweep
