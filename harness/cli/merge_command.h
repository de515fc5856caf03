#pragma once

#include <CLI/CLI.hpp>
#include <functional>

namespace kvsweep {

// `kvsweep merge DIR...`
void add_merge(CLI::App& app, std::function<int()>& action);

}  // namespace kvsweep
