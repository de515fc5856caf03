#pragma once

#include <CLI/CLI.hpp>
#include <functional>

namespace kvsweep {

// `kvsweep report DIR [--table NAME] [--format NAME] [--only GLOB] [--allow FIELD]`
void add_report(CLI::App& app, std::function<int()>& action);

}  // namespace kvsweep
