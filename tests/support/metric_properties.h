#pragma once

#include <string_view>

namespace kvsweep::testing {

// What holds for every text: metrics lie in their range, an extracted answer stands in the text, equal texts score what
// the metric gives to equal texts. Throws std::logic_error naming the property that does not hold. The first looks at
// generated text alone, the second at metrics of two texts.
void check_extraction(std::string_view output);
void check_metrics(std::string_view output, std::string_view answer);

}  // namespace kvsweep::testing
