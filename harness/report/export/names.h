#pragma once

#include <string>
#include <vector>

#include "harness/report/record.h"

namespace kvsweep {

struct Named {
  std::string base;  // what it is called when nothing else is called so
  Fields facts;
};

// Names for files and folders: of those with the same base, with the facts that differ among them ("uniform_k_bits=4");
// runs of other characters than letters, digits and . - = become one "_". A name that would be longer than 120 bytes or
// is still another's ends with 8 digits of a hash of all facts.
std::vector<std::string> file_names(const std::vector<Named>& things);

}  // namespace kvsweep
