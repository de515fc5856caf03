#pragma once

#include <CLI/CLI.hpp>
#include <functional>

namespace kvsweep {

// `kvsweep data list|verify|plan|get`: data sets that tasks read.
void add_data(CLI::App& app, std::function<int()>& action);

}  // namespace kvsweep
