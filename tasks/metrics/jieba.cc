#include "tasks/metrics/jieba.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <fstream>
#include <iterator>
#include <unordered_map>

#include "harness/core/error.h"
#include "tasks/metrics/python_text.h"

namespace kvsweep {
namespace fs = std::filesystem;
namespace {

constexpr const char* kDebianFolder = "/usr/lib/python3/dist-packages/jieba";
constexpr double kNever = -3.14e100;
enum State { kBegin, kEnd, kMiddle, kSingle };  // in the order of their letters, which breaks ties
constexpr std::string_view kLetters = "BEMS";
// States that a state may follow, by their letters.
constexpr std::array<std::array<State, 2>, 4> kBefore = {
    {{kEnd, kSingle}, {kBegin, kMiddle}, {kBegin, kMiddle}, {kEnd, kSingle}}};

bool is_han(char32_t c) {
  return c >= 0x4e00 && c <= 0x9fd5;
}
bool is_ascii_alnum(char32_t c) {
  return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}
bool is_digit(char32_t c) {
  return c >= '0' && c <= '9';
}
// Characters of the runs that the dictionary is asked about.
bool is_word_character(char32_t c) {
  return is_han(c) || is_ascii_alnum(c) ||
         (c < 0x80 && std::string_view("+#&._%-").find(static_cast<char>(c)) != std::string_view::npos);
}

std::string read(const fs::path& file) {
  std::ifstream in(file, std::ios::binary);
  std::string text((std::istreambuf_iterator<char>(in)), std::istreambuf_iterator<char>());
  if (!in.is_open() || in.bad()) throw DataError(file.string() + ": cannot be read; it is a table of jieba 0.42.1");
  return text;
}

// The tables of finalseg are Python literals: P={'B': {'\u4e00': -3.65, ...}, ...}, or one level less.
class Literal {
 public:
  explicit Literal(const fs::path& file) : file_(file), text_(read(file)) {
    at_ = text_.find("P={");
    if (at_ == std::string::npos) fail("P={");
    at_ += 2;
  }

  // Calls entry(key) for every entry of the dictionary that begins here; entry reads the value.
  template <class Entry>
  void dictionary(const Entry& entry) {
    expect('{');
    while (peek() != '}') {
      const char32_t key = quoted_character();
      expect(':');
      entry(key);
      if (peek() == ',') ++at_;
    }
    ++at_;
  }
  double number() {
    peek();
    double value = 0;
    const auto [end, error] = std::from_chars(text_.data() + at_, text_.data() + text_.size(), value);
    if (error != std::errc()) fail("a number");
    at_ = static_cast<size_t>(end - text_.data());
    return value;
  }
  State state(char32_t letter) {
    const size_t state = letter < 0x80 ? kLetters.find(static_cast<char>(letter)) : std::string_view::npos;
    if (state == std::string_view::npos) fail("a state: B, E, M or S");
    return static_cast<State>(state);
  }

 private:
  [[noreturn]] void fail(const std::string& expected) const {
    const size_t line =
        1 + static_cast<size_t>(std::count(
                text_.begin(), text_.begin() + static_cast<std::ptrdiff_t>(std::min(at_, text_.size())), '\n'));
    throw DataError(fmt::format("{}:{}: expected {}; is it a table of jieba 0.42.1?", file_.string(), line, expected));
  }
  char peek() {
    while (at_ < text_.size() && (text_[at_] == ' ' || text_[at_] == '\n' || text_[at_] == '\r')) ++at_;
    return at_ < text_.size() ? text_[at_] : '\0';
  }
  void expect(char c) {
    if (peek() != c) fail(fmt::format("'{}'", c));
    ++at_;
  }
  char32_t quoted_character() {
    expect('\'');
    const size_t end = text_.find('\'', at_);
    if (end == std::string::npos) fail("a closing quote");
    const std::string_view inside(text_.data() + at_, end - at_);
    char32_t code = 0;
    if (inside.starts_with("\\u")) {
      uint32_t value = 0;
      const auto [last, error] = std::from_chars(inside.data() + 2, inside.data() + inside.size(), value, 16);
      if (error != std::errc() || last != inside.data() + inside.size()) fail("\\u and four hex digits");
      code = value;
    } else {
      const std::u32string codes = decode_utf8(inside);
      if (codes.size() != 1) fail("one character");
      code = codes[0];
    }
    at_ = end + 1;
    return code;
  }

  fs::path file_;
  std::string text_;
  size_t at_ = 0;
};

}  // namespace

struct Jieba::Tables {
  std::unordered_map<std::string, double> frequency;  // of words; 0 for what is only the beginning of words
  double log_total = 0;
  std::array<double, 4> start{};
  std::array<std::array<double, 4>, 4> transition{};  // [from][to]
  std::array<std::unordered_map<char32_t, double>, 4> emission;

  void read_dictionary(const fs::path& file);
  void read_model(const fs::path& folder);
  double frequency_of(std::string_view word) const {
    const auto at = frequency.find(std::string(word));
    return at == frequency.end() ? 0 : at->second;
  }
  void cut_run(std::u32string_view run, std::vector<std::string>& words) const;
  void cut_unknown(std::u32string_view run, std::vector<std::string>& words) const;
  void cut_by_states(std::u32string_view run, std::vector<std::string>& words) const;
};

void Jieba::Tables::read_dictionary(const fs::path& file) {
  const std::string text = read(file);
  double total = 0;
  int64_t line = 0;
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    const std::string_view entry(text.data() + begin, end - begin);
    begin = end + 1;
    ++line;
    const size_t space = entry.find(' ');
    int64_t count = -1;
    if (space != std::string_view::npos) std::from_chars(entry.data() + space + 1, entry.data() + entry.size(), count);
    if (space == 0 || count < 0)
      throw DataError(fmt::format("{}:{}: '{}' is not a word and its count", file.string(), line, entry));
    const std::string_view word = entry.substr(0, space);
    frequency[std::string(word)] = static_cast<double>(count);
    total += static_cast<double>(count);
    for (size_t at = 1; at < word.size(); ++at)
      if ((static_cast<unsigned char>(word[at]) & 0xc0) != 0x80)
        frequency.try_emplace(std::string(word.substr(0, at)), 0);
  }
  if (total <= 0) throw DataError(file.string() + ": no words");
  log_total = std::log(total);
}

void Jieba::Tables::read_model(const fs::path& folder) {
  Literal starts(folder / "prob_start.py");
  start.fill(kNever);
  starts.dictionary([&](char32_t key) { start[starts.state(key)] = starts.number(); });
  Literal transitions(folder / "prob_trans.py");
  for (auto& row : transition) row.fill(kNever);
  transitions.dictionary([&](char32_t from) {
    auto& row = transition[transitions.state(from)];
    transitions.dictionary([&](char32_t to) { row[transitions.state(to)] = transitions.number(); });
  });
  Literal emissions(folder / "prob_emit.py");
  emissions.dictionary([&](char32_t state) {
    auto& table = emission[emissions.state(state)];
    emissions.dictionary([&](char32_t c) { table[c] = emissions.number(); });
  });
}

// Viterbi over the states of the characters.
void Jieba::Tables::cut_by_states(std::u32string_view run, std::vector<std::string>& words) const {
  const auto emitted = [&](int state, char32_t c) {
    const auto at = emission[static_cast<size_t>(state)].find(c);
    return at == emission[static_cast<size_t>(state)].end() ? kNever : at->second;
  };
  std::array<double, 4> score{};
  for (int y = 0; y < 4; ++y) score[static_cast<size_t>(y)] = start[static_cast<size_t>(y)] + emitted(y, run[0]);
  std::vector<std::array<State, 4>> from(run.size());
  for (size_t t = 1; t < run.size(); ++t) {
    std::array<double, 4> next{};
    for (size_t y = 0; y < 4; ++y) {
      const double here = emitted(static_cast<int>(y), run[t]);
      const auto [first, second] = kBefore[y];  // in the order of their letters: of equals the second is taken
      const double a = score[first] + transition[first][y] + here, b = score[second] + transition[second][y] + here;
      next[y] = std::max(a, b);
      from[t][y] = a > b ? first : second;
    }
    score = next;
  }
  std::vector<State> states(run.size());
  states.back() = score[kEnd] > score[kSingle] ? kEnd : kSingle;
  for (size_t t = run.size() - 1; t > 0; --t) states[t - 1] = from[t][states[t]];
  size_t begin = 0, next = 0;
  for (size_t i = 0; i < run.size(); ++i) {
    if (states[i] == kBegin) begin = i;
    if (states[i] != kEnd && states[i] != kSingle) continue;
    const size_t from_here = states[i] == kEnd ? begin : i;
    words.push_back(encode_utf8(run.substr(from_here, i + 1 - from_here)));
    next = i + 1;
  }
  if (next < run.size()) words.push_back(encode_utf8(run.substr(next)));
}

// A run that the dictionary has left as single characters: Chinese goes by states, the rest by
// [a-zA-Z0-9]+(?:\.\d+)?%? and what stands between.
void Jieba::Tables::cut_unknown(std::u32string_view run, std::vector<std::string>& words) const {
  for (size_t at = 0; at < run.size();) {
    size_t end = at;
    if (is_han(run[at])) {
      while (end < run.size() && is_han(run[end])) ++end;
      cut_by_states(run.substr(at, end - at), words);
    } else if (is_ascii_alnum(run[at])) {
      while (end < run.size() && is_ascii_alnum(run[end])) ++end;
      if (end + 1 < run.size() && run[end] == '.' && is_digit(run[end + 1]))
        for (++end; end < run.size() && is_digit(run[end]);) ++end;
      if (end < run.size() && run[end] == '%') ++end;
      words.push_back(encode_utf8(run.substr(at, end - at)));
    } else {
      while (end < run.size() && !is_han(run[end]) && !is_ascii_alnum(run[end])) ++end;
      words.push_back(encode_utf8(run.substr(at, end - at)));
    }
    at = end;
  }
}

// The most likely path through the words of the dictionary, from the end; of equals the longest word.
void Jieba::Tables::cut_run(std::u32string_view run, std::vector<std::string>& words) const {
  const std::string bytes = encode_utf8(run);
  std::vector<size_t> offsets;  // of characters
  for (size_t i = 0; i < bytes.size(); ++i)
    if ((static_cast<unsigned char>(bytes[i]) & 0xc0) != 0x80) offsets.push_back(i);
  offsets.push_back(bytes.size());
  const size_t n = run.size();
  const auto piece = [&](size_t from, size_t to) { return bytes.substr(offsets[from], offsets[to] - offsets[from]); };
  std::vector<double> best(n + 1);
  std::vector<size_t> next(n + 1);
  for (size_t k = n; k-- > 0;) {
    best[k] = best[k + 1] - log_total;  // a character that is no word counts as one seen once
    next[k] = 0;
    for (size_t end = k + 1; end <= n; ++end) {
      const auto found = frequency.find(piece(k, end));
      if (found == frequency.end()) break;
      if (found->second == 0) continue;
      const double score = std::log(found->second) - log_total + best[end];
      if (next[k] == 0 || score >= best[k]) {
        best[k] = score;
        next[k] = end;
      }
    }
    if (next[k] == 0) next[k] = k + 1;
  }
  size_t single = 0;  // first of the single characters that wait
  const auto flush = [&](size_t end) {
    if (single == end) return;
    if (end - single == 1)
      words.push_back(piece(single, end));
    else if (frequency_of(piece(single, end)) == 0)
      cut_unknown(run.substr(single, end - single), words);
    else
      for (size_t i = single; i < end; ++i) words.push_back(piece(i, i + 1));
  };
  for (size_t at = 0; at < n; at = next[at]) {
    if (next[at] - at == 1) continue;
    flush(at);
    words.push_back(piece(at, next[at]));
    single = next[at];
  }
  flush(n);
}

Jieba::Jieba(const fs::path& folder) {
  auto tables = std::make_unique<Tables>();
  tables->read_dictionary(folder / "dict.txt");
  tables->read_model(folder / "finalseg");
  tables_ = std::move(tables);
}
Jieba::~Jieba() = default;
Jieba::Jieba(Jieba&&) noexcept = default;

std::vector<std::string> Jieba::cut(std::string_view text) const {
  const std::u32string codes = decode_utf8(text);
  std::vector<std::string> words;
  for (size_t at = 0; at < codes.size();) {
    size_t end = at + 1;
    if (is_word_character(codes[at])) {
      while (end < codes.size() && is_word_character(codes[end])) ++end;
      tables_->cut_run(std::u32string_view(codes).substr(at, end - at), words);
    } else {
      if (codes[at] == '\r' && end < codes.size() && codes[end] == '\n') ++end;
      words.push_back(encode_utf8(std::u32string_view(codes).substr(at, end - at)));
    }
    at = end;
  }
  return words;
}

fs::path find_jieba(const DataLocator& data) {
  for (const fs::path& root : data.roots())
    if (fs::exists(root / "jieba/dict.txt")) return root / "jieba";
  if (fs::exists(fs::path(kDebianFolder) / "dict.txt")) return kDebianFolder;
  std::vector<std::string> tried;
  for (const fs::path& root : data.roots()) tried.push_back((root / "jieba").string());
  tried.emplace_back(kDebianFolder);
  throw DataError(
      fmt::format("Chinese texts are cut with the tables of jieba 0.42.1, not found; looked for dict.txt in:\n"
                  "  {}\nThe Debian package python3-jieba has them (MIT).",
                  join(tried, "\n  ")));
}

}  // namespace kvsweep
