#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <numeric>

#include "harness/core/error.h"
#include "harness/report/record.h"

namespace kvsweep {
namespace {

// Two passes: the naive sum of squares loses every digit when values differ little from their mean.
Summary summary_of(const std::vector<double>& values) {
  Summary out;
  out.n = static_cast<int64_t>(values.size());
  if (values.empty()) return out;
  const double n = static_cast<double>(values.size());
  out.mean = std::accumulate(values.begin(), values.end(), 0.0) / n;
  double squares = 0;
  for (const double value : values) squares += (value - out.mean) * (value - out.mean);
  if (values.size() > 1) out.standard_error = std::sqrt(squares / (n * (n - 1)));
  return out;
}

template <class Value>
Summary summary_over(const std::vector<SampleRecord>& samples, const Value& value) {
  std::vector<double> values;
  for (const SampleRecord& sample : samples)
    if (const std::optional<double> one = value(sample)) values.push_back(*one);
  return summary_of(values);
}

double score(const SampleRecord& sample, const std::string& metric) {
  const auto at = sample.scores.find(metric);
  if (at == sample.scores.end())
    throw DataError(fmt::format("point {}: sample {} has no score '{}'", sample.point_id, sample.sample_id, metric));
  return at->second;
}

void summarize_metrics(Record& record, const std::vector<SampleRecord>& samples) {
  record.metrics.clear();
  for (const auto& [metric, unused] : samples.front().scores)
    record.metrics[metric] =
        summary_over(samples, [&](const SampleRecord& s) { return std::optional(score(s, metric)); });
}

// The mean over the samples of each value of the tag, and the mean of these means: strata of equal weight.
void break_down(Record& record, const std::vector<SampleRecord>& samples, const std::string& tag) {
  std::map<std::string, std::vector<SampleRecord>> groups;
  for (const SampleRecord& sample : samples) {
    const auto at = sample.tags.find(tag);
    if (at == sample.tags.end())
      throw DataError(fmt::format("point {}: sample {} has no tag '{}'", sample.point_id, sample.sample_id, tag));
    groups[at->second].push_back(sample);
  }
  for (const auto& [metric, unused] : samples.front().scores) {
    Summary macro;
    double variance = 0;
    for (const auto& [value, group] : groups) {
      const Summary one = summary_over(group, [&](const SampleRecord& s) { return std::optional(score(s, metric)); });
      record.metrics[fmt::format("{}/{}={}", metric, tag, value)] = one;
      macro.mean += one.mean / static_cast<double>(groups.size());
      macro.n += one.n;
      variance += one.standard_error * one.standard_error;
    }
    macro.standard_error = std::sqrt(variance) / static_cast<double>(groups.size());
    record.metrics[fmt::format("{}/{}", metric, tag)] = macro;
  }
}

void summarize_divergence(Record& record, const std::vector<SampleRecord>& samples) {
  const auto positions = [](const SampleRecord& s) { return static_cast<double>(s.kl.size()); };
  record.kl = summary_over(samples, [&](const SampleRecord& s) -> std::optional<double> {
    if (s.kl.empty()) return std::nullopt;
    return std::accumulate(s.kl.begin(), s.kl.end(), 0.0) / positions(s);
  });
  record.top1_flips = summary_over(samples, [&](const SampleRecord& s) -> std::optional<double> {
    if (s.kl.empty()) return std::nullopt;
    return static_cast<double>(s.top1_flips) / positions(s);
  });
  std::vector<float> all;
  for (const SampleRecord& sample : samples) all.insert(all.end(), sample.kl.begin(), sample.kl.end());
  record.kl_median = record.kl_p99 = record.kl_max = 0;
  if (all.empty()) return;
  if (std::any_of(all.begin(), all.end(), [](float kl) { return std::isnan(kl); })) {
    record.kl_median = record.kl_p99 = record.kl_max = std::numeric_limits<double>::quiet_NaN();
    return;
  }
  std::sort(all.begin(), all.end());
  const auto ranked = [&](size_t per_cent) { return all[(all.size() * per_cent + 99) / 100 - 1]; };
  record.kl_median = ranked(50);
  record.kl_p99 = ranked(99);
  record.kl_max = all.back();
}

void summarize_generation(Record& record, const std::vector<SampleRecord>& samples) {
  record.generated_tokens = record.reused_tokens = 0;
  int64_t diverged = 0;
  for (const SampleRecord& sample : samples) {
    record.generated_tokens += std::ssize(sample.output_tokens);
    record.reused_tokens += sample.reused_tokens;
    diverged += sample.first_divergence >= 0;
  }
  record.divergence_share.reset();
  if (record.generated_tokens > 0 || diverged > 0)
    record.divergence_share = static_cast<double>(diverged) / static_cast<double>(samples.size());
}

void summarize_attention(Record& record, const std::vector<SampleRecord>& samples) {
  record.attention.reset();
  const auto mean = [&](double AttentionDrift::*field) {
    return summary_over(samples, [&](const SampleRecord& s) {
      return s.attention ? std::optional((*s.attention).*field) : std::nullopt;
    });
  };
  const Summary kl = mean(&AttentionDrift::kl);
  if (kl.n == 0) return;
  record.attention = AttentionDrift{kl.mean, mean(&AttentionDrift::overlap).mean, mean(&AttentionDrift::oldest).mean,
                                    mean(&AttentionDrift::full_oldest).mean};
}

void summarize_noise(Record& record, const std::vector<SampleRecord>& reference) {
  record.noise.reset();
  for (const SampleRecord& sample : reference) {
    if (!sample.noise) continue;
    if (!record.noise) record.noise = Noise{};
    Noise& all = *record.noise;
    all.kl += sample.noise->kl * static_cast<double>(sample.noise->positions);
    all.kl_max = std::max(all.kl_max, sample.noise->kl_max);
    all.positions += sample.noise->positions;
    all.top1_flips += sample.noise->top1_flips;
  }
  if (record.noise && record.noise->positions > 0) record.noise->kl /= static_cast<double>(record.noise->positions);
}

void check_pairs(const std::vector<SampleRecord>& samples, const std::vector<SampleRecord>& reference) {
  if (samples.size() != reference.size())
    throw DataError(fmt::format("point {}: {} samples, but {} of the full-precision row", samples.front().point_id,
                                samples.size(), reference.size()));
  for (size_t i = 0; i < samples.size(); ++i) {
    const SampleRecord &a = reference[i], &b = samples[i];
    if (a.sample_id != b.sample_id || a.prompt_hash != b.prompt_hash)
      throw DataError(fmt::format("point {}: sample {} is paired with sample {} of another prompt", b.point_id,
                                  b.sample_id, a.sample_id));
  }
}

bool zero_or_one(double value) {
  return value == 0 || value == 1;
}

Paired paired_difference(const std::string& metric, bool exponential, const std::vector<SampleRecord>& samples,
                         const std::vector<SampleRecord>& reference) {
  Paired paired;
  paired.metric = metric;
  std::vector<double> deltas;
  bool binary = true;
  for (size_t i = 0; i < samples.size(); ++i) {
    const double full = score(reference[i], metric), own = score(samples[i], metric);
    deltas.push_back(own - full);
    binary = binary && zero_or_one(full) && zero_or_one(own);
    if (own < full) ++paired.lost;
    if (own > full) ++paired.gained;
  }
  if (!binary) paired.lost = paired.gained = 0;
  const Summary delta = summary_of(deltas);
  paired.delta = delta.mean;
  paired.standard_error = delta.standard_error;
  if (exponential) {
    paired.ratio = std::exp(delta.mean);
    paired.ratio_standard_error = *paired.ratio * delta.standard_error;
  }
  return paired;
}

void summarize_bytes(Record& record, const std::vector<SampleRecord>& samples) {
  const auto longest = std::max_element(samples.begin(), samples.end(),
                                        [](const auto& a, const auto& b) { return a.bytes.tokens < b.bytes.tokens; });
  record.bytes = longest->bytes;
  const auto ratio = [](int64_t bytes, int64_t of) -> std::optional<double> {
    if (of == 0) return std::nullopt;
    return static_cast<double>(bytes) / static_cast<double>(of);
  };
  record.effective_bits =
      8 * summary_over(samples, [&](const SampleRecord& s) { return ratio(s.bytes.live, s.bytes.values); }).mean;
  record.bytes_per_token =
      summary_over(samples, [&](const SampleRecord& s) { return ratio(s.bytes.live, s.bytes.tokens); }).mean;
}

void summarize_time(Record& record, const std::vector<SampleRecord>& samples) {
  record.prefill_ms =
      summary_over(samples, [](const SampleRecord& s) { return std::optional(s.time.prefill_ms); }).mean;
  record.compress_ms =
      summary_over(samples, [](const SampleRecord& s) { return std::optional(s.time.compress_ms); }).mean;
  const Summary decode = summary_over(samples, [](const SampleRecord& s) { return s.time.decode_ms_per_token; });
  record.decode_ms_per_token = decode.n > 0 ? std::optional(decode.mean) : std::nullopt;
  record.path.clear();
  for (const SampleRecord& sample : samples)
    if (sample.time.decode_ms_per_token) record.path = sample.time.path;
}

}  // namespace

void summarize(Record& record, const std::vector<SampleRecord>& samples, const std::vector<SampleRecord>& reference,
               bool lossless) {
  if (samples.empty()) throw DataError(fmt::format("point {}: no samples", record.id));
  check_pairs(samples, reference);
  record.n = static_cast<int64_t>(samples.size());
  summarize_metrics(record, samples);
  for (const std::string& tag : record.breakdown) break_down(record, samples, tag);
  summarize_divergence(record, samples);
  summarize_generation(record, samples);
  summarize_noise(record, reference);
  summarize_attention(record, samples);
  record.paired = paired_difference(record.primary_metric, record.primary_info().exponential, samples, reference);
  summarize_bytes(record, samples);
  summarize_time(record, samples);
  record.compressed_reads = 0;
  for (const SampleRecord& sample : samples) record.compressed_reads += sample.compressed_reads;
  record.status = record.compressed_reads == 0 && !lossless ? "not_engaged" : "ok";
  if (record.compressed_reads > 0 && record.kl.n > 0 && record.kl_max == 0)
    record.warnings.push_back(
        "compressed entries were read, yet no distribution differs from full precision's: the "
        "scheme may be compressing nothing");
}

}  // namespace kvsweep
