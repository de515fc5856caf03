#pragma once

#include <CLI/CLI.hpp>
#include <functional>

namespace kvsweep {

// `kvsweep compare A B`
void add_compare(CLI::App& app, std::function<int()>& action);

}  // namespace kvsweep
