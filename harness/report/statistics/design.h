#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace kvsweep {

// What a mean over items of several strata is.
enum class Weighting {
  kItems,   // the mean of all items; strata only say what is resampled apart
  kStrata,  // the mean of the strata's means: suite averages (LongBench), macro averages (MMLU by subject)
};

// How n items were drawn. Labels are any numbers. Both lists hold n labels or none; a cluster lies within one stratum.
// A function that takes a Design and differences throws DataError for anything else, for no items at all, and for a
// difference that is NaN or infinite (the message names the item, counted from 0).
struct Design {
  std::vector<int32_t> stratum = {};  // none: one stratum
  std::vector<int32_t> cluster = {};  // items that share a document; none: each item is a cluster of its own
  Weighting weighting = Weighting::kItems;
};

// A design in the order in which it is worked on: items sorted by stratum, then cluster, which makes clusters and
// strata ranges. Within a cluster items keep their order.
struct Layout {
  std::vector<int64_t> item;     // place -> item
  std::vector<int64_t> cluster;  // first place of each cluster, then n
  std::vector<int64_t> stratum;  // first cluster of each stratum, then the number of clusters
  Weighting weighting = Weighting::kItems;

  int64_t items() const { return static_cast<int64_t>(item.size()); }
  int64_t clusters() const { return static_cast<int64_t>(cluster.size()) - 1; }
  int64_t strata() const { return static_cast<int64_t>(stratum.size()) - 1; }
  int64_t cluster_size(int64_t c) const {
    return cluster[static_cast<size_t>(c) + 1] - cluster[static_cast<size_t>(c)];
  }
  int64_t stratum_items(int64_t s) const;
  // The share of one item of stratum s in the mean: 1/n, or 1/(strata * items of s).
  double item_weight(int64_t s) const;
  // A stratum of one cluster says nothing about its own spread.
  bool has_lone_cluster() const;
};

Layout lay_out(const Design& design, int64_t items);

struct ClusterSum {
  double sum = 0;
  int64_t items = 0;
};

// Sums of column j of d (n x m, row-major) over clusters, strata in order; within a stratum sorted by sum and size. Bit
// for bit the same for every order of the items.
std::vector<ClusterSum> cluster_sums(const Layout& layout, std::span<const double> d, int64_t columns = 1,
                                     int64_t column = 0);

// The mean that the design asks for, of sums and of stratum s alone.
double mean_of(const Layout& layout, std::span<const ClusterSum> sums);
double stratum_mean(const Layout& layout, std::span<const ClusterSum> sums, int64_t s);

// Throws DataError naming the first of `values` that is not finite; `what` says what they are. With m columns the item
// is the row.
void require_finite(std::span<const double> values, const char* what, int64_t columns = 1);

}  // namespace kvsweep
