// Oracle: k-means against every partition of a few points, and what any clustering owes.
#include "schemes/parts/kmeans.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <catch2/catch_approx.hpp>
#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <catch2/generators/catch_generators_range.hpp>
#include <limits>
#include <set>

#include "tests/support/torch/scheme_probe.h"

namespace kvsweep::testing {
namespace {

using Catch::Approx;

// Sum of squared distances to the means of the labels' groups.
double inertia_of(const at::Tensor& points, const std::vector<int64_t>& labels, int64_t clusters) {
  double sum = 0;
  for (int64_t k = 0; k < clusters; ++k) {
    std::vector<int64_t> own;
    for (size_t i = 0; i < labels.size(); ++i)
      if (labels[i] == k) own.push_back(static_cast<int64_t>(i));
    if (own.empty()) continue;
    const at::Tensor members = points.to(at::kDouble).index_select(0, at::tensor(own, at::kLong));
    sum += (members - members.mean(0, true)).square().sum().item<double>();
  }
  return sum;
}

TEST_CASE("k-means finds the best of all partitions of a few points") {
  const auto seed = static_cast<uint64_t>(GENERATE(range(1, 9)));
  constexpr int64_t kPoints = 9, kClusters = 3;
  const at::Tensor points = normals({kPoints, 2}, seed);
  double best = std::numeric_limits<double>::infinity();
  for (int64_t code = 0; code < 19683; ++code) {  // 3^9 labellings
    std::vector<int64_t> labels;
    for (int64_t i = 0, rest = code; i < kPoints; ++i, rest /= kClusters) labels.push_back(rest % kClusters);
    best = std::min(best, inertia_of(points, labels, kClusters));
  }
  const Clustering found = kmeans(points, kClusters, seed, 20);
  CHECK(found.inertia == Approx(best).epsilon(1e-9));
  CHECK(found.inertia == Approx(inertia_of(points, found.labels, found.count)).epsilon(1e-9));
}

TEST_CASE("no point can move to another cluster and lower the inertia") {
  const auto seed = static_cast<uint64_t>(GENERATE(range(1, 5)));
  const at::Tensor points = normals({24, 2}, 20 + seed);
  const int64_t clusters = GENERATE(2, 5, 9);
  const Clustering found = kmeans(points, clusters, seed, 1);
  for (size_t i = 0; i < found.labels.size(); ++i)
    for (int64_t to = 0; to < found.count; ++to) {
      std::vector<int64_t> moved = found.labels;
      moved[i] = to;
      CHECK(inertia_of(points, moved, found.count) >= found.inertia * (1 - 1e-9));
    }
}

TEST_CASE("k-means separates groups that lie apart") {
  at::Tensor points = normals({200, 2}, 3) * 0.1;
  points += at::arange(200).remainder(5).unsqueeze(1) * 10;
  const Clustering found = kmeans(points, 5, 1);
  REQUIRE(found.count == 5);
  for (size_t i = 0; i < 200; ++i)
    for (size_t j = 0; j < i; ++j) CHECK((found.labels[i] == found.labels[j]) == (i % 5 == j % 5));
}

TEST_CASE("k-means is a function of its arguments, and more clusters or starts lose nothing") {
  const at::Tensor points = normals({150, 3}, 4);
  double before = std::numeric_limits<double>::infinity();
  for (int64_t clusters = 1; clusters <= 150; clusters += clusters < 10 ? 1 : 20) {
    const Clustering one = kmeans(points, clusters, 7), again = kmeans(points, clusters, 7);
    CHECK(one.labels == again.labels);
    CHECK(one.count == clusters);
    CHECK(one.inertia < before);
    CHECK(one.inertia <= kmeans(points, clusters, 7, 1).inertia);
    before = one.inertia;
  }
  CHECK(kmeans(points, 150, 7).inertia == 0);
  CHECK(kmeans(points, 1, 7).inertia == Approx((points - points.mean(0, true)).square().sum().item<double>()));
}

TEST_CASE("clusters that no point is left for are dropped, and labels have no gap") {
  const at::Tensor points = at::arange(40, at::kFloat).remainder(3).unsqueeze(1).repeat({1, 2});
  const int64_t clusters = GENERATE(1, 2, 3, 4, 12, 40);
  const Clustering found = kmeans(points, clusters, 2);
  CHECK(found.count == std::min<int64_t>(clusters, 3));
  CHECK(std::set<int64_t>(found.labels.begin(), found.labels.end()).size() == static_cast<size_t>(found.count));
  CHECK(*std::max_element(found.labels.begin(), found.labels.end()) == found.count - 1);
  if (clusters >= 3) CHECK(found.inertia == 0);
}

TEST_CASE("k-means refuses what it cannot cluster") {
  const at::Tensor points = normals({5, 2}, 1);
  CHECK_THROWS(kmeans(points, 0, 1));
  CHECK_THROWS(kmeans(points, 6, 1));
  CHECK_THROWS(kmeans(points, 2, 1, 0));
  CHECK_THROWS(kmeans(points.flatten(), 2, 1));
}

}  // namespace
}  // namespace kvsweep::testing
