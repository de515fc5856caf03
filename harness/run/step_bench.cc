#include "harness/run/step_bench.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>

#include "harness/core/stopwatch.h"
#include "harness/run/interrupt.h"
#include "harness/run/progress.h"

namespace kvsweep {
namespace {

struct StepTime {
  double step_ms = 0, attend_ms = 0;
  bool fused = true;
};

// One token for each cache, all of which hold `position` tokens.
StepTime step(const BenchContext& context, const std::vector<std::unique_ptr<KvCache>>& caches, int64_t position) {
  check_interrupt();
  std::vector<Row> rows(caches.size());
  for (size_t i = 0; i < caches.size(); ++i) {
    rows[i].cache = caches[i].get();
    rows[i].tokens = {context.token(position)};
    rows[i].position = position;
    rows[i].slabs = {1};
  }
  const Stopwatch watch(context.llama().options().device);
  context.llama().logits(context.llama().step(rows));
  StepTime time{watch.ms(), 0, true};
  for (const Row& row : rows) {
    time.attend_ms += row.attend_ms;
    time.fused = time.fused && row.fused;
  }
  return time;
}

// A turn: medians of its steps, which decode tokens `tokens`, ... of caches that hold so many.
StepTime turn(const BenchContext& context, const std::vector<std::unique_ptr<KvCache>>& caches, int64_t tokens) {
  std::vector<double> steps, attends;
  bool fused = true;
  for (int64_t i = 0; i < kStepTokens; ++i) {
    const StepTime time = step(context, caches, tokens + i);
    fused = fused && time.fused;
    if (i == 0) continue;  // warms up
    steps.push_back(time.step_ms);
    attends.push_back(time.attend_ms);
  }
  return {timing_of(steps).median, timing_of(attends).median, fused};
}

// Tokens that the query of a turn's median step reads.
double tokens_read(int64_t tokens) {
  return static_cast<double>(tokens) + 1 + (kSteps + 1) / 2.0;
}

double meeting_point(const Fit& line, const Fit& other) {
  const double slopes = other.coefficients[1] - line.coefficients[1];
  const double at = (line.coefficients[0] - other.coefficients[0]) / slopes;
  return slopes > 0 && at > 0 ? at : std::numeric_limits<double>::quiet_NaN();
}

}  // namespace

std::vector<ItlCost> bench_itl(const BenchContext& context, const std::vector<const Scheme*>& schemes,
                               const std::vector<int64_t>& lengths, int repeats) {
  struct Seen {
    std::vector<double> tokens, itl, attend;             // every turn's
    std::vector<std::vector<double>> itl_at, attend_at;  // by length
  };
  std::vector<Seen> seen(schemes.size());
  for (Seen& one : seen) {
    one.itl_at.resize(lengths.size());
    one.attend_at.resize(lengths.size());
  }
  std::vector<ItlCost> costs(schemes.size());
  const auto work = static_cast<int64_t>(schemes.size() * lengths.size()) * (repeats + 1);
  Progress progress(static_cast<double>(work), work, "measurements");
  progress.label("itl");
  const int64_t longest = *std::max_element(lengths.begin(), lengths.end());
  for (int repeat = -1; repeat < repeats; ++repeat)
    for (size_t i = 0; i < schemes.size(); ++i)
      for (size_t l = 0; l < lengths.size(); ++l, progress.advance(1, 1)) {
        std::vector<std::unique_ptr<KvCache>> caches;
        caches.push_back(context.fill(*schemes[i], lengths[l], lengths[l] + kStepTokens));
        const StepTime time = turn(context, caches, lengths[l]);
        costs[i].fused = costs[i].fused && time.fused;
        if (repeat < 0) {
          if (lengths[l] == longest) costs[i].bytes = context.cost(*schemes[i], longest);
          continue;
        }
        seen[i].tokens.push_back(tokens_read(lengths[l]));
        seen[i].itl.push_back(time.step_ms);
        seen[i].attend.push_back(time.attend_ms);
        seen[i].itl_at[l].push_back(time.step_ms);
        seen[i].attend_at[l].push_back(time.attend_ms);
      }
  std::optional<size_t> reference;
  for (size_t i = 0; i < schemes.size(); ++i) {
    costs[i].itl = fit_line(seen[i].tokens, seen[i].itl);
    costs[i].attend = fit_line(seen[i].tokens, seen[i].attend);
    for (size_t l = 0; l < lengths.size(); ++l)
      costs[i].lengths.push_back({lengths[l], timing_of(seen[i].itl_at[l]), timing_of(seen[i].attend_at[l])});
    if (!reference && schemes[i]->traits().lossless) reference = i;
  }
  for (ItlCost& cost : costs)
    cost.break_even = reference ? meeting_point(cost.itl, costs[*reference].itl) : std::nan("");
  return costs;
}

std::vector<ConcurrencyCost> bench_concurrency(const BenchContext& context, const std::vector<const Scheme*>& schemes,
                                               int64_t tokens, int64_t budget, int64_t max_rows, int repeats) {
  std::vector<ConcurrencyCost> costs(schemes.size());
  std::vector<std::vector<double>> times(schemes.size());
  const auto work = static_cast<int64_t>(schemes.size()) * (repeats + 1);
  Progress progress(static_cast<double>(work), work, "measurements");
  progress.label("concurrency");
  for (int repeat = -1; repeat < repeats; ++repeat)
    for (size_t i = 0; i < schemes.size(); ++i, progress.advance(1, 1)) {
      ConcurrencyCost& cost = costs[i];
      if (repeat >= 0 && cost.rows == 0) continue;
      std::vector<std::unique_ptr<KvCache>> caches;
      caches.push_back(context.fill(*schemes[i], tokens, tokens + kStepTokens));
      if (repeat < 0) {
        cost.bytes = context.cost(*schemes[i], tokens);
        ByteLedger ledger;
        caches.front()->account(ledger);
        cost.bytes_per_sequence = ledger.reserved_bytes();
        cost.sequences = std::max<int64_t>(0, budget - cost.bytes.shared) / cost.bytes_per_sequence;
        cost.rows = std::min(cost.sequences, max_rows);
        if (cost.rows == 0) continue;
      }
      while (std::ssize(caches) < cost.rows) caches.push_back(caches.front()->clone());
      const StepTime time = turn(context, caches, tokens);
      cost.fused = cost.fused && time.fused;
      if (repeat >= 0) times[i].push_back(time.step_ms);
    }
  for (size_t i = 0; i < schemes.size(); ++i) {
    if (costs[i].rows == 0) continue;
    costs[i].step_ms = timing_of(times[i]);
    costs[i].tokens_per_second = 1e3 * static_cast<double>(costs[i].rows) / costs[i].step_ms.median;
  }
  return costs;
}

}  // namespace kvsweep
