#include "tasks/data/sentences.h"

#include <fmt/format.h>

#include "tasks/data/words.h"

namespace kvsweep {
namespace {

const std::vector<std::string>& openings() {
  static const std::vector<std::string> phrases = {"Every morning",
                                                   "Late in the evening",
                                                   "Before the rain",
                                                   "After the long winter",
                                                   "On the way home",
                                                   "Without a word",
                                                   "As usual",
                                                   "At the end of the day",
                                                   "During the festival",
                                                   "Just before noon",
                                                   "In the first light",
                                                   "Once in a while",
                                                   "Some weeks later",
                                                   "To nobody's surprise",
                                                   "For a good reason",
                                                   "With a little luck",
                                                   "In spite of it all",
                                                   "Long ago",
                                                   "Early in the spring",
                                                   "On a quiet afternoon",
                                                   "Shortly after lunch",
                                                   "By all accounts",
                                                   "Under a cloudless sky",
                                                   "In the meantime"};
  return phrases;
}

const std::vector<std::string>& prepositions() {
  static const std::vector<std::string> words = {"behind", "near", "beside", "outside", "beyond", "close to", "inside"};
  return words;
}

std::string with_article(const std::string& phrase) {
  return (std::string_view("aeiou").find(phrase[0]) == std::string_view::npos ? "a " : "an ") + phrase;
}

bool is_space(char c) {
  return std::string_view(" \t\n\r\f\v").find(c) != std::string_view::npos;
}

std::string collapse_spaces(std::string_view text) {
  std::string out;
  for (char c : text) {
    if (!is_space(c))
      out += c;
    else if (!out.empty() && out.back() != ' ')
      out += ' ';
  }
  if (!out.empty() && out.back() == ' ') out.pop_back();
  return out;
}

// Position behind a closing quote or bracket at `at`, straight or typographic (three bytes of UTF-8); else `at`.
size_t skip_closer(std::string_view text, size_t at) {
  for (std::string_view closer : {"\"", "'", ")", "]", "\u2019", "\u201d"})
    if (text.substr(at).starts_with(closer)) return at + closer.size();
  return at;
}

}  // namespace

std::string SentenceGenerator::thing_phrase() {
  return fmt::format("{} {}", rng_.pick(own_adjectives()), rng_.pick(own_things()));
}

std::string SentenceGenerator::place_phrase() {
  const std::string& place = rng_.pick(own_places());
  const std::string where = fmt::format("{} the ", rng_.pick(prepositions()));
  return rng_.below(2) == 0 ? where + place : fmt::format("{}{} {}", where, rng_.pick(own_adjectives()), place);
}

std::string SentenceGenerator::draw() {
  const std::string& opening = rng_.pick(openings());
  const std::string& person = rng_.pick(own_people());
  const std::string& animal = rng_.pick(own_animals());
  const std::string& verb = rng_.pick(own_verbs());
  const std::string& motion = rng_.pick(own_motions());
  const std::string& adverb = rng_.pick(own_adverbs());
  const std::string thing = thing_phrase();
  const std::string place = place_phrase();
  switch (rng_.below(8)) {
    case 0:
      return fmt::format("{}, the {} {} the {} {}.", opening, person, verb, thing, place);
    case 1:
      return fmt::format("The {} {} the {} while the {} {} {}.", person, verb, thing, animal, motion, place);
    case 2:
      return fmt::format("When the {} {} {}, the {} was still {}.", person, motion, place, rng_.pick(own_things()),
                         rng_.pick(own_adjectives()));
    case 3:
      return fmt::format("The {} {} {} {}, and then {} {}.", person, adverb, verb, with_article(thing), motion, place);
    case 4:
      return fmt::format("There was {} {}, and the {} {} it {}.", with_article(thing), place, person, verb, adverb);
    case 5:
      return fmt::format("{}, {} {} {}.", opening, with_article(animal), motion, place);
    case 6:
      return fmt::format("Both the {} and the {} noticed the {}, but only the {} {}.", person, animal, thing, animal,
                         motion);
    default:
      return fmt::format("While the {} {} {}, someone {} {}.", animal, motion, place, verb, with_article(thing));
  }
}

std::string SentenceGenerator::next() {
  while (true) {
    std::string sentence = draw();
    if (made_.insert(sentence).second) return sentence;
  }
}

std::vector<std::string> split_sentences(std::string_view text) {
  const std::string flat = collapse_spaces(text);
  std::vector<std::string> sentences;
  size_t start = 0;
  for (size_t at = 0; at < flat.size(); ++at) {
    if (std::string_view(".!?").find(flat[at]) == std::string_view::npos) continue;
    size_t end = at + 1;
    for (size_t next = skip_closer(flat, end); next != end; next = skip_closer(flat, end)) end = next;
    if (end + 1 >= flat.size() || flat[end] != ' ' || (flat[end + 1] >= 'a' && flat[end + 1] <= 'z')) continue;
    sentences.push_back(flat.substr(start, end - start));
    start = end + 1;
    at = end;
  }
  if (start < flat.size()) sentences.push_back(flat.substr(start));
  return sentences;
}

}  // namespace kvsweep
