// oracle: attention weights and their drift against plain loops in double.
#include "harness/attention/weights.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <catch2/catch_approx.hpp>
#include <catch2/catch_test_macros.hpp>
#include <cmath>
#include <limits>
#include <numeric>

#include "tests/support/torch/exact_cache.h"
#include "tests/support/torch/scheme_probe.h"

namespace kvsweep::testing {
namespace {

using Catch::Approx;
const PlainCodec kPlain;

}  // namespace

TEST_CASE("weights are the softmax of scaled scores over what the query may see") {
  const Rope rope({1.0f, 0.5f, 0.25f, 0.125f}, 1, at::kCPU, 64);
  const int64_t heads = 2, groups = 3, tokens = 21, dim = 8, position = 17;
  const at::Tensor k = normals({heads, tokens, dim}, 1), q = normals({heads * groups, 1, dim}, 2);
  KvView view;
  view.keys.push_back({&kPlain, {k.narrow(1, 0, 9)}, 9, KeyRotation::kApplied, {}});
  view.keys.push_back({&kPlain, {k.narrow(1, 9, 12)}, 12, KeyRotation::kApplied, {}});
  view.values.push_back({&kPlain, {k}, tokens, KeyRotation::kApplied, {}});
  const at::Tensor came = attention_weights(view, q, position, rope);
  REQUIRE(came.sizes() == at::IntArrayRef({heads * groups, position + 1}));
  for (int64_t head = 0; head < heads * groups; ++head) {
    std::vector<double> weights;
    for (int64_t t = 0; t <= position; ++t)
      weights.push_back(
          std::exp((q[head][0].to(at::kDouble) * k[head / groups][t].to(at::kDouble)).sum().item<double>() /
                   std::sqrt(static_cast<double>(dim))));
    const double sum = std::accumulate(weights.begin(), weights.end(), 0.0);
    for (int64_t t = 0; t <= position; ++t)
      CHECK(came[head][t].item<double>() == Approx(weights[static_cast<size_t>(t)] / sum).epsilon(1e-5));
  }
  // Tokens that were dropped have no weight, and the others keep their places.
  const at::Tensor positions = at::tensor(std::vector<int64_t>{0, 2, 3, 7, 11}, at::kLong);
  KvView dropped;
  dropped.keys.push_back({&kPlain, {k.narrow(1, 0, 5)}, 5, KeyRotation::kApplied, {}});
  dropped.values.push_back({&kPlain, {k.narrow(1, 0, 5)}, 5, KeyRotation::kApplied, {}});
  dropped.positions = positions;
  const at::Tensor sparse = attention_weights(dropped, q, 8, rope);
  REQUIRE(sparse.sizes() == at::IntArrayRef({heads * groups, 9}));
  CHECK(sparse[0][1].item<float>() == 0);
  CHECK(sparse[0][7].item<float>() > 0);
  CHECK(sparse.sum(-1).sub(1).abs().max().item<double>() < 1e-6);
}

TEST_CASE("drift is worked out by hand") {
  const at::Tensor full = at::tensor(std::vector<double>{0.5, 0.25, 0.125, 0.125}).view({1, 4}).to(at::kFloat);
  const at::Tensor own = at::tensor(std::vector<double>{0.125, 0.25, 0.125, 0.5}).view({1, 4}).to(at::kFloat);
  const WeightDrift drift = compare_weights(full, own, 2);
  CHECK(drift.kl == Approx(0.5 * std::log(4.0) + 0.125 * std::log(0.25)));
  CHECK(drift.overlap == 0.5);   // {0, 1} against {3, 1}
  CHECK(drift.oldest == 0.125);  // of four positions the oldest tenth is one
  CHECK(drift.full_oldest == 0.5);
  CHECK(compare_weights(full, full, 9).overlap == 1);
  CHECK(compare_weights(full, full, 9).kl == 0);
  const at::Tensor dropped = at::tensor(std::vector<double>{0.0, 0.5, 0.25, 0.25}).view({1, 4}).to(at::kFloat);
  CHECK(std::isinf(compare_weights(full, dropped, 2).kl));
  CHECK(std::isfinite(compare_weights(dropped, full, 2).kl));  // full precision never looks there
}

}  // namespace kvsweep::testing
