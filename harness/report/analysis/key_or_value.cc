#include "harness/report/analysis/key_or_value.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <set>
#include <unordered_map>
#include <utility>

#include "harness/core/error.h"
#include "harness/report/statistics/least_squares.h"

namespace kvsweep {
namespace {

constexpr double kGiB = 1024.0 * 1024.0 * 1024.0;
constexpr double kSame = 1e-6;  // of the larger slope: what rounding leaves of equal ones
constexpr size_t kFewest = 4;   // points of a fit of three coefficients with an error

struct Pair {
  const Row* low_keys = nullptr;
  const Row* low_values = nullptr;
};
using Widths = std::pair<double, double>;

// Of one family in one group: rows by bits, K first.
using ByBits = std::map<Widths, const Row*>;

std::map<std::string, ByBits> by_family(const Group& group, const Families& families) {
  std::map<std::string, ByBits> out;
  for (const Row& row : group.rows)
    if (!row.is_reference && row.record->status != "failed")
      out[families.family(*row.record)][{row.record->nominal_k_bits, row.record->nominal_v_bits}] = &row;
  return out;
}

std::map<Widths, Pair> pairs_of(const ByBits& rows) {
  std::map<Widths, Pair> pairs;
  for (const auto& [bits, row] : rows) {
    if (bits.first >= bits.second) continue;
    const auto mirrored = rows.find({bits.second, bits.first});
    if (mirrored != rows.end()) pairs[bits] = {row, mirrored->second};
  }
  return pairs;
}

std::string gap_of(const Pair& pair) {
  std::vector<std::string> gaps;
  for (const Row* row : {pair.low_keys, pair.low_values})
    if (!row->loss)
      gaps.push_back(bits_text(row->record->nominal_k_bits, row->record->nominal_v_bits) + ": " + row->gap);
  return join(gaps, "; ");
}

PairedScores score_contrast(const Analysis& analysis, const Pair& pair) {
  const Results& results = analysis.results();
  return pair_scores(results, *results.samples(pair.low_values->record->id), results,
                     *results.samples(pair.low_keys->record->id), *pair.low_keys->record,
                     pair.low_keys->record->primary_metric);
}

PairedScores kl_contrast(const Analysis& analysis, const Pair& pair, PairedScores scores) {
  const auto kl_of = [&](const Row* row) {
    const PointSamples& samples = *analysis.results().samples(row->record->id);
    std::unordered_map<uint32_t, double> kl;
    for (size_t i = 0; i < samples.size(); ++i) kl[samples.item[i]] = static_cast<double>(samples.kl[i]);
    return kl;
  };
  const auto low_keys = kl_of(pair.low_keys), low_values = kl_of(pair.low_values);
  scores.metric = kKlMetric;
  scores.unit_range = false;
  scores.exponential = false;
  scores.higher_is_better = false;
  for (size_t i = 0; i < scores.item.size(); ++i) {
    scores.own[i] = low_keys.at(scores.item[i]);
    scores.reference[i] = low_values.at(scores.item[i]);
    scores.loss[i] = scores.own[i] - scores.reference[i];
  }
  return scores;
}

void compare_contrast(const Analysis& analysis, const std::vector<Pair>& pairs, KeyValueContrast& contrast) {
  std::vector<PairedScores> scores, kl;
  for (const Pair& pair : pairs) {
    contrast.low_keys_bits += pair.low_keys->record->effective_bits / static_cast<double>(pairs.size());
    contrast.low_values_bits += pair.low_values->record->effective_bits / static_cast<double>(pairs.size());
    contrast.records.push_back(pair.low_keys->record->id);
    contrast.records.push_back(pair.low_values->record->id);
    if (!contrast.gap.empty()) continue;
    scores.push_back(score_contrast(analysis, pair));
    kl.push_back(kl_contrast(analysis, pair, scores.back()));
  }
  if (!contrast.gap.empty()) return;
  contrast.score = compare(pairs.size() == 1 ? scores.front() : stack(scores), analysis.options());
  contrast.kl = compare(pairs.size() == 1 ? kl.front() : stack(kl), analysis.options());
}

void adjust_all(std::vector<KeyValueContrast>& contrasts) {
  for (const auto measure : {&KeyValueContrast::score, &KeyValueContrast::kl}) {
    std::vector<Comparison*> family;
    for (KeyValueContrast& contrast : contrasts)
      if (contrast.*measure) family.push_back(&*(contrast.*measure));
    adjust(family);
  }
}

std::vector<KeyValueContrast> group_contrasts(const Analysis& analysis, const Families& families) {
  std::vector<KeyValueContrast> out;
  for (const Group& group : analysis.groups()) {
    for (const auto& [family, rows] : by_family(group, families)) {
      for (const auto& [widths, pair] : pairs_of(rows)) {
        KeyValueContrast& contrast = out.emplace_back();
        contrast.family = family;
        std::tie(contrast.low, contrast.high) = widths;
        contrast.group = &group;
        contrast.gap = gap_of(pair);
        compare_contrast(analysis, {pair}, contrast);
      }
    }
  }
  adjust_all(out);
  return out;
}

std::vector<KeyValueContrast> pool_contrasts(const Analysis& analysis, const Families& families) {
  std::vector<KeyValueContrast> out;
  for (const Pool& pool : analysis.pools()) {
    if (pool.groups.size() < 2) continue;  // the group's own
    std::map<std::pair<std::string, Widths>, std::map<const Group*, Pair>> found;
    for (const Group* group : pool.groups)
      for (const auto& [family, rows] : by_family(*group, families))
        for (const auto& [widths, pair] : pairs_of(rows)) found[{family, widths}][group] = pair;
    for (const auto& [key, pairs] : found) {
      KeyValueContrast& contrast = out.emplace_back();
      contrast.family = key.first;
      std::tie(contrast.low, contrast.high) = key.second;
      contrast.pool = &pool;
      std::vector<std::string> gaps;
      std::vector<Pair> present;
      for (const Group* group : pool.groups) {
        const auto at = pairs.find(group);
        const std::string gap = at == pairs.end() ? "not both measured" : gap_of(at->second);
        if (!gap.empty()) gaps.push_back(group->title + ": " + gap);
        if (at != pairs.end()) present.push_back(at->second);
      }
      contrast.gap = join(gaps, "; ");
      compare_contrast(analysis, present, contrast);
    }
  }
  adjust_all(out);
  return out;
}

struct Costs {
  std::vector<std::vector<double>> bits;  // 1, K, V
  std::vector<double> y;
};

std::string missing_for_fit(const Costs& costs) {
  std::set<double> k, v;
  for (const auto& row : costs.bits) k.insert(row[1]), v.insert(row[2]);
  std::vector<std::string> missing;
  if (costs.y.size() < kFewest) missing.push_back(fmt::format("{} points, {} are needed", costs.y.size(), kFewest));
  if (k.size() < 2) missing.push_back("K bits do not vary");
  if (v.size() < 2) missing.push_back("V bits do not vary");
  return join(missing, "; ");
}

std::optional<KeyValueSlopes> fit(const Costs& costs, double mean_k, double mean_v, double confidence,
                                  std::string& gap) {
  gap = missing_for_fit(costs);
  if (!gap.empty()) return std::nullopt;
  Fit line;
  try {
    line = least_squares(costs.bits, costs.y);
  } catch (const DataError&) {
    gap = "K and V bits never vary apart";
    return std::nullopt;
  }
  KeyValueSlopes out;
  out.points = static_cast<int>(costs.y.size());
  out.keys = line.coefficients[1];
  out.values = line.coefficients[2];
  out.at_mean = line.coefficients[0] + out.keys * mean_k + out.values * mean_v;
  out.keys_interval = line.interval(1, confidence);
  out.values_interval = line.interval(2, confidence);
  out.difference_interval = line.difference_interval(1, 2, confidence);
  const double larger = std::max(std::abs(out.keys), std::abs(out.values));
  out.difference_p = std::abs(out.keys - out.values) <= kSame * larger ? 1 : line.difference_p(1, 2);
  return out;
}

KeyValueCosts costs_of(const Group& group, const std::string& family, const ByBits& rows, double confidence) {
  KeyValueCosts out;
  out.family = family;
  out.group = &group;
  Costs bytes, times;
  for (const auto& [bits, row] : rows) {
    const Record& record = *row->record;
    if (record.status != "ok") continue;
    out.records.push_back(record.id);
    out.mean_k += bits.first;
    out.mean_v += bits.second;
    bytes.bits.push_back({1, bits.first, bits.second});
    bytes.y.push_back(record.bytes_per_token);
    if (!record.decode_ms_per_token) continue;
    times.bits.push_back({1, bits.first, bits.second});
    times.y.push_back(*record.decode_ms_per_token);
  }
  const auto points = static_cast<double>(std::max<size_t>(out.records.size(), 1));
  out.mean_k /= points;
  out.mean_v /= points;
  out.bytes_per_token = fit(bytes, out.mean_k, out.mean_v, confidence, out.bytes_gap);
  out.decode_ms_per_token = fit(times, out.mean_k, out.mean_v, confidence, out.time_gap);
  if (out.bytes_per_token) {
    const KeyValueSlopes& b = *out.bytes_per_token;
    out.sequences = kGiB / (b.at_mean * static_cast<double>(group.first->point.tokens));
    out.sequences_per_key_bit = out.sequences * b.keys / (b.at_mean - b.keys);
    out.sequences_per_value_bit = out.sequences * b.values / (b.at_mean - b.values);
  }
  return out;
}

}  // namespace

std::string sensitive(const Comparison& contrast) {
  if (contrast.not_numbers > 0 || contrast.method.empty()) return "no answer";
  if (!contrast.significant()) return "not shown";
  return contrast.loss > 0 ? "keys" : "values";
}

KeyOrValue key_or_value(const Analysis& analysis, const Families& families) {
  KeyOrValue out;
  out.groups = group_contrasts(analysis, families);
  out.pools = pool_contrasts(analysis, families);
  for (const Group& group : analysis.groups())
    for (const auto& [family, rows] : by_family(group, families))
      if (rows.size() > 1) out.costs.push_back(costs_of(group, family, rows, analysis.options().confidence));
  return out;
}

}  // namespace kvsweep
