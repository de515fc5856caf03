// oracle: divergence, best tokens and flips against plain loops in double.
#include "harness/run/fidelity.h"

#include <ATen/ATen.h>

#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_floating_point.hpp>
#include <cmath>
#include <limits>

namespace kvsweep {
using Catch::Matchers::WithinAbs;
using Catch::Matchers::WithinRel;

TEST_CASE("rows are compared as plain loops do it, ties and odd widths among them") {
  at::manual_seed(11);
  for (const int64_t vocab : {1, 7, 64, 97, 1000}) {
    const at::Tensor log_probs = at::log_softmax(at::randn({6, vocab}) * 3, -1);
    auto* rows = log_probs.mutable_data_ptr<float>();
    rows[5 * vocab + vocab / 2] = rows[5 * vocab + vocab - 1] = 1;  // the first of two
    const std::vector<int64_t> own = {0, 1, 2, 5, 4}, reference = {3, 3, 2, 3, 5};
    const Fidelity found = compare_rows(log_probs, own, reference);
    REQUIRE(found.kl.size() == own.size());
    for (size_t i = 0; i < own.size(); ++i) {
      INFO("vocabulary of " << vocab << ", pair " << i);
      const float *mine = rows + own[i] * vocab, *full = rows + reference[i] * vocab;
      int32_t best = 0, full_best = 0;
      double kl = 0, total = 0;
      for (int32_t t = 0; t < vocab; ++t) {
        if (mine[t] > mine[best]) best = t;
        if (full[t] > full[full_best]) full_best = t;
        total += std::exp(double{full[t]});
        kl += std::exp(double{full[t]}) * (double{full[t]} - double{mine[t]});
      }
      CHECK(found.best[i] == best);
      CHECK(found.flip[i] == (best != full_best));
      if (reference[i] != 5) CHECK_THAT(found.kl[i], WithinRel(kl / total, 1e-4) || WithinAbs(kl / total, 1e-6));
      if (own[i] == reference[i]) CHECK(found.kl[i] == 0);
    }
  }
}

TEST_CASE("a row of NaN has its first token as the best") {
  const at::Tensor log_probs = at::log_softmax(at::randn({2, 200}), -1);
  log_probs[0].fill_(std::numeric_limits<float>::quiet_NaN());
  const Fidelity found = compare_rows(log_probs, {0}, {1});
  CHECK(found.best[0] == 0);
  CHECK(std::isnan(found.kl[0]));
}

}  // namespace kvsweep
