#include "tasks/data/niah.h"

#include <fmt/format.h>

#include <sstream>

#include "harness/core/error.h"
#include "tasks/data/locate.h"
#include "tasks/data/words.h"

namespace kvsweep {
namespace {

constexpr const char *kAdjectives = "wonderwords/adjectivelist.txt", *kNouns = "wonderwords/nounlist.txt";

// The singular set is what the protocol's replacements make of the plural one for one key and one value.
struct Strings {
  const char *head, *question, *answer_prefix;
};
constexpr Strings kPlural = {
    "Some special magic {type} are hidden within the following text. Make sure to memorize it. I will quiz you about "
    "the {type} afterwards.\n",
    "\nWhat are all the special magic {type} for {query} mentioned in the provided text?",
    " The special magic {type} for {query} mentioned in the provided text are"};
constexpr Strings kSingular = {
    "A special magic {type} is hidden within the following text. Make sure to memorize it. I will quiz you about the "
    "{type} afterwards.\n",
    "\nWhat is the special magic {type} for {query} mentioned in the provided text?",
    " The special magic {type} for {query} mentioned in the provided text is"};

}  // namespace

std::vector<std::string> word_lines(const DataLocator& data, const std::string& file) {
  const std::filesystem::path found = data.find(file);
  std::istringstream in(read_utf8(found));
  std::vector<std::string> lines;
  for (std::string line; std::getline(in, line);) {
    if (line.ends_with('\r')) line.pop_back();
    if (!line.empty()) lines.push_back(line);
  }
  if (lines.empty()) throw DataError(found.string() + ": no words");
  return lines;
}

Vocabulary vocabulary(const std::string& words, const DataLocator& data) {
  if (words == "generated") return {own_adjectives(), own_nouns()};
  return {word_lines(data, kAdjectives), word_lines(data, kNouns)};
}

std::vector<std::string> vocabulary_data(const std::string& words) {
  if (words == "generated") return {};
  return {kAdjectives, kNouns};
}

std::string Drawer::draw(const std::string& kind) {
  while (true) {
    std::string text = kind == "number" ? fmt::to_string(rng_.between(1000000, 9999999))
                       : kind == "word" ? rng_.pick(words_.adjectives) + "-" + rng_.pick(words_.nouns)
                                        : uuid4();
    if (drawn_.insert(text).second) return text;
  }
}

std::string Drawer::uuid4() {
  const uint64_t high = (rng_.next() & ~uint64_t{0xf000}) | 0x4000;
  const uint64_t low = (rng_.next() >> 2) | (uint64_t{1} << 63);
  return fmt::format("{:08x}-{:04x}-{:04x}-{:04x}-{:012x}", high >> 32, (high >> 16) & 0xffff, high & 0xffff, low >> 48,
                     low & 0xffffffffffff);
}

std::string niah_needle(const std::string& kind, const std::string& key, const std::string& value) {
  return fmt::format("One of the special magic {}s for {} is: {}.", kind, key, value);
}

NiahFrame niah_frame(const std::string& kind, const std::string& query, int64_t asked) {
  const Strings& strings = asked == 1 ? kSingular : kPlural;
  const auto filled = [&](const char* text) {
    return fmt::format(fmt::runtime(text), fmt::arg("type", kind + (asked == 1 ? "" : "s")), fmt::arg("query", query));
  };
  return {filled(strings.head), filled(strings.question), filled(strings.answer_prefix)};
}

std::string enumerate(const std::vector<std::string>& items) {
  if (items.size() == 1) return items[0];
  return join({items.begin(), items.end() - 1}) + ", and " + items.back();
}

}  // namespace kvsweep
