#include "harness/report/analysis/comparison.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <mutex>
#include <numeric>
#include <unordered_map>
#include <utility>

#include "harness/core/error.h"
#include "harness/report/statistics/bootstrap.h"
#include "harness/report/statistics/multiplicity.h"
#include "harness/report/statistics/paired.h"
#include "harness/report/statistics/power.h"
#include "harness/report/statistics/proportion.h"

namespace kvsweep {
namespace {

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
constexpr int64_t kFewDraws = 60;  // documents of a stratum

const std::vector<double>& scores_of(const PointSamples& samples, const std::string& metric, const Record& record) {
  const std::vector<double>* scores = samples.find(metric);
  if (scores == nullptr)
    throw DataError(fmt::format("point {} ({}): its samples have no score '{}'; they have {}", record.id,
                                record.point.label(), metric, join(samples.metrics)));
  return *scores;
}

// Labels in order of appearance; none when all items have the same one or, for clusters, one each.
std::vector<int32_t> labels(const Results& results, const std::vector<uint32_t>& items, const std::string& tag) {
  std::map<std::string_view, int32_t> known;
  std::vector<int32_t> out;
  for (const uint32_t item : items) {
    const std::string* value = results.items()[item].tag(tag);
    if (value == nullptr) return {};
    out.push_back(known.try_emplace(*value, static_cast<int32_t>(known.size())).first->second);
  }
  return out;
}

// Where a document's items lie in several strata, clusters count and strata do not.
void set_design(PairedScores& scores, const Results& results, const Record& record) {
  Design& design = scores.design;
  design.cluster = labels(results, scores.item, "document");
  if (!design.cluster.empty()) {
    const auto clusters = *std::max_element(design.cluster.begin(), design.cluster.end()) + 1;
    if (std::cmp_equal(clusters, scores.item.size())) design.cluster.clear();
  }
  if (!record.breakdown.empty()) design.stratum = labels(results, scores.item, record.breakdown.front());
  if (design.cluster.empty() || design.stratum.empty()) return;
  std::map<int32_t, int32_t> stratum_of;
  for (size_t i = 0; i < scores.item.size(); ++i)
    if (stratum_of.try_emplace(design.cluster[i], design.stratum[i]).first->second != design.stratum[i])
      return design.stratum.clear();
}

// As the design weights items.
double mean(const Design& design, const std::vector<double>& values) {
  if (design.weighting == Weighting::kItems || design.stratum.empty())
    return std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
  std::map<int32_t, std::pair<double, double>> strata;  // sum, items
  for (size_t i = 0; i < values.size(); ++i) {
    auto& [sum, items] = strata[design.stratum[i]];
    sum += values[i];
    ++items;
  }
  double total = 0;
  for (const auto& [unused, stratum] : strata) total += stratum.first / stratum.second;
  return total / static_cast<double>(strata.size());
}

bool zero_or_one(double value) {
  return value == 0 || value == 1;
}

Comparison counted(const PairedScores& scores) {
  Comparison out;
  out.metric = scores.metric;
  out.exponential = scores.exponential;
  out.higher_is_better = scores.higher_is_better;
  out.binary = scores.binary();
  out.n = out.clusters = std::ssize(scores.item);
  out.unpaired = scores.unpaired;
  out.reference_mean = mean(scores.design, scores.reference);
  out.own_mean = mean(scores.design, scores.own);
  for (size_t i = 0; i < scores.loss.size(); ++i) {
    out.not_numbers += !std::isfinite(scores.loss[i]);
    out.lost += scores.loss[i] > 0;
    out.gained += scores.loss[i] < 0;
  }
  out.loss = out.not_numbers > 0 ? kNaN : mean(scores.design, scores.loss);
  if (out.not_numbers > 0) {
    out.standard_error = out.p = out.p_adjusted = out.detectable = kNaN;
    out.interval = {kNaN, kNaN};
  }
  return out;
}

bool independent_binary(const PairedScores& scores) {
  return scores.design.cluster.empty() && scores.design.weighting == Weighting::kItems && scores.binary();
}

// Summed over binomials, and of thousands of rows few differ in both numbers.
double detectable_of_counts(int64_t items, double flips) {
  static std::mutex mutex;
  static std::map<std::pair<int64_t, double>, double> known;
  const std::lock_guard lock(mutex);
  const auto [at, fresh] = known.try_emplace({items, flips}, kNaN);
  if (fresh) at->second = detectable_by_mcnemar(items, flips);
  return at->second;
}

void judge_binary(Comparison& out, const PairedScores& scores, double confidence) {
  const double good = scores.higher_is_better ? 1 : 0;
  PairedCounts counts{0, out.lost, out.gained, 0};
  for (size_t i = 0; i < scores.own.size(); ++i) {
    if (scores.own[i] != scores.reference[i]) continue;
    ++(scores.own[i] == good ? counts.both : counts.neither);
  }
  out.standard_error = counts.wald_error();
  out.interval = newcombe_paired(counts, confidence);
  out.method = "Newcombe";
  out.p = mcnemar(out.lost, out.gained).two_sided;
  out.detectable = detectable_of_counts(out.n, counts.flips());
}

// Bootstraps are narrow where draws are few (bootstrap.h); Student's t keeps its word there.
void judge_few(Comparison& out, const PairedScores& scores, const MeanDifference& difference,
               const CompareOptions& options) {
  out.interval = t_interval(difference, options.confidence);
  out.method = std::isfinite(out.interval.low) ? "t" : "";
  out.p = std::isfinite(difference.p_two_sided) ? difference.p_two_sided
                                                : sign_flip_test(scores.design, scores.loss, options.seed).two_sided;
}

void judge_graded(Comparison& out, const PairedScores& scores, const Bootstrapped& drawn,
                  const CompareOptions& options) {
  const MeanDifference difference = mean_difference(scores.design, scores.loss);
  out.standard_error = difference.standard_error;
  out.clusters = difference.clusters;
  out.detectable = detectable_by_error(difference.standard_error, difference.degrees);
  if (difference.clusters < kFewDraws * difference.strata) return judge_few(out, scores, difference, options);
  const bool bca = std::isfinite(drawn.bca.low) && std::isfinite(drawn.bca.high);
  const bool any = bca || std::isfinite(drawn.percentile.low);
  out.interval = bca ? drawn.bca : drawn.percentile;
  out.method = !any ? "" : bca ? "BCa" : "percentile";
  out.p = std::min(1.0, 2 * std::min(drawn.p_loss, drawn.p_gain));
}

// One over the largest weight of a document.
double independent_items(const Design& design, int64_t items) {
  const Layout layout = lay_out(design, items);
  double heaviest = 0;
  for (int64_t s = 0; s < layout.strata(); ++s)
    for (int64_t c = layout.stratum[static_cast<size_t>(s)]; c < layout.stratum[static_cast<size_t>(s) + 1]; ++c)
      heaviest = std::max(heaviest, layout.item_weight(s) * static_cast<double>(layout.cluster_size(c)));
  return 1 / heaviest;
}

void judge_unchanged(Comparison& out, const PairedScores& scores, double confidence) {
  if (out.lost + out.gained > 0 || !scores.unit_range) return;
  const double items = independent_items(scores.design, out.n);
  const double bound = std::min(1.0, -std::log((1 - confidence) / 2) / items);
  out.interval = {-bound, bound};
  out.method = "nothing changed";
  out.p = 1;
  out.detectable = detectable_by_mcnemar(std::max<int64_t>(1, std::llround(items)), 0);
}

void finish(Comparison& out) {
  out.p_adjusted = out.p;
  if (!out.exponential || out.not_numbers > 0) return;
  const double sign = out.higher_is_better ? -1 : 1;  // own less reference
  out.ratio_value = std::exp(sign * out.loss);
  const double a = std::exp(sign * out.interval.low), b = std::exp(sign * out.interval.high);
  out.ratio = Interval{std::min(a, b), std::max(a, b)};
}

}  // namespace

bool PairedScores::binary() const {
  return std::all_of(own.begin(), own.end(), zero_or_one) &&
         std::all_of(reference.begin(), reference.end(), zero_or_one);
}

PairedScores pair_scores(const Results& reference, const PointSamples& reference_samples, const Results& own,
                         const PointSamples& own_samples, const Record& record, const std::string& metric) {
  const auto info = record.metric_info.find(metric);
  PairedScores out;
  out.metric = metric;
  if (info != record.metric_info.end()) {
    out.exponential = info->second.exponential;
    out.higher_is_better = info->second.higher_is_better;
  }
  const std::vector<double>&a = scores_of(reference_samples, metric, record),
        &b = scores_of(own_samples, metric, record);
  const auto add = [&](size_t i, size_t j) {
    out.item.push_back(reference_samples.item[i]);
    out.reference.push_back(a[i]);
    out.own.push_back(b[j]);
    const double loss = out.higher_is_better ? a[i] - b[j] : b[j] - a[i];
    out.loss.push_back(a[i] == b[j] ? 0 : loss);  // infinity less itself
  };
  if (&reference == &own && reference_samples.item == own_samples.item) {
    for (size_t i = 0; i < a.size(); ++i) add(i, i);
  } else {
    std::unordered_map<std::string, size_t> at;
    for (size_t j = 0; j < b.size(); ++j) {
      const Item& item = own.items()[own_samples.item[j]];
      at.emplace(item.sample_id + '\0' + item.prompt_hash, j);
    }
    for (size_t i = 0; i < a.size(); ++i) {
      const Item& item = reference.items()[reference_samples.item[i]];
      if (const auto found = at.find(item.sample_id + '\0' + item.prompt_hash); found != at.end())
        add(i, found->second);
    }
    const auto paired = std::ssize(out.item);
    out.unpaired = (std::ssize(a) - paired) + (std::ssize(b) - paired);
  }
  if (out.item.empty())
    throw DataError(
        fmt::format("point {} ({}): has no item in common with its reference", record.id, record.point.label()));
  const auto in_unit = [](double score) { return score >= 0 && score <= 1; };
  out.unit_range = !out.exponential && std::all_of(out.own.begin(), out.own.end(), in_unit) &&
                   std::all_of(out.reference.begin(), out.reference.end(), in_unit);
  set_design(out, reference, record);
  return out;
}

PairedScores stack(const std::vector<PairedScores>& parts) {
  PairedScores all = parts.front();
  const auto same_metric = [&](const PairedScores& part) { return part.metric == all.metric; };
  if (!std::all_of(parts.begin(), parts.end(), same_metric)) all.metric = "score";
  const auto has_documents = [](const PairedScores& part) { return !part.design.cluster.empty(); };
  const bool clustered = std::any_of(parts.begin(), parts.end(), has_documents);
  all.item.clear(), all.reference.clear(), all.own.clear(), all.loss.clear();
  all.design = {};
  all.design.weighting = Weighting::kStrata;
  all.unpaired = 0;
  int32_t documents = 0;
  for (size_t g = 0; g < parts.size(); ++g) {
    const PairedScores& part = parts[g];
    all.unpaired += part.unpaired;
    all.unit_range = all.unit_range && part.unit_range;
    all.item.insert(all.item.end(), part.item.begin(), part.item.end());
    all.reference.insert(all.reference.end(), part.reference.begin(), part.reference.end());
    all.own.insert(all.own.end(), part.own.begin(), part.own.end());
    all.loss.insert(all.loss.end(), part.loss.begin(), part.loss.end());
    all.design.stratum.insert(all.design.stratum.end(), part.item.size(), static_cast<int32_t>(g));
    if (!clustered) continue;
    int32_t highest = -1;
    for (size_t i = 0; i < part.item.size(); ++i) {
      const int32_t document = has_documents(part) ? part.design.cluster[i] : static_cast<int32_t>(i);
      all.design.cluster.push_back(documents + document);
      highest = std::max(highest, document);
    }
    documents += highest + 1;
  }
  return all;
}

std::vector<Comparison> compare_all(const std::vector<PairedScores>& columns, const CompareOptions& options) {
  std::vector<Comparison> out;
  std::vector<size_t> graded;
  for (const PairedScores& scores : columns) {
    Comparison& one = out.emplace_back(counted(scores));
    if (one.not_numbers > 0) continue;
    if (independent_binary(scores))
      judge_binary(one, scores, options.confidence);
    else
      graded.push_back(out.size() - 1);
  }
  if (!graded.empty()) {
    const Design& design = columns[graded.front()].design;
    const size_t n = columns[graded.front()].item.size(), m = graded.size();
    std::vector<double> d(n * m);
    for (size_t j = 0; j < m; ++j)
      for (size_t i = 0; i < n; ++i) d[i * m + j] = columns[graded[j]].loss[i];
    const std::vector<Bootstrapped> drawn = bootstrap_columns(design, d, static_cast<int64_t>(m),
                                                              {.resamples = options.resamples,
                                                               .confidence = options.confidence,
                                                               .seed = options.seed,
                                                               .threads = options.threads});
    for (size_t j = 0; j < m; ++j) {
      judge_graded(out[graded[j]], columns[graded[j]], drawn[j], options);
      judge_unchanged(out[graded[j]], columns[graded[j]], options.confidence);
    }
  }
  for (Comparison& one : out) finish(one);
  return out;
}

Comparison compare(const PairedScores& scores, const CompareOptions& options) {
  return compare_all({scores}, options).front();
}

void adjust(const std::vector<Comparison*>& family) {
  std::vector<double> p;
  for (const Comparison* one : family) p.push_back(one->p);
  const std::vector<double> adjusted = holm(p);
  for (size_t i = 0; i < family.size(); ++i) family[i]->p_adjusted = adjusted[i];
}

}  // namespace kvsweep
