#include "schemes/parts/kmeans.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "harness/core/random.h"

namespace kvsweep {
namespace {

constexpr int64_t kMaxRounds = 300;

struct Points {
  const double* values;
  size_t count, dims;

  double distance(size_t point, const double* centre) const {
    double sum = 0;
    for (size_t d = 0; d < dims; ++d) {
      const double step = values[point * dims + d] - centre[d];
      sum += step * step;
    }
    return sum;
  }
};

// Each centre is the best of a few points drawn in proportion to their squared distance from the centres so far.
std::vector<double> seeded_centres(const Points& points, size_t clusters, Rng& rng) {
  const auto trials = 2 + static_cast<size_t>(std::log(static_cast<double>(clusters)));
  std::vector<double> centres, nearest(points.count, std::numeric_limits<double>::infinity());
  const auto with = [&](size_t chosen) {
    std::vector<double> distances = nearest;
    for (size_t i = 0; i < points.count; ++i)
      distances[i] = std::min(distances[i], points.distance(i, points.values + chosen * points.dims));
    return distances;
  };
  const auto sum = [](const std::vector<double>& all) {
    double total = 0;
    for (const double value : all) total += value;
    return total;
  };
  const auto draw = [&]() -> size_t {
    double left = rng.uniform() * sum(nearest);
    for (size_t i = 0; i < points.count; ++i)
      if ((left -= nearest[i]) < 0) return i;
    return rng.below(points.count);  // every point is a centre
  };
  for (size_t k = 0; k < clusters; ++k) {
    size_t best = k == 0 ? rng.below(points.count) : draw();
    std::vector<double> distances = with(best);
    for (size_t trial = 1; k > 0 && trial < trials; ++trial) {
      const size_t other = draw();
      std::vector<double> others = with(other);
      if (sum(others) < sum(distances)) {
        best = other;
        distances = std::move(others);
      }
    }
    nearest = std::move(distances);
    centres.insert(centres.end(), points.values + best * points.dims, points.values + (best + 1) * points.dims);
  }
  return centres;
}

// Moves points one at a time where that lowers the inertia, until no move does. A cluster keeps its last point, and an
// empty one takes any point that does not lie on its centre.
class Hartigan {
 public:
  Hartigan(const Points& points, std::vector<double> centres)
      : points_(points), centres_(std::move(centres)), sizes_(centres_.size() / points.dims, 0), labels_(points.count) {
    for (size_t i = 0; i < points_.count; ++i) {
      double least = std::numeric_limits<double>::infinity();
      for (size_t k = 0; k < sizes_.size(); ++k) {
        const double distance = points_.distance(i, centre(k));
        if (distance >= least) continue;
        least = distance;
        labels_[i] = k;
      }
    }
    average();
    for (int64_t round = 0; round < kMaxRounds && improve(); ++round) average();  // undoes what rounding piled up
  }

  double inertia() const {
    double total = 0;
    for (size_t i = 0; i < points_.count; ++i) total += points_.distance(i, centre(labels_[i]));
    return total;
  }
  const std::vector<size_t>& labels() const { return labels_; }

 private:
  double* centre(size_t cluster) { return &centres_[cluster * points_.dims]; }
  const double* centre(size_t cluster) const { return &centres_[cluster * points_.dims]; }

  void average() {
    std::fill(centres_.begin(), centres_.end(), 0);
    std::fill(sizes_.begin(), sizes_.end(), 0);
    for (size_t i = 0; i < points_.count; ++i) {
      sizes_[labels_[i]] += 1;
      for (size_t d = 0; d < points_.dims; ++d) centre(labels_[i])[d] += points_.values[i * points_.dims + d];
    }
    for (size_t k = 0; k < sizes_.size(); ++k)
      for (size_t d = 0; sizes_[k] > 0 && d < points_.dims; ++d) centre(k)[d] /= sizes_[k];
  }

  // Adds `count` (1 or -1) times a point to a cluster.
  void shift(size_t point, size_t cluster, double count) {
    const double size = sizes_[cluster] + count;
    for (size_t d = 0; d < points_.dims; ++d)
      centre(cluster)[d] += count * (points_.values[point * points_.dims + d] - centre(cluster)[d]) / size;
    sizes_[cluster] = size;
  }

  // True when some point moved.
  bool improve() {
    bool moved = false;
    for (size_t i = 0; i < points_.count; ++i) {
      const size_t from = labels_[i];
      if (sizes_[from] == 1) continue;
      const double gain = points_.distance(i, centre(from)) * sizes_[from] / (sizes_[from] - 1);
      double least = gain * (1 - 1e-12);  // a move has to pay beyond rounding
      size_t to = from;
      for (size_t k = 0; k < sizes_.size(); ++k) {
        if (k == from) continue;
        const double cost = points_.distance(i, centre(k)) * sizes_[k] / (sizes_[k] + 1);
        if (cost >= least) continue;
        least = cost;
        to = k;
      }
      if (to == from) continue;
      shift(i, from, -1);
      shift(i, to, 1);
      labels_[i] = to;
      moved = true;
    }
    return moved;
  }

  const Points& points_;
  std::vector<double> centres_, sizes_;
  std::vector<size_t> labels_;
};

// Numbers that some point holds, 0 upwards, in their order.
Clustering renumbered(const std::vector<size_t>& labels, size_t clusters, double inertia) {
  std::vector<int64_t> numbers(clusters, 0);
  for (const size_t label : labels) numbers[label] = 1;
  Clustering result;
  for (int64_t& number : numbers) number = number == 0 ? -1 : result.count++;
  for (const size_t label : labels) result.labels.push_back(numbers[label]);
  result.inertia = inertia;
  return result;
}

}  // namespace

Clustering kmeans(const at::Tensor& points, int64_t clusters, uint64_t seed, int64_t starts) {
  TORCH_CHECK(points.dim() == 2 && points.size(1) >= 1, "kmeans: points of sizes ", points.sizes());
  TORCH_CHECK(clusters >= 1 && clusters <= points.size(0), "kmeans: ", clusters, " clusters of ", points.size(0),
              " points");
  TORCH_CHECK(starts >= 1, "kmeans: ", starts, " starts");
  const at::Tensor values = points.to(at::kCPU, at::kDouble).contiguous();
  const Points all{values.const_data_ptr<double>(), static_cast<size_t>(values.size(0)),
                   static_cast<size_t>(values.size(1))};
  Rng rng(seed);
  Clustering best;
  for (int64_t start = 0; start < starts; ++start) {
    const Hartigan run(all, seeded_centres(all, static_cast<size_t>(clusters), rng));
    if (start > 0 && run.inertia() >= best.inertia) continue;
    best = renumbered(run.labels(), static_cast<size_t>(clusters), run.inertia());
  }
  return best;
}

}  // namespace kvsweep
