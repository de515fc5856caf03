#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "harness/report/analysis/results.h"

namespace kvsweep {

struct TagMean {
  std::string value;  // of the tag
  double mean = 0;
  int64_t n = 0;
};

// Means of a point's scores by a tag, values in natural order ("9" before "10").
struct TagMeans {
  std::string tag;
  std::vector<TagMean> means;
};

// By every tag that all of the point's items have and that divides them: 2 to 64 values, fewer than items. Depths of
// needles, subjects, lengths. Empty when the samples lack the metric.
std::vector<TagMeans> tag_means(const Results& results, const PointSamples& samples, std::string_view metric);

}  // namespace kvsweep
