// oracle: examples of Porter's paper and of NLTK's changes to it.
#include "tasks/metrics/porter.h"

#include <catch2/catch_test_macros.hpp>
#include <string>
#include <utility>

namespace kvsweep {

TEST_CASE("stems are NLTK's") {
  const std::pair<const char*, const char*> kStems[] = {{"caresses", "caress"},
                                                        {"ponies", "poni"},
                                                        {"ties", "tie"},
                                                        {"cats", "cat"},
                                                        {"feed", "feed"},
                                                        {"agreed", "agre"},
                                                        {"plastered", "plaster"},
                                                        {"bled", "bled"},
                                                        {"motoring", "motor"},
                                                        {"sing", "sing"},
                                                        {"conflated", "conflat"},
                                                        {"troubled", "troubl"},
                                                        {"sized", "size"},
                                                        {"hopping", "hop"},
                                                        {"falling", "fall"},
                                                        {"hissing", "hiss"},
                                                        {"filing", "file"},
                                                        {"happy", "happi"},
                                                        {"sky", "sky"},
                                                        {"relational", "relat"},
                                                        {"conditional", "condit"},
                                                        {"radically", "radic"},
                                                        {"triplicate", "triplic"},
                                                        {"formative", "form"},
                                                        {"electrical", "electr"},
                                                        {"hopefulness", "hope"},
                                                        {"goodness", "good"},
                                                        {"revival", "reviv"},
                                                        {"adoption", "adopt"},
                                                        {"replacement", "replac"},
                                                        {"controlling", "control"},
                                                        {"roll", "roll"},
                                                        {"probate", "probat"},
                                                        {"rate", "rate"},
                                                        {"cease", "ceas"},
                                                        // of NLTK's own
                                                        {"dying", "die"},
                                                        {"news", "news"},
                                                        {"spied", "spi"},
                                                        {"died", "die"},
                                                        {"enjoy", "enjoy"},
                                                        {"spy", "spi"},
                                                        {"theology", "theolog"},
                                                        {"is", "is"},
                                                        {"succeed", "succeed"},
                                                        {"skies", "sky"}};
  for (const auto& [word, stem] : kStems) {
    INFO(word);
    CHECK(porter_stem(word) == stem);
  }
}

}  // namespace kvsweep
