#include "harness/report/analysis/rules.h"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>

#include "harness/core/error.h"
#include "harness/core/hash.h"

namespace kvsweep {
namespace {

std::string short_hash(const std::string& hash) {
  return hash.empty() ? "none" : hash.substr(0, 12);
}

std::string samples_hash(const Results& results, const std::string& id) {
  const PointSamples* samples = results.samples(id);
  if (samples == nullptr) return "";
  std::string text;
  for (const uint32_t item : samples->item) {
    text += results.items()[item].sample_id + '\0';
    text += results.items()[item].prompt_hash + '\n';
  }
  return fmt::format("{} items {}", samples->size(), sha256_hex(text).substr(0, 12));
}

}  // namespace

Allowed allowed_fields(const std::vector<std::string>& names) {
  const std::vector<std::string> known(std::begin(kRuleFields), std::end(kRuleFields));
  for (const std::string& name : names)
    if (std::find(known.begin(), known.end(), name) == known.end())
      throw ConfigError(fmt::format("--allow {}: is not a field; allowed: {}", name, join(known)));
  return {names.begin(), names.end()};
}

std::vector<std::string> rules_of(const Results& results, const Record& record) {
  const Point& p = record.point;
  return {p.model,
          short_hash(record.env.weights_sha256),
          p.task,
          fmt::to_string(p.task_version),
          params_text(p.task_params),
          short_hash(record.env.data_sha256),
          p.view,
          fmt::to_string(p.seed),
          record.primary_metric,
          record.env.device,
          record.env.dtype,
          record.env.torch,
          record.env.deterministic ? "true" : "false",
          samples_hash(results, record.id)};
}

std::vector<RuleDifference> rule_differences(const std::vector<std::string>& a, const std::vector<std::string>& b,
                                             const Allowed& allowed) {
  std::vector<RuleDifference> differences;
  for (size_t i = 0; i < std::size(kRuleFields); ++i)
    if (a[i] != b[i]) differences.push_back({kRuleFields[i], a[i], b[i], allowed.contains(kRuleFields[i])});
  return differences;
}

std::string describe(const std::vector<RuleDifference>& differences, bool allowed) {
  std::vector<std::string> texts;
  for (const RuleDifference& one : differences)
    if (one.allowed == allowed) texts.push_back(fmt::format("{}: {} against {}", one.field, one.a, one.b));
  return join(texts, "; ");
}

}  // namespace kvsweep
