#pragma once

#include <CLI/CLI.hpp>
#include <functional>

namespace kvsweep {

// `kvsweep export DIR`
void add_export(CLI::App& app, std::function<int()>& action);

}  // namespace kvsweep
