#include "tasks/metrics/classification.h"

#include <algorithm>

namespace kvsweep {

double classification_score(std::string_view output, std::string_view answer, const std::vector<std::string>& classes) {
  std::vector<std::string_view> named;
  for (const std::string& name : classes)
    if (output.find(name) != std::string_view::npos) named.push_back(name);
  // The iterator steps on after a removal. list.remove takes the first equal entry, which need not be this one.
  for (size_t i = 0; i < named.size(); ++i) {
    const std::string_view name = named[i];
    if (answer.find(name) != std::string_view::npos && name != answer)
      named.erase(std::find(named.begin(), named.end(), name));
  }
  if (std::find(named.begin(), named.end(), answer) == named.end()) return 0;
  return 1.0 / static_cast<double>(named.size());
}

}  // namespace kvsweep
