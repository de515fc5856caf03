#pragma once

#include <CLI/CLI.hpp>
#include <functional>

namespace kvsweep {

// `kvsweep calibrate MODEL SCHEME --out ARTIFACT` and `kvsweep artifact ARTIFACT`
void add_calibrate(CLI::App& app, std::function<int()>& action);

}  // namespace kvsweep
