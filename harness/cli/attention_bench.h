#pragma once

#include <CLI/CLI.hpp>
#include <functional>

namespace kvsweep {

// `kvsweep bench-attention`: one decode step's attention over packed and float32 tokens, beside what the CPU can do.
void add_attention_bench(CLI::App& app, std::function<int()>& action);

}  // namespace kvsweep
