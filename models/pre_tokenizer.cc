#include "models/pre_tokenizer.h"

#include <fmt/format.h>

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <algorithm>
#include <array>
#include <stdexcept>

#include "harness/core/error.h"
#include "models/utf8.h"

namespace kvsweep {

namespace {

struct Pattern {
  std::string_view name, regex;
};

// {s} stands for the members of Unicode's White_Space: PCRE2's own \s takes U+180E too, which the
// tokenizers' regex engines do not.
constexpr std::array<Pattern, 3> kPatterns = {{
    // GPT-2 (openai/gpt-2, src/encoder.py).
    {"gpt-2", R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^{s}\p{L}\p{N}]+|[{s}]+(?![^{s}])|[{s}]+)"},
    // Digits(individual_digits) and then GPT-2's, as one regex: a number ends the text that the second stage sees, so
    // white space in front of it is not followed by anything.
    {"smollm", R"(\p{N}|'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?[^{s}\p{L}\p{N}]+|[{s}]+(?![^{s}\p{N}])|[{s}]+)"},
    // Llama-3 (meta-llama/llama-models, models/llama3/tokenizer.py).
    {"llama-bpe",
     R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^{s}\p{L}\p{N}]+[\r\n]*|[{s}]*[\r\n]+|)"
     R"([{s}]+(?![^{s}])|[{s}]+)"},
}};

constexpr std::string_view kWhiteSpace =
    R"(\x{9}-\x{d}\x{20}\x{85}\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000})";

std::string with_white_space(std::string_view regex) {
  std::string text(regex);
  for (size_t at = text.find("{s}"); at != std::string::npos; at = text.find("{s}", at))
    text.replace(at, 3, kWhiteSpace);
  return text;
}

std::string pcre2_message(int code) {
  std::array<PCRE2_UCHAR, 256> buffer{};
  pcre2_get_error_message(code, buffer.data(), buffer.size());
  return std::string(buffer.begin(), std::find(buffer.begin(), buffer.end(), 0));
}

}  // namespace

struct PreTokenizer::Regex {
  explicit Regex(const std::string& pattern) {
    int error = 0;
    PCRE2_SIZE at = 0;
    code = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.data()), pattern.size(), PCRE2_UTF | PCRE2_UCP, &error,
                         &at, nullptr);
    if (code == nullptr) throw std::logic_error(fmt::format("{} at {}: {}", pattern, at, pcre2_message(error)));
    pcre2_jit_compile(code, PCRE2_JIT_COMPLETE);  // where there is no JIT, pcre2_match interprets
  }
  ~Regex() { pcre2_code_free(code); }
  Regex(const Regex&) = delete;
  Regex& operator=(const Regex&) = delete;

  pcre2_code* code = nullptr;
};

std::vector<std::string> PreTokenizer::known_names() {
  std::vector<std::string> names;
  for (const Pattern& pattern : kPatterns) names.emplace_back(pattern.name);
  return names;
}

PreTokenizer::PreTokenizer(const std::string& name, const std::string& place) {
  const auto* found =
      std::find_if(kPatterns.begin(), kPatterns.end(), [&](const Pattern& pattern) { return pattern.name == name; });
  if (found == kPatterns.end())
    throw DataError(
        fmt::format("{}: pre-tokenizer '{}' is not one of those known: {}", place, name, join(known_names())));
  regex_ = std::make_unique<Regex>(with_white_space(found->regex));
}

PreTokenizer::~PreTokenizer() = default;
PreTokenizer::PreTokenizer(PreTokenizer&&) noexcept = default;

std::vector<std::string_view> PreTokenizer::split(std::string_view text) const {
  std::vector<std::string_view> pieces;
  size_t begin = 0, at = 0;
  while (at < text.size()) {
    const Utf8Step step = first_utf8(text.substr(at));
    if (!step.valid) {
      split_valid(text.substr(begin, at - begin), pieces);
      pieces.push_back(text.substr(at, step.bytes));
      begin = at + step.bytes;
    }
    at += step.bytes;
  }
  split_valid(text.substr(begin), pieces);
  return pieces;
}

void PreTokenizer::split_valid(std::string_view text, std::vector<std::string_view>& pieces) const {
  const std::unique_ptr<pcre2_match_data, decltype(&pcre2_match_data_free)> match(
      pcre2_match_data_create_from_pattern(regex_->code, nullptr), &pcre2_match_data_free);
  const PCRE2_SIZE* bounds = pcre2_get_ovector_pointer(match.get());
  size_t at = 0;
  while (at < text.size()) {
    // Checking UTF-8 at every match would read the whole rest each time.
    const int found = pcre2_match(regex_->code, reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(), at,
                                  PCRE2_NO_UTF_CHECK, match.get(), nullptr);
    if (found < 0)
      throw std::runtime_error(
          fmt::format("pre-tokenizer at byte {} of {}: {}", at, text.size(), pcre2_message(found)));
    pieces.push_back(text.substr(at, bounds[1] - at));
    at = bounds[1];
  }
}

}  // namespace kvsweep
