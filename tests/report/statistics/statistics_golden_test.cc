// golden: scipy's and published numbers for every function that has some, to 1e-9.
#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_floating_point.hpp>
#include <nlohmann/json.hpp>

#include "harness/report/statistics/multiplicity.h"
#include "harness/report/statistics/paired.h"
#include "harness/report/statistics/proportion.h"
#include "tests/support/golden.h"

namespace kvsweep {
using Catch::Matchers::WithinAbs;
using Json = nlohmann::json;

namespace {

constexpr double kTolerance = 1e-9;

// The vectors of one kind from all files: a list, or a single one.
std::vector<Json> vectors_or_skip(const std::string& kind) {
  std::vector<Json> vectors;
  for (const auto& file : testing::golden_files("(.*/)?stats[^/]*[.]json")) {
    const Json content = Json::parse(testing::read_text(file));
    if (!content.contains(kind)) continue;
    const Json& found = content.at(kind);
    if (found.is_array()) {
      vectors.insert(vectors.end(), found.begin(), found.end());
    } else {
      vectors.push_back(found);
    }
  }
  if (vectors.empty()) SKIP("no stats*.json with " << kind << " in a golden root");
  return vectors;
}

void check(const Json& vector, const std::string& field, double got) {
  INFO(field << " of " << vector.dump());
  CHECK_THAT(got, WithinAbs(vector.at(field).get<double>(), kTolerance));
}

void check(const Json& wanted, const std::vector<double>& got) {
  REQUIRE(got.size() == wanted.size());
  for (size_t i = 0; i < got.size(); ++i) CHECK_THAT(got[i], WithinAbs(wanted[i].get<double>(), kTolerance));
}

}  // namespace

TEST_CASE("McNemar's tests have scipy's p", "[golden]") {
  for (const Json& vector : vectors_or_skip("mcnemar")) {
    const McNemar p = mcnemar(vector.at("lost"), vector.at("gained"));
    check(vector, "p_exact_two", p.two_sided);
    check(vector, "p_exact_one_loss", p.loss);
    check(vector, "p_mid_two", p.mid_p);
    check(vector, "p_chi2_cc", p.chi2_cc);
    CHECK_THAT(mcnemar(vector.at("gained"), vector.at("lost")).gain, WithinAbs(p.loss, kTolerance));
  }
}

TEST_CASE("Wilson's and Clopper-Pearson's intervals have their published ends", "[golden]") {
  for (const Json& vector : vectors_or_skip("wilson95_clopper")) {
    const Interval score = wilson(vector.at("k"), vector.at("n")),
                   exact = clopper_pearson(vector.at("k"), vector.at("n"));
    check(vector, "lo", score.low);
    check(vector, "hi", score.high);
    check(vector, "cp_lo", exact.low);
    check(vector, "cp_hi", exact.high);
  }
}

TEST_CASE("paired binary scores have the stored loss, Wald error and Newcombe interval", "[golden]") {
  for (const Json& vector : vectors_or_skip("paired_diff_base_minus_quant")) {
    const PairedCounts counts{vector.at("both"), vector.at("lost"), vector.at("gained"), vector.at("neither")};
    const Interval interval = newcombe_paired(counts);
    check(vector, "diff", counts.loss());
    check(vector, "wald_se", counts.wald_error());
    check(vector.at("newcombe"), {interval.low, interval.high});
  }
}

TEST_CASE("standard errors of clusters are the stored ones, with and without the finite correction", "[golden]") {
  for (const Json& vector : vectors_or_skip("clustered_se")) {
    const auto x = vector.at("x").get<std::vector<double>>();
    const MeanDifference mean = mean_difference({{}, vector.at("cluster"), Weighting::kItems}, x);
    check(vector, "naive_se", mean.naive_error);
    check(vector, "cluster_se", mean.uncorrected_error);
    check(vector, "cluster_se_fc", mean.standard_error);
  }
}

TEST_CASE("mean, error, t and signs of paired differences are the stored ones", "[golden]") {
  for (const Json& vector : vectors_or_skip("paired_mean")) {
    const auto d = vector.at("d").get<std::vector<double>>();
    const MeanDifference mean = mean_difference({}, d);
    check(vector, "mean", mean.mean);
    check(vector, "se", mean.standard_error);
    check(vector, "t", mean.t);
    check(vector, "p_t_two", mean.p_two_sided);
    const SignTest signs = sign_test({}, d);
    CHECK(signs.positive == vector.at("wilcoxon_sign_b").get<int64_t>());
    CHECK(signs.negative == vector.at("wilcoxon_sign_c").get<int64_t>());
  }
}

TEST_CASE("Holm's and Benjamini-Hochberg's adjusted p are the stored ones", "[golden]") {
  for (const Json& vector : vectors_or_skip("multiple")) {
    const auto p = vector.at("p").get<std::vector<double>>();
    check(vector.at("holm"), holm(p));
    check(vector.at("bh"), benjamini_hochberg(p));
  }
}

}  // namespace kvsweep
