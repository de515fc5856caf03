#pragma once

#include <string>

#include "harness/report/analysis/analysis.h"

namespace kvsweep {

struct AnalysisJsonOptions {
  // KL by position, averaged over samples, in at most this many buckets of positions; 0: left out (it reads every
  // sample again).
  int kl_buckets = 0;
};

// An analysis as one JSON object, for figures and the page: numbers only, no texts of samples. What there is not is
// null, also what is not a number. "kvsweep_analysis" is the version of the form, tests/golden/report/*/analysis.json
// are such analyses.
std::string analysis_json(const Analysis& analysis, const AnalysisJsonOptions& options = {});

}  // namespace kvsweep
