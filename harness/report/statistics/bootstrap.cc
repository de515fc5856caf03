#include "harness/report/statistics/bootstrap.h"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <boost/math/distributions/normal.hpp>
#include <cmath>
#include <cstring>
#include <limits>
#include <thread>

#include "harness/core/error.h"
#include "harness/core/random.h"

namespace kvsweep {
namespace {

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
constexpr double kTie = 1e-12;               // of the shares' absolute sum: means that differ by less are the same mean
constexpr int64_t kReplicates = 8'000'000;   // means that are kept at a time, 64 MB
constexpr int64_t kCountBytes = 128 * 1024;  // of a chunk of resamples' counts: they stay in the second-level cache
constexpr int64_t kWide = 16;                // columns that one pass over the counts serves

// body(i) for i in [0, count), on several threads.
template <class Body>
void parallel_for(int threads, int64_t count, const Body& body) {
  std::atomic<int64_t> next{0};
  const auto work = [&] {
    for (int64_t i = next++; i < count; i = next++) body(i);
  };
  std::vector<std::thread> others;
  for (int64_t t = 1; t < std::min<int64_t>(threads, count); ++t) others.emplace_back(work);
  work();
  for (std::thread& other : others) other.join();
}

// Numbers below a bound from 32 random bits each: multiply, shift and reject (Lemire 2019). Rng::below divides twice a
// number, which is five times as slow.
class Draws {
 public:
  explicit Draws(uint64_t seed) : rng_(seed) {}
  // fill(bound, counts): as many draws as the bound, counted.
  void count(uint32_t bound, int32_t* counts) {
    const uint32_t threshold = (0 - bound) % bound;
    uint32_t left = bound;
    while (left > 0) {
      uint64_t bits = rng_.next();
      for (int half = 0; half < 2 && left > 0; ++half, bits >>= 32) {
        const uint64_t product = (bits & 0xffffffff) * bound;
        if (static_cast<uint32_t>(product) < threshold) continue;
        ++counts[product >> 32];
        --left;
      }
    }
  }

 private:
  Rng rng_;
};

// Compiled once per instruction set, picked when the program starts. All give the same bits: a lane is a column, and
// contraction to fused multiply-add is off in this file (CMakeLists.txt).
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define KVSWEEP_CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define KVSWEEP_CLONES
#endif

KVSWEEP_CLONES void add_wide_products(const int32_t* counts, const double* values, int64_t first, int64_t end,
                                      double* out) {
  using Lanes = double __attribute__((vector_size(32)));
  constexpr int64_t kLanes = 4;
  Lanes sums[kWide / kLanes] = {};
  for (int64_t c = first; c < end; ++c) {
    const Lanes count = Lanes{} + static_cast<double>(counts[c]);
    for (int64_t i = 0; i < kWide / kLanes; ++i) {
      Lanes of_cluster;
      std::memcpy(&of_cluster, values + c * kWide + i * kLanes, sizeof of_cluster);
      sums[i] += count * of_cluster;
    }
  }
  for (int64_t i = 0; i < kWide / kLanes; ++i) std::memcpy(out + i * kLanes, &sums[i], sizeof sums[i]);
}

// Sum over [first, end) of counts[c] * values[c * W + j], W being 1 or kWide.
template <int64_t W>
void add_products(const int32_t* counts, const double* values, int64_t first, int64_t end, double* out) {
  static_assert(W == kWide);
  add_wide_products(counts, values, first, end, out);
}

// One column alone: four sums, so that an addition does not wait for the one before.
template <>
void add_products<1>(const int32_t* counts, const double* values, int64_t first, int64_t end, double* out) {
  double sums[4] = {};
  int64_t c = first;
  for (; c + 4 <= end; c += 4)
    for (int64_t j = 0; j < 4; ++j) sums[j] += counts[c + j] * values[c + j];
  for (; c < end; ++c) sums[0] += counts[c] * values[c];
  *out = (sums[0] + sums[1]) + (sums[2] + sums[3]);
}

// The clusters of one column, strata in order.
struct Column {
  std::vector<ClusterSum> clusters;
  double mean = 0, size = 0;  // size: sum of |share|
};

class Bootstrap {
 public:
  Bootstrap(const Design& design, std::span<const double> d, int64_t columns, const BootstrapOptions& options)
      : layout_(lay_out(design, static_cast<int64_t>(d.size()) / columns)),
        d_(d),
        columns_(columns),
        options_(options),
        seed_(derive_seed(options.seed, "bootstrap")) {
    for (int64_t s = 0; s < layout_.strata(); ++s)
      for (int64_t c = first(s); c < first(s + 1); ++c)
        equal_sizes_ &= layout_.cluster_size(c) == layout_.cluster_size(first(s));
    if (layout_.weighting == Weighting::kStrata) {
      segments_ = layout_.stratum;
    } else {
      segments_ = {0, layout_.clusters()};
    }
  }

  std::vector<Bootstrapped> run() {
    std::vector<Bootstrapped> results(static_cast<size_t>(columns_));
    const int64_t at_once = std::max(kWide, kReplicates / options_.resamples / kWide * kWide);
    for (int64_t begin = 0; begin < columns_; begin += at_once)
      run_block(begin, std::min(columns_, begin + at_once), results);
    return results;
  }

 private:
  int64_t first(int64_t s) const { return layout_.stratum[static_cast<size_t>(s)]; }

  void run_block(int64_t begin, int64_t end, std::vector<Bootstrapped>& results) {
    const int64_t width = end - begin == 1 ? 1 : kWide, panels = (end - begin + width - 1) / width;
    block_.assign(static_cast<size_t>(end - begin), {});
    parallel_for(options_.threads, end - begin, [&](int64_t j) { prepare(begin + j, block_[static_cast<size_t>(j)]); });
    const auto panel_size = static_cast<size_t>(panels * layout_.clusters() * width);
    sums_.assign(panel_size, 0);
    sizes_.assign(equal_sizes_ ? 0 : panel_size, 1);  // of columns that pad a panel: anything but 0 clusters
    parallel_for(options_.threads, end - begin, [&](int64_t j) { pack(j, width); });
    means_.resize(static_cast<size_t>((end - begin) * options_.resamples));
    if (!layout_.has_lone_cluster()) {
      const int64_t chunk = std::clamp<int64_t>(kCountBytes / 4 / layout_.clusters(), 1, 64);
      parallel_for(options_.threads, (options_.resamples + chunk - 1) / chunk, [&](int64_t i) {
        const int64_t b = i * chunk, count = std::min(chunk, options_.resamples - b);
        width == 1 ? resample<1>(b, count) : resample<kWide>(b, count);
      });
    }
    parallel_for(options_.threads, end - begin, [&](int64_t j) {
      results[static_cast<size_t>(begin + j)] = conclude(block_[static_cast<size_t>(j)], replicates(j));
    });
  }

  void prepare(int64_t column, Column& out) const {
    out.clusters = cluster_sums(layout_, d_, columns_, column);
    out.mean = mean_of(layout_, out.clusters);
    for (int64_t s = 0; s < layout_.strata(); ++s)
      for (int64_t c = first(s); c < first(s + 1); ++c)
        out.size += layout_.item_weight(s) * std::abs(out.clusters[static_cast<size_t>(c)].sum);
  }

  void pack(int64_t j, int64_t width) {
    const int64_t base = j / width * layout_.clusters() * width + j % width;
    const Column& column = block_[static_cast<size_t>(j)];
    for (int64_t c = 0; c < layout_.clusters(); ++c) {
      const auto at = static_cast<size_t>(base + c * width);
      sums_[at] = column.clusters[static_cast<size_t>(c)].sum;
      if (!equal_sizes_) sizes_[at] = static_cast<double>(column.clusters[static_cast<size_t>(c)].items);
    }
  }

  std::span<double> replicates(int64_t j) {
    return std::span(means_).subspan(static_cast<size_t>(j * options_.resamples),
                                     static_cast<size_t>(options_.resamples));
  }

  template <int64_t W>
  void resample(int64_t from, int64_t count) {
    const int64_t clusters = layout_.clusters();
    std::vector<int32_t> counts(static_cast<size_t>(count * clusters));
    for (int64_t b = 0; b < count; ++b) {
      Draws draws(seed_ + static_cast<uint64_t>(from + b));
      for (int64_t s = 0; s < layout_.strata(); ++s)
        draws.count(static_cast<uint32_t>(first(s + 1) - first(s)), counts.data() + b * clusters + first(s));
    }
    const auto columns = static_cast<int64_t>(block_.size());
    for (int64_t panel = 0; panel * W < columns; ++panel)
      for (int64_t b = 0; b < count; ++b) {
        double means[W];
        panel_means<W>(counts.data() + b * clusters, panel * clusters * W, means);
        for (int64_t j = 0; j < std::min(W, columns - panel * W); ++j)
          means_[static_cast<size_t>((panel * W + j) * options_.resamples + from + b)] = means[j];
      }
  }

  template <int64_t W>
  void panel_means(const int32_t* counts, int64_t panel, double* means) const {
    std::fill_n(means, W, 0.0);
    const auto segments = static_cast<int64_t>(segments_.size()) - 1;
    for (int64_t s = 0; s < segments; ++s) {
      const int64_t begin = segments_[static_cast<size_t>(s)], end = segments_[static_cast<size_t>(s) + 1];
      double sums[W], sizes[W];
      add_products<W>(counts, sums_.data() + panel, begin, end, sums);
      if (equal_sizes_) {
        std::fill_n(sizes, W, static_cast<double>(segments == 1 ? layout_.items() : layout_.stratum_items(s)));
      } else {
        add_products<W>(counts, sizes_.data() + panel, begin, end, sizes);
      }
      for (int64_t j = 0; j < W; ++j) means[j] += sums[j] / sizes[j];
    }
    for (int64_t j = 0; j < W; ++j) means[j] /= static_cast<double>(segments);
  }

  // Skewness of the mean's influences over 6 (Davison and Hinkley 1997, equation 5.30 with jackknife values).
  double acceleration(const Column& column) const {
    double squares = 0, cubes = 0;
    for (int64_t s = 0; s < layout_.strata(); ++s) {
      const std::vector<double> without = jackknife(column, s);
      const auto count = static_cast<double>(without.size());
      double total = 0;
      for (const double mean : without) total += mean;
      for (const double mean : without) {
        const double influence = (count - 1) / count * (total / count - mean);
        squares += influence * influence;
        cubes += influence * influence * influence;
      }
    }
    return squares > 0 ? cubes / (6 * std::pow(squares, 1.5)) : 0;
  }

  // The mean without each cluster of stratum s.
  std::vector<double> jackknife(const Column& column, int64_t s) const {
    const bool all = layout_.weighting == Weighting::kItems;
    const auto n = static_cast<double>(all ? layout_.items() : layout_.stratum_items(s));
    const double centre = all ? column.mean : stratum_mean(layout_, column.clusters, s);
    const double share = all ? 1 : 1 / static_cast<double>(layout_.strata());
    std::vector<double> means;
    for (int64_t c = first(s); c < first(s + 1); ++c) {
      const ClusterSum& cluster = column.clusters[static_cast<size_t>(c)];
      const double without = (centre * n - cluster.sum) / (n - static_cast<double>(cluster.items));
      means.push_back(column.mean + share * (without - centre));
    }
    return means;
  }

  // `means` are reordered.
  Bootstrapped conclude(const Column& column, std::span<double> means) const {
    if (layout_.has_lone_cluster()) return {column.mean, kNaN, {kNaN, kNaN}, {kNaN, kNaN}, kNaN, kNaN};
    const double m = column.mean, tie = kTie * column.size;
    int64_t below = 0, above = 0, losses = 0, gains = 0;
    double sum = 0, squares = 0;
    for (const double mean : means) {
      const double centred = mean - m;
      below += centred < -tie;
      above += centred > tie;
      losses += centred >= m - tie;
      gains += centred <= m + tie;
      sum += centred;
      squares += centred * centred;
    }
    const auto count = static_cast<double>(means.size());
    Bootstrapped result;
    result.mean = m;
    result.standard_error = std::sqrt(std::max(0.0, (squares - sum * sum / count) / (count - 1)));
    result.p_loss = static_cast<double>(1 + losses) / (count + 1);
    result.p_gain = static_cast<double>(1 + gains) / (count + 1);
    const double half =
        (count + static_cast<double>(below) - static_cast<double>(above)) / (2 * count);  // ties by half
    set_intervals(means, std::clamp(half, 0.5 / count, 1 - 0.5 / count), acceleration(column), result);
    return result;
  }

  void set_intervals(std::span<double> means, double half, double a, Bootstrapped& result) const {
    const boost::math::normal normal;
    const double low = (1 - options_.confidence) / 2, z0 = boost::math::quantile(normal, half);
    const auto corrected = [&](double at) {
      const double z = z0 + boost::math::quantile(normal, at), scale = 1 - a * z;
      return scale > 0 ? boost::math::cdf(normal, z0 + z / scale) : (z > 0 ? 1.0 : 0.0);
    };
    const double at[] = {low, 1 - low, corrected(low), corrected(1 - low)};
    const std::vector<double> found = quantiles(means, at);
    result.percentile = {found[0], found[1]};
    result.bca = {found[2], found[3]};
  }

  // As quantile() of rates.h, several at once and by selection: sorting takes five times as long.
  static std::vector<double> quantiles(std::span<double> values, std::span<const double> at) {
    std::vector<int64_t> places;
    const auto last = static_cast<int64_t>(values.size()) - 1;
    for (const double share : at) {
      const auto below = static_cast<int64_t>(share * static_cast<double>(last));
      places.push_back(below);
      places.push_back(std::min(below + 1, last));
    }
    std::vector<int64_t> sorted = places;
    std::sort(sorted.begin(), sorted.end());
    // Those of the lower half from above, those of the upper from below: all but two searches are within a tail.
    const auto middle = std::partition_point(sorted.begin(), sorted.end(), [&](int64_t p) { return p <= last / 2; });
    int64_t begin = 0, end = last + 1;
    for (auto place = middle; place != sorted.end(); ++place) {
      if (*place < begin) continue;  // found already
      std::nth_element(values.begin() + begin, values.begin() + *place, values.end());
      if (place == middle) end = *place;
      begin = *place + 1;
    }
    for (auto place = middle; place != sorted.begin();) {
      --place;
      if (*place >= end) continue;
      std::nth_element(values.begin(), values.begin() + *place, values.begin() + end);
      end = *place;
    }
    std::vector<double> found;
    for (size_t i = 0; i < at.size(); ++i) {
      const double place = at[i] * static_cast<double>(last), low = values[static_cast<size_t>(places[2 * i])];
      const double high = values[static_cast<size_t>(places[2 * i + 1])];
      found.push_back(low + (place - std::floor(place)) * (high - low));
    }
    return found;
  }

  Layout layout_;
  std::span<const double> d_;
  int64_t columns_;
  BootstrapOptions options_;
  uint64_t seed_;
  bool equal_sizes_ = true;           // of clusters within a stratum: what a resample holds is known
  std::vector<int64_t> segments_;     // clusters whose sums have a denominator of their own
  std::vector<Column> block_;         // columns at work
  std::vector<double> sums_, sizes_;  // panels of `width` columns: [panel][cluster][column]
  std::vector<double> means_;         // [column][resample]
};

void check(std::span<const double> d, int64_t columns, const BootstrapOptions& options) {
  if (columns < 1 || d.empty() || static_cast<int64_t>(d.size()) % columns != 0)
    throw DataError(fmt::format("bootstrap: {} differences in {} columns", d.size(), columns));
  if (options.resamples < 100 || options.threads < 1 || !(options.confidence > 0 && options.confidence < 1))
    throw DataError(
        fmt::format("bootstrap: {} resamples, {} threads, confidence {}; allowed are at least 100, at least 1, "
                    "between 0 and 1",
                    options.resamples, options.threads, options.confidence));
  require_finite(d, "difference", columns);
}

}  // namespace

std::vector<Bootstrapped> bootstrap_columns(const Design& design, std::span<const double> d, int64_t columns,
                                            const BootstrapOptions& options) {
  check(d, columns, options);
  return Bootstrap(design, d, columns, options).run();
}

Bootstrapped bootstrap(const Design& design, std::span<const double> d, const BootstrapOptions& options) {
  return bootstrap_columns(design, d, 1, options)[0];
}

}  // namespace kvsweep
