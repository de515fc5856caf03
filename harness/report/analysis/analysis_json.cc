#include "harness/report/analysis/analysis_json.h"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <nlohmann/json.hpp>

#include "harness/report/analysis/tag_means.h"

namespace kvsweep {
namespace {

using Json = nlohmann::ordered_json;

Json number(double value) {
  return std::isfinite(value) ? Json(value) : Json(nullptr);
}

Json number(const std::optional<double>& value) {
  return value ? number(*value) : Json(nullptr);
}

Json object(const Fields& fields) {
  Json out = Json::object();
  for (const auto& [key, value] : fields) out[key] = value;
  return out;
}

Json object(const Comparison& c) {
  return {{"metric", c.metric},
          {"n", c.n},
          {"clusters", c.clusters},
          {"unpaired", c.unpaired},
          {"not_numbers", c.not_numbers},
          {"binary", c.binary},
          {"reference_mean", number(c.reference_mean)},
          {"own_mean", number(c.own_mean)},
          {"loss", number(c.loss)},
          {"standard_error", number(c.standard_error)},
          {"low", number(c.interval.low)},
          {"high", number(c.interval.high)},
          {"method", c.method},
          {"lost", c.lost},
          {"gained", c.gained},
          {"p", number(c.p)},
          {"p_adjusted", number(c.p_adjusted)},
          {"detectable", number(c.detectable)},
          {"ratio", number(c.ratio_value)},
          {"ratio_low", c.ratio ? number(c.ratio->low) : Json(nullptr)},
          {"ratio_high", c.ratio ? number(c.ratio->high) : Json(nullptr)}};
}

Json object(const std::optional<Comparison>& c) {
  return c ? object(*c) : Json(nullptr);
}

Json object(const FailureModes& failures) {
  Json modes = Json::array();
  for (const auto& [mode, items] : failures.counts) modes.push_back({mode, items});
  return {{"items", failures.items}, {"modes", std::move(modes)}};
}

Json object(const std::optional<Noise>& noise) {
  if (!noise) return nullptr;
  return {{"kl", number(noise->kl)},
          {"kl_max", number(noise->kl_max)},
          {"positions", noise->positions},
          {"top1_flips", noise->top1_flips}};
}

Json object(const std::optional<AttentionDrift>& drift) {
  if (!drift) return nullptr;
  return {{"kl", number(drift->kl)},
          {"overlap", number(drift->overlap)},
          {"oldest", number(drift->oldest)},
          {"full_oldest", number(drift->full_oldest)}};
}

Json score(const Row& row) {
  const auto at = row.record->metrics.find(row.record->primary_metric);
  if (row.record->status == "failed" || at == row.record->metrics.end()) return nullptr;
  return {{"mean", number(at->second.mean)},
          {"standard_error", number(at->second.standard_error)},
          {"low", row.score ? number(row.score->low) : Json(nullptr)},
          {"high", row.score ? number(row.score->high) : Json(nullptr)}};
}

Json by_tag(const Analysis& analysis, const Record& record) {
  Json out = Json::object();
  const PointSamples* samples = analysis.results().samples(record.id);
  if (samples == nullptr) return out;
  for (const TagMeans& tag : tag_means(analysis.results(), *samples, record.primary_metric)) {
    Json& means = out[tag.tag] = Json::array();
    for (const TagMean& one : tag.means)
      means.push_back({{"value", one.value}, {"mean", number(one.mean)}, {"n", one.n}});
  }
  return out;
}

// Buckets of equal width over the longest sample's positions.
Json kl_by_position(const Analysis& analysis, const Record& record, int buckets) {
  const PointSamples* samples = analysis.results().samples(record.id);
  if (samples == nullptr || buckets == 0) return nullptr;
  const int64_t longest = *std::max_element(samples->positions.begin(), samples->positions.end());
  const int64_t width = std::max<int64_t>(1, (longest + buckets - 1) / buckets);
  std::vector<double> sums(static_cast<size_t>((longest + width - 1) / width), 0.0);
  std::vector<int64_t> counts(sums.size(), 0);
  for (const LinePlace& line : samples->line) {
    const std::vector<float> kl = analysis.results().read_sample(line).kl;
    for (size_t i = 0; i < kl.size(); ++i) {
      sums[i / static_cast<size_t>(width)] += kl[i];
      ++counts[i / static_cast<size_t>(width)];
    }
  }
  Json out = Json::array();
  for (size_t b = 0; b < sums.size(); ++b)
    out.push_back({{"position", static_cast<int64_t>(b) * width},
                   {"kl", number(sums[b] / static_cast<double>(counts[b]))},
                   {"n", counts[b]}});
  return out;
}

Json object(const Analysis& analysis, const Row& row, const AnalysisJsonOptions& options) {
  const Record& r = *row.record;
  const bool measured = r.status != "failed";
  const auto if_measured = [&](double value) { return measured ? number(value) : Json(nullptr); };
  Json out = {{"id", r.id},
              {"configuration", row.configuration},
              {"scheme", r.point.scheme},
              {"scheme_params", object(r.point.scheme_params)},
              {"k_bits", r.nominal_k_bits},
              {"v_bits", r.nominal_v_bits},
              {"is_reference", row.is_reference},
              {"status", r.status},
              {"error", r.error},
              {"gap", row.gap},
              {"n", r.n},
              {"effective_bits", if_measured(r.effective_bits)},
              {"bytes_per_token", if_measured(r.bytes_per_token)},
              {"live_bytes", measured ? Json(r.bytes.live) : Json(nullptr)},
              {"decode_ms_per_token", number(r.decode_ms_per_token)},
              {"path", r.path},
              {"score", score(row)},
              {"loss", object(row.loss)}};
  out["kl"] = measured && r.kl.n > 0 ? Json{{"mean", number(r.kl.mean)},
                                            {"standard_error", number(r.kl.standard_error)},
                                            {"median", number(r.kl_median)},
                                            {"p99", number(r.kl_p99)},
                                            {"max", number(r.kl_max)}}
                                     : Json(nullptr);
  out["top1_flips"] = measured && r.kl.n > 0 ? number(r.top1_flips.mean) : Json(nullptr);
  out["divergence_share"] = number(r.divergence_share);
  out["attention"] = object(r.attention);
  out["failures"] = object(row.failures);
  out["warnings"] = r.warnings;
  out["by_tag"] = by_tag(analysis, r);
  out["kl_by_position"] = kl_by_position(analysis, r, options.kl_buckets);
  return out;
}

Json object(const Analysis& analysis, const Group& group, const AnalysisJsonOptions& options) {
  const Record& first = *group.first;
  const auto info = first.metric_info.find(first.primary_metric);
  const MetricInfo metric = info == first.metric_info.end() ? MetricInfo{} : info->second;
  Json rules = Json::object();
  for (size_t i = 0; i < std::size(kRuleFields); ++i) rules[kRuleFields[i]] = group.rules[i];
  Json out = {{"title", group.title},
              {"model", first.point.model},
              {"task", first.point.task},
              {"task_version", first.point.task_version},
              {"task_params", object(first.point.task_params)},
              {"kind", first.task_kind},
              {"tokens", first.point.tokens},
              {"view", first.point.view},
              {"seed", first.point.seed},
              {"metric", first.primary_metric},
              {"shown_as", metric.shown_as},
              {"exponential", metric.exponential},
              {"higher_is_better", metric.higher_is_better},
              {"items", group.items},
              {"rules", std::move(rules)},
              {"noise", object(first.noise)},
              {"env",
               {{"version", first.env.version},
                {"commit", first.env.commit},
                {"dirty", first.env.dirty},
                {"host", first.env.host},
                {"cpu", first.env.cpu},
                {"threads", first.env.threads},
                {"started_at", first.env.started_at},
                {"command", first.env.command}}}};
  Json rows = Json::array();
  for (const Row& row : group.rows) rows.push_back(object(analysis, row, options));
  out["rows"] = std::move(rows);
  return out;
}

Json object(const Analysis& analysis, const Pool& pool) {
  Json groups = Json::array(), rows = Json::array();
  for (const Group* group : pool.groups) groups.push_back(group - analysis.groups().data());
  for (const PooledRow& row : pool.rows) {
    const Record& r = *row.record;
    rows.push_back({{"configuration", row.configuration},
                    {"scheme", r.point.scheme},
                    {"k_bits", r.nominal_k_bits},
                    {"v_bits", r.nominal_v_bits},
                    {"gap", row.gap},
                    {"effective_bits", number(row.effective_bits)},
                    {"bytes_per_token", number(row.bytes_per_token)},
                    {"decode_ms_per_token", number(row.decode_ms_per_token)},
                    {"loss", object(row.loss)},
                    {"failures", object(row.failures)}});
  }
  return {{"model", pool.model},
          {"view", pool.view},
          {"kind", pool.kind},
          {"groups", std::move(groups)},
          {"rows", std::move(rows)}};
}

}  // namespace

std::string analysis_json(const Analysis& analysis, const AnalysisJsonOptions& options) {
  Json groups = Json::array(), pools = Json::array(), allowed = Json::array();
  for (const Group& group : analysis.groups()) groups.push_back(object(analysis, group, options));
  for (const Pool& pool : analysis.pools()) pools.push_back(object(analysis, pool));
  for (const std::string& field : analysis.allowed()) allowed.push_back(field);
  const Json out = {{"kvsweep_analysis", 1},
                    {"path", analysis.results().path().string()},
                    {"confidence", analysis.options().confidence},
                    {"resamples", analysis.options().resamples},
                    {"allowed", std::move(allowed)},
                    {"groups", std::move(groups)},
                    {"pools", std::move(pools)}};
  return out.dump(-1, ' ', false, Json::error_handler_t::replace);
}

}  // namespace kvsweep
