#include "harness/report/statistics/design.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>

#include "harness/core/error.h"

namespace kvsweep {
namespace {

void check_labels(const std::vector<int32_t>& labels, int64_t items, const char* kind) {
  if (!labels.empty() && static_cast<int64_t>(labels.size()) != items)
    throw DataError(
        fmt::format("{} {} labels for {} items; allowed are none or one an item", labels.size(), kind, items));
}

void check_nesting(const Design& design) {
  if (design.stratum.empty()) return;
  std::map<int32_t, size_t> first;  // item of a cluster
  for (size_t i = 0; i < design.cluster.size(); ++i) {
    const size_t other = first.emplace(design.cluster[i], i).first->second;
    if (design.stratum[other] != design.stratum[i])
      throw DataError(
          fmt::format("cluster {} has item {} in stratum {} and item {} in stratum {}; a cluster lies within "
                      "one stratum",
                      design.cluster[i], other, design.stratum[other], i, design.stratum[i]));
  }
}

}  // namespace

int64_t Layout::stratum_items(int64_t s) const {
  const auto at = static_cast<size_t>(s);
  return cluster[static_cast<size_t>(stratum[at + 1])] - cluster[static_cast<size_t>(stratum[at])];
}

double Layout::item_weight(int64_t s) const {
  if (weighting == Weighting::kItems) return 1 / static_cast<double>(items());
  return 1 / (static_cast<double>(strata()) * static_cast<double>(stratum_items(s)));
}

bool Layout::has_lone_cluster() const {
  for (size_t s = 0; s + 1 < stratum.size(); ++s)
    if (stratum[s + 1] - stratum[s] < 2) return true;
  return false;
}

Layout lay_out(const Design& design, int64_t items) {
  if (items < 1) throw DataError("statistics of no items");
  check_labels(design.stratum, items, "stratum");
  check_labels(design.cluster, items, "cluster");
  check_nesting(design);
  Layout layout;
  layout.weighting = design.weighting;
  layout.item.resize(static_cast<size_t>(items));
  std::iota(layout.item.begin(), layout.item.end(), int64_t{0});
  const auto stratum = [&](int64_t i) { return design.stratum.empty() ? 0 : design.stratum[static_cast<size_t>(i)]; };
  const auto cluster = [&](int64_t i) {
    return design.cluster.empty() ? i : int64_t{design.cluster[static_cast<size_t>(i)]};
  };
  std::stable_sort(layout.item.begin(), layout.item.end(), [&](int64_t a, int64_t b) {
    return std::pair{stratum(a), cluster(a)} < std::pair{stratum(b), cluster(b)};
  });
  for (int64_t place = 0; place < items; ++place) {
    const int64_t i = layout.item[static_cast<size_t>(place)];
    const int64_t before = place > 0 ? layout.item[static_cast<size_t>(place) - 1] : -1;
    const bool new_stratum = place == 0 || stratum(i) != stratum(before);
    if (new_stratum) layout.stratum.push_back(static_cast<int64_t>(layout.cluster.size()));
    if (new_stratum || cluster(i) != cluster(before)) layout.cluster.push_back(place);
  }
  layout.stratum.push_back(static_cast<int64_t>(layout.cluster.size()));
  layout.cluster.push_back(items);
  return layout;
}

std::vector<ClusterSum> cluster_sums(const Layout& layout, std::span<const double> d, int64_t columns, int64_t column) {
  std::vector<ClusterSum> sums(static_cast<size_t>(layout.clusters()));
  std::vector<double> values;
  for (size_t c = 0; c < sums.size(); ++c) {
    values.clear();
    for (int64_t place = layout.cluster[c]; place < layout.cluster[c + 1]; ++place)
      values.push_back(d[static_cast<size_t>(layout.item[static_cast<size_t>(place)] * columns + column)]);
    std::sort(values.begin(), values.end());
    sums[c] = {std::accumulate(values.begin(), values.end(), 0.0), static_cast<int64_t>(values.size())};
  }
  for (size_t s = 0; s + 1 < layout.stratum.size(); ++s)
    std::sort(sums.begin() + layout.stratum[s], sums.begin() + layout.stratum[s + 1],
              [](const ClusterSum& a, const ClusterSum& b) {
                return std::pair{a.sum, a.items} < std::pair{b.sum, b.items};
              });
  return sums;
}

double stratum_mean(const Layout& layout, std::span<const ClusterSum> sums, int64_t s) {
  double sum = 0;
  for (int64_t c = layout.stratum[static_cast<size_t>(s)]; c < layout.stratum[static_cast<size_t>(s) + 1]; ++c)
    sum += sums[static_cast<size_t>(c)].sum;
  return sum / static_cast<double>(layout.stratum_items(s));
}

double mean_of(const Layout& layout, std::span<const ClusterSum> sums) {
  double mean = 0;
  if (layout.weighting == Weighting::kStrata) {
    for (int64_t s = 0; s < layout.strata(); ++s) mean += stratum_mean(layout, sums, s);
    return mean / static_cast<double>(layout.strata());
  }
  for (const ClusterSum& cluster : sums) mean += cluster.sum;
  return mean / static_cast<double>(layout.items());
}

void require_finite(std::span<const double> values, const char* what, int64_t columns) {
  for (size_t i = 0; i < values.size(); ++i)
    if (!std::isfinite(values[i])) {
      const auto at = static_cast<int64_t>(i);
      const std::string column = columns > 1 ? fmt::format(", column {}", at % columns) : "";
      throw DataError(
          fmt::format("{} of item {}{} is {}; allowed are finite numbers", what, at / columns, column, values[i]));
    }
}

}  // namespace kvsweep
