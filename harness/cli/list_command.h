#pragma once

#include <CLI/CLI.hpp>
#include <functional>

namespace kvsweep {

// `kvsweep list schemes|tasks|models`
void add_list(CLI::App& app, std::function<int()>& action);

}  // namespace kvsweep
