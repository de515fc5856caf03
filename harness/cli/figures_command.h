#pragma once

#include <CLI/CLI.hpp>
#include <functional>

namespace kvsweep {

// `kvsweep figures DIR`
void add_figures(CLI::App& app, std::function<int()>& action);

}  // namespace kvsweep
