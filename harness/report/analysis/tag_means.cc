#include "harness/report/analysis/tag_means.h"

#include <algorithm>
#include <map>

#include "harness/report/analysis/natural_order.h"

namespace kvsweep {
namespace {

constexpr size_t kMostValues = 64;

struct Sum {
  double sum = 0;
  int64_t n = 0;
};

}  // namespace

std::vector<TagMeans> tag_means(const Results& results, const PointSamples& samples, std::string_view metric) {
  const std::vector<double>* scores = samples.find(metric);
  if (scores == nullptr || samples.size() == 0) return {};
  std::vector<TagMeans> out;
  for (const auto& [tag, unused] : results.items()[samples.item.front()].tags) {
    std::map<std::string_view, Sum> sums;
    bool divides = true;
    for (size_t i = 0; i < samples.size() && divides; ++i) {
      const std::string* value = results.items()[samples.item[i]].tag(tag);
      if ((divides = value != nullptr)) {
        Sum& sum = sums[*value];
        sum.sum += (*scores)[i];
        ++sum.n;
        divides = sums.size() <= kMostValues;
      }
    }
    if (!divides || sums.size() < 2 || sums.size() == samples.size()) continue;
    TagMeans& means = out.emplace_back(TagMeans{tag, {}});
    for (const auto& [value, sum] : sums)
      means.means.push_back({std::string(value), sum.sum / static_cast<double>(sum.n), sum.n});
    std::sort(means.means.begin(), means.means.end(),
              [](const TagMean& a, const TagMean& b) { return natural_compare(a.value, b.value) < 0; });
  }
  return out;
}

}  // namespace kvsweep
