#include "tests/support/torch/evaluate.h"

#include <stdexcept>

namespace kvsweep::testing {

std::vector<std::vector<RowResult>> evaluate_all(const Engine& engine, const std::vector<Sample>& samples,
                                                 const View& view, const std::vector<const Scheme*>& schemes,
                                                 const EngineOptions& options) {
  EngineWork work{{}, view, schemes, {}};
  for (const Sample& sample : samples) work.samples.push_back(&sample);
  std::vector<std::vector<RowResult>> results(samples.size());
  engine.run(work, options, [&](SampleOutcome&& outcome) {
    for (RowOutcome& row : outcome.rows) {
      if (!row.error.empty()) throw std::runtime_error(samples[outcome.sample].id + ": " + row.error);
      results[outcome.sample].push_back(std::move(row.result));
    }
  });
  return results;
}

std::vector<RowResult> evaluate(const Engine& engine, const Sample& sample, const View& view,
                                const std::vector<const Scheme*>& schemes, const EngineOptions& options) {
  return evaluate_all(engine, {sample}, view, schemes, options)[0];
}

}  // namespace kvsweep::testing
