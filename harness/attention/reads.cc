#include "harness/attention/reads.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <numeric>
#include <utility>

namespace kvsweep {
namespace {

// Token ranges [begin, end) that a lossy run of keys or of values covers, disjoint and in order.
std::vector<std::pair<int64_t, int64_t>> lossy_ranges(const KvView& view) {
  std::vector<std::pair<int64_t, int64_t>> ranges;
  for (const auto* runs : {&view.keys, &view.values}) {
    int64_t first = 0;
    for (const KvRun& run : *runs) {
      if (!run.codec->exact() && run.tokens > 0) ranges.emplace_back(first, first + run.tokens);
      first += run.tokens;
    }
  }
  std::sort(ranges.begin(), ranges.end());
  std::vector<std::pair<int64_t, int64_t>> merged;
  for (const auto& range : ranges) {
    if (!merged.empty() && range.first <= merged.back().second)
      merged.back().second = std::max(merged.back().second, range.second);
    else
      merged.push_back(range);
  }
  return merged;
}

}  // namespace

int64_t compressed_reads(const KvView& view, int64_t position) {
  const auto ranges = lossy_ranges(view);
  int64_t reads = 0;
  if (!view.positions.defined() && !view.keep.defined()) {
    for (const auto& [begin, end] : ranges)
      reads += std::clamp(position + 1 - view.position - begin, int64_t{0}, end - begin);
    return reads;
  }
  const at::Tensor at =
      view.positions.defined() ? view.positions.to(at::kCPU) : at::arange(view.tokens(), at::kLong) + view.position;
  at::Tensor seen = at.le(position);
  if (view.keep.defined()) seen = seen.logical_and(view.keep.any(0).to(at::kCPU));
  for (const auto& [begin, end] : ranges) reads += seen.narrow(0, begin, end - begin).sum().item<int64_t>();
  return reads;
}

std::vector<int64_t> one_pass_reads(const KvView& after, const CompressedFrom& forms, int64_t position,
                                    int64_t queries) {
  const auto lossy = [](const auto& runs) {
    return std::any_of(runs.begin(), runs.end(),
                       [](const KvRun& run) { return run.tokens > 0 && !run.codec->exact(); });
  };
  const int64_t* keys = lossy(after.keys) ? forms.keys.const_data_ptr<int64_t>() : nullptr;
  const int64_t* values = lossy(after.values) ? forms.values.const_data_ptr<int64_t>() : nullptr;
  std::vector<int64_t> reads(static_cast<size_t>(queries), 0);
  for (int64_t t = 0; t < position + queries; ++t) {
    int64_t from = kNeverCompressed;
    if (keys != nullptr) from = std::min(from, keys[t]);
    if (values != nullptr) from = std::min(from, values[t]);
    const int64_t first = std::max({from, t, position});  // the first query that counts it
    if (first < position + queries) ++reads[static_cast<size_t>(first - position)];
  }
  std::partial_sum(reads.begin(), reads.end(), reads.begin());
  return reads;
}

}  // namespace kvsweep
