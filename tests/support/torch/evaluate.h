#pragma once

#include <vector>

#include "harness/run/engine.h"

namespace kvsweep::testing {

// One sample: the result of full precision, then of each scheme. A row that failed fails the test.
std::vector<RowResult> evaluate(const Engine& engine, const Sample& sample, const View& view,
                                const std::vector<const Scheme*>& schemes, const EngineOptions& options = {});

// Many samples, by index.
std::vector<std::vector<RowResult>> evaluate_all(const Engine& engine, const std::vector<Sample>& samples,
                                                 const View& view, const std::vector<const Scheme*>& schemes,
                                                 const EngineOptions& options = {});

}  // namespace kvsweep::testing
