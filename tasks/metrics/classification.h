#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace kvsweep {

// LongBench's classification_score, in [0, 1]: 1 / (classes named) when the answer is among the classes that occur in
// `output`, else 0. Classes that are a part of the answer's name ("Number" in "Number of something") are meant to be
// left out; the original removes them from the list while it walks over it, so that the class after each removed one is
// not looked at. Reproduced: classes a, ab, abc, abcd, output and answer "abcd" score 0.5.
double classification_score(std::string_view output, std::string_view answer, const std::vector<std::string>& classes);

}  // namespace kvsweep
