// oracle: a point's summary equals the formulas written out.
#include <catch2/catch_approx.hpp>
#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_exception.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include <cmath>
#include <limits>

#include "harness/core/error.h"
#include "harness/report/record.h"
#include "tests/report/examples.h"

namespace kvsweep {
using Catch::Approx;
using Catch::Matchers::ContainsSubstring;
using Catch::Matchers::MessageMatches;

namespace {

std::vector<SampleRecord> with_scores(const std::vector<double>& scores, const std::string& metric = "exact_match") {
  std::vector<SampleRecord> samples;
  for (size_t i = 0; i < scores.size(); ++i) {
    samples.push_back(testing::example_sample("p", static_cast<int64_t>(i)));
    samples.back().scores = {{metric, scores[i]}};
  }
  return samples;
}

Record summary(const std::vector<SampleRecord>& samples, const std::vector<SampleRecord>& reference,
               bool lossless = false) {
  Record record;
  record.primary_metric = samples.front().scores.begin()->first;
  record.metric_info[record.primary_metric] = {};
  summarize(record, samples, reference, lossless);
  return record;
}

}  // namespace

TEST_CASE("a 0/1 score has its mean, its binomial standard error and its lost and gained samples") {
  const auto full = with_scores({1, 1, 1, 1, 0, 0, 1, 1});
  const auto own = with_scores({1, 0, 0, 0, 1, 0, 1, 1});
  const Record record = summary(own, full);
  CHECK(record.status == "ok");
  CHECK(record.n == 8);
  CHECK(record.metrics.at("exact_match").mean == 4.0 / 8);
  // p (1 - p) / (n - 1)
  CHECK(record.metrics.at("exact_match").standard_error == Approx(std::sqrt(0.5 * 0.5 / 7)).epsilon(1e-12));
  REQUIRE(record.paired.has_value());
  CHECK(record.paired->lost == 3);
  CHECK(record.paired->gained == 1);
  CHECK(record.paired->delta == (1.0 - 3.0) / 8);
  // Differences: three of -1, one of +1, four of 0; mean -1/4.
  const double squares = 3 * 0.75 * 0.75 + 1.25 * 1.25 + 4 * 0.25 * 0.25;
  CHECK(record.paired->standard_error == Approx(std::sqrt(squares / (8 * 7))).epsilon(1e-12));
}

TEST_CASE("a graded score has a paired difference but no lost and gained samples") {
  const Record record = summary(with_scores({3.5, 2.5, 4.5}, "nll"), with_scores({3.25, 2.5, 4.0}, "nll"));
  CHECK(record.metrics.at("nll").mean == 3.5);
  CHECK(record.metrics.at("nll").standard_error == Approx(std::sqrt(2.0 / (3 * 2))));
  CHECK(record.paired->metric == "nll");
  CHECK(record.paired->delta == 0.25);
  CHECK(record.paired->standard_error == Approx(std::sqrt((0.0625 + 0.0625) / (3 * 2))));
  CHECK(record.paired->lost == 0);
  CHECK(record.paired->gained == 0);
}

TEST_CASE("small spreads around a large mean keep their standard error") {
  const Record record = summary(with_scores({1e9 + 1, 1e9 + 2, 1e9 + 3}, "nll"), with_scores({0, 0, 0}, "nll"));
  CHECK(record.metrics.at("nll").standard_error == Approx(std::sqrt(2.0 / (3 * 2))));
}

TEST_CASE("one sample has a standard error of zero") {
  const Record record = summary(with_scores({1}), with_scores({0}));
  CHECK(record.metrics.at("exact_match").standard_error == 0);
  CHECK(record.paired->standard_error == 0);
  CHECK(record.paired->gained == 1);
}

TEST_CASE("KL is averaged over positions, then over samples; its tail is over all positions") {
  auto samples = with_scores({1, 1, 1});
  samples[0].kl = {1, 3};
  samples[0].top1_flips = 1;
  samples[1].kl.assign(97, 0.5f);
  samples[1].top1_flips = 0;
  samples[2].kl = {};  // nothing comparable: counts for neither
  samples[2].top1_flips = 0;
  const Record record = summary(samples, with_scores({1, 1, 1}));
  CHECK(record.kl.mean == (2.0 + 0.5) / 2);
  CHECK(record.kl.n == 2);
  CHECK(record.kl.standard_error == Approx(std::sqrt(2 * 0.75 * 0.75 / (2 * 1))));
  CHECK(record.top1_flips.mean == (1.0 / 2 + 0) / 2);
  // 99 positions: rank ceil(0.99 * 99) = 99 is the largest; with one more it is the 99th of 100.
  CHECK(record.kl_p99 == 3);
  CHECK(record.kl_max == 3);
  CHECK(record.kl_median > 0);
  CHECK(record.kl_median <= record.kl_p99);
  samples[1].kl.push_back(0.5f);
  const Record more = summary(samples, with_scores({1, 1, 1}));
  CHECK(more.kl_p99 == 1);
  CHECK(more.kl_max == 3);
}

TEST_CASE("a KL that is not a number is not hidden by the tail") {
  auto samples = with_scores({1, 1});
  samples[1].kl[1] = std::numeric_limits<float>::quiet_NaN();
  const Record record = summary(samples, samples);
  CHECK(std::isnan(record.kl.mean));
  CHECK(std::isnan(record.kl_p99));
  CHECK(std::isnan(record.kl_max));
}

TEST_CASE("bits and bytes a token come from the bytes of each sample, totals from the longest") {
  auto samples = with_scores({1, 1});
  samples[0].bytes = {{{"codes", 100}}, 100, 128, 0, 10, 400};
  samples[1].bytes = {{{"codes", 600}}, 600, 640, 0, 20, 800};
  const Record record = summary(samples, samples);
  CHECK(record.effective_bits == 8 * (100.0 / 400 + 600.0 / 800) / 2);
  CHECK(record.bytes_per_token == (100.0 / 10 + 600.0 / 20) / 2);
  CHECK(record.bytes.live == 600);
  CHECK(record.bytes.tokens == 20);
}

TEST_CASE("times are means, of decoding over the samples that were timed") {
  auto samples = with_scores({1, 1});
  samples[0].time = {10, 1, 5, 40.0, "fused"};
  samples[1].time = {20, 2, 5, std::nullopt, ""};
  Record record = summary(samples, samples);
  CHECK(record.prefill_ms == 15);
  CHECK(record.compress_ms == 1.5);
  CHECK(record.decode_ms_per_token == 40.0);
  CHECK(record.path == "fused");
  samples[0].time.decode_ms_per_token.reset();
  record = summary(samples, samples);
  CHECK_FALSE(record.decode_ms_per_token.has_value());
  CHECK(record.path.empty());
}

TEST_CASE("what was generated, reused and diverged is counted over samples") {
  auto samples = with_scores({1, 1, 1, 1});
  for (SampleRecord& sample : samples) {
    sample.output_tokens = {1, 2, 3};
    sample.reused_tokens = 2;
    sample.first_divergence = -1;
  }
  samples[2].first_divergence = 0;
  Record record = summary(samples, samples);
  CHECK(record.generated_tokens == 12);
  CHECK(record.reused_tokens == 8);
  CHECK(record.divergence_share == 0.25);
  for (SampleRecord& sample : samples) {
    sample.output_tokens.clear();
    sample.first_divergence = -1;
  }
  record = summary(samples, samples);
  CHECK_FALSE(record.divergence_share.has_value());  // nothing was generated
}

TEST_CASE("attention drift is a mean over the samples that have one") {
  auto samples = with_scores({1, 1, 1});
  for (SampleRecord& sample : samples) sample.attention.reset();
  CHECK_FALSE(summary(samples, samples).attention.has_value());
  samples[0].attention = AttentionDrift{0.1, 0.5, 0.2, 0.3};
  samples[2].attention = AttentionDrift{0.3, 0.7, 0.4, 0.5};
  const Record record = summary(samples, samples);
  REQUIRE(record.attention.has_value());
  CHECK(record.attention->kl == (0.1 + 0.3) / 2);
  CHECK(record.attention->overlap == (0.5 + 0.7) / 2);
  CHECK(record.attention->oldest == (0.2 + 0.4) / 2);
  CHECK(record.attention->full_oldest == (0.3 + 0.5) / 2);
}

TEST_CASE("noise is that of the full-precision rows, weighted by positions") {
  auto samples = with_scores({1, 1});
  for (SampleRecord& sample : samples) sample.noise.reset();
  auto reference = samples;
  CHECK_FALSE(summary(samples, reference).noise.has_value());
  reference[0].noise = Noise{1e-6, 3e-6, 30, 1};
  reference[1].noise = Noise{4e-6, 2e-6, 10, 2};
  samples[0].noise = Noise{1, 1, 1, 1};  // not of the reference: no noise floor
  const Record record = summary(samples, reference);
  REQUIRE(record.noise.has_value());
  CHECK(record.noise->kl == (1e-6 * 30 + 4e-6 * 10) / 40);
  CHECK(record.noise->kl_max == 3e-6);
  CHECK(record.noise->positions == 40);
  CHECK(record.noise->top1_flips == 3);
}

TEST_CASE("a point that read nothing compressed is not engaged, unless it compresses nothing") {
  auto samples = with_scores({1, 1});
  for (SampleRecord& sample : samples) sample.compressed_reads = 0;
  CHECK(summary(samples, samples).status == "not_engaged");
  CHECK(summary(samples, samples, true).status == "ok");
  samples[1].compressed_reads = 3;
  const Record record = summary(samples, samples);
  CHECK(record.status == "ok");
  CHECK(record.compressed_reads == 3);
}

TEST_CASE("a compression that was read and changed nothing is warned of") {
  auto samples = with_scores({1, 0});
  for (SampleRecord& sample : samples) {
    sample.compressed_reads = 100;
    sample.kl = {0, 0, 0};
  }
  const Record suspicious = summary(samples, samples);
  REQUIRE(suspicious.warnings.size() == 1);
  CHECK_THAT(suspicious.warnings[0], ContainsSubstring("compressing nothing"));
  samples[1].kl[2] = 1e-6F;
  CHECK(summary(samples, samples).warnings.empty());
}

TEST_CASE("samples that cannot be paired or scored are an error") {
  const auto check = [](const std::vector<SampleRecord>& own, const std::vector<SampleRecord>& full,
                        const std::string& message) {
    CHECK_THROWS_MATCHES(summary(own, full), DataError, MessageMatches(ContainsSubstring(message)));
  };
  const auto full = with_scores({1, 0});
  Record record;
  CHECK_THROWS_AS(summarize(record, {}, {}, false), DataError);
  check(with_scores({1}), full, "1 samples, but 2");
  auto other = full;
  other[1].prompt_hash = "changed";
  check(other, full, "sample d030-s1 is paired with sample d030-s1 of another prompt");
  other = full;
  std::swap(other[0], other[1]);
  check(other, full, "of another prompt");
  other = full;
  other[1].scores.clear();
  check(other, full, "sample d030-s1 has no score 'exact_match'");
}

TEST_CASE("a broken-down metric has the mean of each stratum and the mean of these means") {
  std::vector<SampleRecord> samples = with_scores({1, 0, 1, 1, 0});
  const char* kDepths[] = {"10", "10", "10", "10", "90"};
  for (size_t i = 0; i < samples.size(); ++i) samples[i].tags["depth"] = kDepths[i];
  Record record;
  record.primary_metric = "exact_match";
  record.metric_info["exact_match"] = {};
  record.breakdown = {"depth"};
  summarize(record, samples, samples, true);
  CHECK(record.metrics.at("exact_match").mean == 3.0 / 5);
  CHECK(record.metrics.at("exact_match/depth=10").mean == 3.0 / 4);
  CHECK(record.metrics.at("exact_match/depth=10").n == 4);
  CHECK(record.metrics.at("exact_match/depth=90").mean == 0);
  const Summary macro = record.metrics.at("exact_match/depth");
  CHECK(macro.mean == (3.0 / 4 + 0) / 2);
  CHECK(macro.n == 5);
  // Half the standard error of the first stratum; one sample has none.
  CHECK(macro.standard_error == Approx(std::sqrt(0.75 * 0.25 / 3) / 2).epsilon(1e-12));
  record.breakdown = {"category"};
  CHECK_THROWS_MATCHES(summarize(record, samples, samples, true), DataError,
                       MessageMatches(ContainsSubstring("has no tag 'category'")));
}

}  // namespace kvsweep
