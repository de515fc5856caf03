#pragma once

#include <string>
#include <vector>

namespace kvsweep {

// The project's own English vocabulary: lower-case letters only, no word twice within a list. Keys and word needles are
// "adjective-noun"; the sentence generator uses the rest as well.
const std::vector<std::string>& own_adjectives();  // at least 200
const std::vector<std::string>& own_people();
const std::vector<std::string>& own_animals();
const std::vector<std::string>& own_things();
const std::vector<std::string>& own_places();
// people, animals, things and places: at least 300 nouns.
std::vector<std::string> own_nouns();
const std::vector<std::string>& own_verbs();    // regular past tense, transitive: "painted"
const std::vector<std::string>& own_motions();  // past tense, intransitive: "waited"
const std::vector<std::string>& own_adverbs();

}  // namespace kvsweep
