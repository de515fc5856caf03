#pragma once

#include <CLI/CLI.hpp>
#include <functional>

namespace kvsweep {

// `kvsweep bench [encode|decode|itl|factorial|concurrency|one-pass] SWEEP`: what each scheme of a sweep costs alone.
void add_bench(CLI::App& app, std::function<int()>& action);

}  // namespace kvsweep
