#pragma once

#include <string>
#include <string_view>

namespace kvsweep {

// Porter's stemmer (1980) in the dialect of NLTK (nltk.stem.porter, NLTK_EXTENSIONS): a few irregular forms, words of
// two letters stay, "ies" of a four-letter word becomes "ie", y after a consonant becomes i, "fulli", "alli", "ogi".
// word: lower-case ASCII.
std::string porter_stem(std::string_view word);

}  // namespace kvsweep
