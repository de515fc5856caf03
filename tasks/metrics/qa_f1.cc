#include "tasks/metrics/qa_f1.h"

#include <algorithm>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "tasks/metrics/python_text.h"

namespace kvsweep {
namespace {

// re.sub(r"\b(a|an|the)\b", " ", text)
std::string without_articles(std::string_view text) {
  const std::u32string codes = decode_utf8(text);
  std::u32string out;
  for (size_t at = 0; at < codes.size();) {
    size_t end = at;
    while (end < codes.size() && is_python_word(codes[end])) ++end;
    const std::u32string_view word(codes.data() + at, end - at);
    if (word == U"a" || word == U"an" || word == U"the")
      out += U' ';
    else
      out += word;
    if (end < codes.size()) out += codes[end++];
    at = end;
  }
  return encode_utf8(out);
}

double f1(const std::vector<std::string>& output, const std::vector<std::string>& answer) {
  std::map<std::string, int64_t> counts;
  for (const std::string& word : answer) ++counts[word];
  int64_t same = 0;
  for (const std::string& word : output) {
    const auto at = counts.find(word);
    if (at == counts.end() || at->second == 0) continue;
    --at->second;
    ++same;
  }
  if (same == 0) return 0;
  const double precision = static_cast<double>(same) / static_cast<double>(output.size());
  const double recall = static_cast<double>(same) / static_cast<double>(answer.size());
  return (2 * precision * recall) / (precision + recall);
}

std::vector<std::string> words_en(std::string_view text) {
  return python_split(without_articles(without_ascii_punctuation(python_lower(text))));
}

// ASCII punctuation and the Chinese marks of LongBench's metrics.py (normalize_zh_answer).
bool is_mark(char32_t c) {
  static const std::u32string marks =
      U"！？｡。＂＃＄％＆＇（）＊＋，－／：；＜＝＞＠［＼］＾＿｀｛｜｝～｟｠｢｣､、〃》「」『』【】〔〕〖〗〘〙〚〛〜〝"
      U"〞〟〰〾〿–—‘’‛“”„‟…‧﹏.";
  return c < 0x80 ? is_ascii_punctuation(static_cast<char>(c)) : marks.find(c) != std::u32string::npos;
}

std::vector<std::string> words_zh(std::string_view text, const Jieba& jieba) {
  std::vector<std::string> words;
  for (const std::string& word : jieba.cut(text)) {
    std::u32string codes = decode_utf8(python_lower(word));
    std::erase_if(codes, [](char32_t c) { return is_mark(c) || is_python_space(c); });
    if (!codes.empty()) words.push_back(encode_utf8(codes));
  }
  return words;
}

}  // namespace

double qa_f1(std::string_view output, std::string_view answer) {
  return f1(words_en(output), words_en(answer));
}

double qa_f1_zh(std::string_view output, std::string_view answer, const Jieba& jieba) {
  return f1(words_zh(output, jieba), words_zh(answer, jieba));
}

}  // namespace kvsweep
