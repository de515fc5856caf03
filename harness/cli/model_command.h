#pragma once

#include <CLI/CLI.hpp>
#include <functional>

namespace kvsweep {

// `kvsweep model info|tokenize|logits|generate|bench MODEL`: look inside a model.
void add_model(CLI::App& app, std::function<int()>& action);

}  // namespace kvsweep
