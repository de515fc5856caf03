// oracle: adjusted p by their definitions and by statsmodels 0.14; contract: order, NaN, errors.
#include "harness/report/statistics/multiplicity.h"

#include <algorithm>
#include <catch2/catch_approx.hpp>
#include <catch2/catch_test_macros.hpp>
#include <cmath>

#include "harness/core/error.h"
#include "harness/core/random.h"

namespace kvsweep {
using Catch::Approx;

TEST_CASE("adjusted p are statsmodels' in the order given") {
  const std::vector<double> p{0.04, 0.01, 0.5, 0.03, 0.0001};
  const std::vector<double> holms{0.09, 0.04, 0.5, 0.09, 0.0005}, rates{0.05, 0.025, 0.5, 0.05, 0.0005};
  for (size_t i = 0; i < p.size(); ++i) {
    CHECK(holm(p)[i] == Approx(holms[i]).epsilon(1e-12));
    CHECK(benjamini_hochberg(p)[i] == Approx(rates[i]).epsilon(1e-12));
  }
}

// Holm rejects from the smallest on as long as p <= alpha / (m - rank); Benjamini-Hochberg all up to the last one with
// p <= alpha * rank / m.
TEST_CASE("what adjusted p reject at a level is what the step-wise procedures reject") {
  Rng rng(3);
  for (int round = 0; round < 200; ++round) {
    std::vector<double> p;
    for (int i = 0; i < 7; ++i) p.push_back(std::pow(rng.uniform(), 4));
    std::vector<double> sorted = p;
    std::sort(sorted.begin(), sorted.end());
    size_t holms = 0, rates = 0;
    while (holms < 7 && sorted[holms] <= 0.05 / static_cast<double>(7 - holms)) ++holms;
    for (size_t rank = 1; rank <= 7; ++rank)
      if (sorted[rank - 1] <= 0.05 * static_cast<double>(rank) / 7) rates = rank;
    const auto rejected = [](const std::vector<double>& adjusted) {
      return static_cast<size_t>(std::count_if(adjusted.begin(), adjusted.end(), [](double x) { return x <= 0.05; }));
    };
    CHECK(rejected(holm(p)) == holms);
    CHECK(rejected(benjamini_hochberg(p)) == rates);
  }
}

TEST_CASE("a test that could not be made takes no part, an impossible p is refused") {
  const std::vector<double> p{0.02, std::nan(""), 0.01};
  CHECK(holm(p)[0] == Approx(0.02));
  CHECK(std::isnan(holm(p)[1]));
  CHECK(holm(p)[2] == Approx(0.02));
  CHECK(benjamini_hochberg(p)[2] == Approx(0.02));
  CHECK(holm({}).empty());
  CHECK_THROWS_AS(holm(std::vector{1.5}), DataError);
  CHECK_THROWS_AS(benjamini_hochberg(std::vector{-0.1}), DataError);
}

}  // namespace kvsweep
