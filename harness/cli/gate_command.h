#pragma once

#include <CLI/CLI.hpp>
#include <functional>

namespace kvsweep {

// `kvsweep gate GATES.yaml RUN`, `kvsweep gate --update-baseline FILE RUN`
void add_gate(CLI::App& app, std::function<int()>& action);

}  // namespace kvsweep
