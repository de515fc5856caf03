#include "tasks/metrics/gsm8k_answer.h"

#include <algorithm>
#include <stdexcept>

#include "tasks/metrics/python_text.h"

namespace kvsweep {
namespace {

constexpr const char* kInvalid = "[invalid]";

bool digit(char c) {
  return c >= '0' && c <= '9';
}
bool amount(char c) {  // [0-9.,]
  return digit(c) || c == '.' || c == ',';
}
bool priced(char c) {  // [$0-9.,]
  return amount(c) || c == '$';
}

template <class Class>
size_t run_end(std::string_view text, size_t at, const Class& of) {
  while (at < text.size() && of(text[at])) ++at;
  return at;
}

// End of `\-?[0-9\.\,]+` at `at`, or `at`.
size_t amount_end(std::string_view text, size_t at) {
  const size_t digits = at + (at < text.size() && text[at] == '-' ? 1 : 0), end = run_end(text, digits, amount);
  return end == digits ? at : end;
}

// The same where one more character has to follow that is no line break: the run gives its last one up for it.
size_t followed_amount_end(std::string_view text, size_t at) {
  const size_t end = amount_end(text, at);
  if (end == at || (end < text.size() && text[end] != '\n')) return end;
  const size_t first = at + (text[at] == '-' ? 1 : 0);
  return end - first > 1 ? end - 1 : at;
}

// End of `(-?[$0-9.,]{2,})|(-?[0-9]+)` at `at`, or `at`.
size_t number_end(std::string_view text, size_t at) {
  const size_t first = at + (at < text.size() && text[at] == '-' ? 1 : 0), long_end = run_end(text, first, priced);
  if (long_end - first >= 2) return long_end;
  const size_t end = run_end(text, first, digit);
  return end == first ? at : end;
}

// What `end` matches behind the first (or last) place where `frame` stands and it matches something.
template <class End>
std::string behind(std::string_view text, std::string_view frame, const End& end_of, bool last) {
  std::string_view found;
  for (size_t at = text.find(frame); at != std::string_view::npos;) {
    const size_t start = at + frame.size(), end = end_of(text, start);
    if (end > start) {
      found = text.substr(start, end - start);
      if (!last) break;
    }
    at = text.find(frame, end > start ? end : at + 1);
  }
  return found.empty() ? kInvalid : std::string(found);
}

std::string last_number(std::string_view text) {
  std::string_view found;
  for (size_t at = 0; at < text.size();) {
    const size_t end = number_end(text, at);
    if (end > at) found = text.substr(at, end - at);
    at = std::max(end, at + 1);
  }
  return found.empty() ? kInvalid : std::string(found);
}

std::string compared(std::string_view text) {
  std::string out(text);
  std::erase_if(out, [](char c) { return c == ',' || c == '$'; });
  if (const size_t mark = out.rfind("#### "); mark != std::string::npos) out.erase(0, mark + 5);
  if (out.ends_with(".\n"))
    out.erase(out.size() - 2, 1);
  else if (out.ends_with('.'))
    out.pop_back();
  return python_lower(out);
}

}  // namespace

std::string gsm8k_extract(std::string_view text, Gsm8kRule rule) {
  switch (rule) {
    case Gsm8kRule::kStrict:
      return behind(text, "#### ", amount_end, false);
    case Gsm8kRule::kCotStrict:
      return behind(text, "The answer is ", followed_amount_end, false);
    case Gsm8kRule::kLlamaStrict:
      return behind(text, "The final answer is ", number_end, true);
    case Gsm8kRule::kFlexible:
      return last_number(text);
    case Gsm8kRule::kOpenAi:
      break;
  }
  std::string answer = behind(text, "#### ", amount_end, false);
  std::erase(answer, ',');
  return answer;
}

double gsm8k_exact_match(std::string_view extracted, std::string_view gold) {
  return compared(extracted) == compared(gold) ? 1 : 0;
}

double gsm8k_openai_correct(std::string_view text, std::string_view gold) {
  const std::string wanted = gsm8k_extract(gold, Gsm8kRule::kOpenAi);
  if (wanted == kInvalid) throw std::invalid_argument("gsm8k_openai_correct: the reference has no '#### <number>'");
  return gsm8k_extract(text, Gsm8kRule::kOpenAi) == wanted ? 1 : 0;
}

}  // namespace kvsweep
