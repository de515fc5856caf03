#pragma once

#include <CLI/CLI.hpp>
#include <functional>
#include <string>

#include "harness/run/runner.h"

namespace kvsweep {

// `kvsweep gate GATES.yaml RUN`, `kvsweep gate --update-baseline FILE RUN`
void add_gate(CLI::App& app, std::function<int()>& action);

// `kvsweep run SWEEP --out DIR --gate GATES.yaml`: runs until every verdict is certain, or to the end and judges then.
// Returns the gate's status.
int run_gated(const std::string& sweep, RunOptions options, const std::string& gates, const std::string& baseline);

}  // namespace kvsweep
