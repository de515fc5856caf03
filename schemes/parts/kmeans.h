#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

namespace kvsweep {

struct Clustering {
  std::vector<int64_t> labels;  // of each point: 0 to count - 1, each held by some point
  int64_t count = 0;            // clusters: fewer than asked for where fewer points differ
  double inertia = 0;           // sum of squared distances to the centre of a point's cluster
};

// The best by inertia of `starts` runs, in double, of greedy k-means++ seeding (Arthur and Vassilvitskii, 2007) and
// Hartigan's method, which ends in fewer and better optima than Lloyd's. points: [n, dims]. The result is a function of
// the arguments.
Clustering kmeans(const at::Tensor& points, int64_t clusters, uint64_t seed, int64_t starts = 20);

}  // namespace kvsweep
