#include "tasks/metrics/porter.h"

#include <algorithm>
#include <array>
#include <map>
#include <vector>

namespace kvsweep {
namespace {

// Consonant or not, letter by letter: y is one at the beginning and after a vowel.
std::vector<bool> consonants(std::string_view word) {
  std::vector<bool> flags;
  for (const char c : word) {
    const bool vowel = std::string_view("aeiou").find(c) != std::string_view::npos;
    flags.push_back(c == 'y' ? flags.empty() || !flags.back() : !vowel);
  }
  return flags;
}

// Porter's m: how often a consonant follows a vowel.
int measure(std::string_view stem) {
  const std::vector<bool> flags = consonants(stem);
  int count = 0;
  for (size_t i = 1; i < flags.size(); ++i) count += flags[i] && !flags[i - 1] ? 1 : 0;
  return count;
}

bool has_vowel(std::string_view stem) {
  const std::vector<bool> flags = consonants(stem);
  return std::find(flags.begin(), flags.end(), false) != flags.end();
}

bool ends_with_double_consonant(std::string_view word) {
  return word.size() >= 2 && word[word.size() - 1] == word[word.size() - 2] && consonants(word).back();
}

// Porter's *o, and NLTK's addition for two letters.
bool ends_with_cvc(std::string_view word) {
  const std::vector<bool> c = consonants(word);
  const size_t n = word.size();
  if (n == 2) return !c[0] && c[1];
  return n >= 3 && c[n - 3] && !c[n - 2] && c[n - 1] &&
         std::string_view("wxy").find(word[n - 1]) == std::string_view::npos;
}

struct Rule {
  std::string_view suffix, replacement;
};

// The first suffix that the word has decides: replaced when what is left has more than `least` as its measure.
template <size_t N>
bool apply(std::string& word, const std::array<Rule, N>& rules, int least) {
  for (const Rule& rule : rules) {
    if (!word.ends_with(rule.suffix)) continue;
    const std::string_view stem(word.data(), word.size() - rule.suffix.size());
    if (measure(stem) <= least) return false;
    word = std::string(stem) + std::string(rule.replacement);
    return true;
  }
  return false;
}

void plural(std::string& word) {  // 1a
  if (word.ends_with("ies"))
    word.resize(word.size() - (word.size() == 4 ? 1 : 2));
  else if (word.ends_with("sses"))
    word.resize(word.size() - 2);
  else if (word.ends_with("s") && !word.ends_with("ss"))
    word.pop_back();
}

void past_and_progressive(std::string& word) {  // 1b
  if (word.ends_with("ied")) {
    word.resize(word.size() - (word.size() == 4 ? 1 : 2));
    return;
  }
  if (word.ends_with("eed")) {
    if (measure(std::string_view(word).substr(0, word.size() - 3)) > 0) word.pop_back();
    return;
  }
  std::string stem;
  if (word.ends_with("ed")) stem = word.substr(0, word.size() - 2);
  if (word.ends_with("ing")) stem = word.substr(0, word.size() - 3);
  if (!has_vowel(stem)) return;
  word = stem;
  if (word.ends_with("at") || word.ends_with("bl") || word.ends_with("iz"))
    word += 'e';
  else if (ends_with_double_consonant(word)) {
    if (std::string_view("lsz").find(word.back()) == std::string_view::npos) word.pop_back();
  } else if (measure(word) == 1 && ends_with_cvc(word)) {
    word += 'e';
  }
}

void final_y(std::string& word) {  // 1c
  if (word.ends_with('y') && word.size() > 2 && consonants(word)[word.size() - 2]) word.back() = 'i';
}

void double_suffixes(std::string& word) {  // 2
  static constexpr std::array<Rule, 21> kRules = {
      {{"ational", "ate"}, {"tional", "tion"}, {"enci", "ence"}, {"anci", "ance"}, {"izer", "ize"},
       {"bli", "ble"},     {"alli", "al"},     {"entli", "ent"}, {"eli", "e"},     {"ousli", "ous"},
       {"ization", "ize"}, {"ation", "ate"},   {"ator", "ate"},  {"alism", "al"},  {"iveness", "ive"},
       {"fulness", "ful"}, {"ousness", "ous"}, {"aliti", "al"},  {"iviti", "ive"}, {"biliti", "ble"},
       {"fulli", "ful"}}};
  while (word.ends_with("alli") && measure(std::string_view(word).substr(0, word.size() - 4)) > 0)
    word.resize(word.size() - 2);
  if (word.ends_with("logi")) {
    if (measure(std::string_view(word).substr(0, word.size() - 3)) > 0) word.pop_back();
    return;
  }
  apply(word, kRules, 0);
}

void further_suffixes(std::string& word) {  // 3
  static constexpr std::array<Rule, 7> kRules = {
      {{"icate", "ic"}, {"ative", ""}, {"alize", "al"}, {"iciti", "ic"}, {"ical", "ic"}, {"ful", ""}, {"ness", ""}}};
  apply(word, kRules, 0);
}

void last_suffixes(std::string& word) {  // 4
  static constexpr std::array<Rule, 18> kRules = {{{"al", ""},
                                                   {"ance", ""},
                                                   {"ence", ""},
                                                   {"er", ""},
                                                   {"ic", ""},
                                                   {"able", ""},
                                                   {"ible", ""},
                                                   {"ant", ""},
                                                   {"ement", ""},
                                                   {"ment", ""},
                                                   {"ent", ""},
                                                   {"ou", ""},
                                                   {"ism", ""},
                                                   {"ate", ""},
                                                   {"iti", ""},
                                                   {"ous", ""},
                                                   {"ive", ""},
                                                   {"ize", ""}}};
  if (word.ends_with("ion")) {
    const std::string_view stem(word.data(), word.size() - 3);
    if (measure(stem) > 1 && (stem.ends_with('s') || stem.ends_with('t'))) word.resize(stem.size());
    return;
  }
  apply(word, kRules, 1);
}

void tidy(std::string& word) {  // 5a, 5b
  if (word.ends_with('e')) {
    const std::string_view stem(word.data(), word.size() - 1);
    const int m = measure(stem);
    if (m > 1 || (m == 1 && !ends_with_cvc(stem))) word.pop_back();
  }
  if (word.ends_with("ll") && measure(std::string_view(word).substr(0, word.size() - 1)) > 1) word.pop_back();
}

}  // namespace

std::string porter_stem(std::string_view word) {
  static const std::map<std::string_view, std::string_view> irregular = {
      {"sky", "sky"},        {"skies", "sky"},       {"dying", "die"},        {"lying", "lie"},
      {"tying", "tie"},      {"news", "news"},       {"innings", "inning"},   {"inning", "inning"},
      {"outings", "outing"}, {"outing", "outing"},   {"cannings", "canning"}, {"canning", "canning"},
      {"howe", "howe"},      {"proceed", "proceed"}, {"exceed", "exceed"},    {"succeed", "succeed"}};
  if (const auto at = irregular.find(word); at != irregular.end()) return std::string(at->second);
  std::string stem(word);
  if (stem.size() <= 2) return stem;
  plural(stem);
  past_and_progressive(stem);
  final_y(stem);
  double_suffixes(stem);
  further_suffixes(stem);
  last_suffixes(stem);
  tidy(stem);
  return stem;
}

}  // namespace kvsweep
