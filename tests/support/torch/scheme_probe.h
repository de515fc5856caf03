#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "harness/core/kv_cache.h"
#include "harness/core/scheme.h"

namespace kvsweep::testing {

// float32, standard normal, the same on every platform.
at::Tensor normals(const std::vector<int64_t>& sizes, uint64_t seed);

// ||x - y||^2 / ||x||^2 in double.
double nmse(const at::Tensor& x, const at::Tensor& y);

// A list of runs as [H, S, D] float32; [0] where there is none.
at::Tensor decode_runs(const c10::SmallVector<KvRun, 3>& runs);

// [S] bool: tokens in lossy runs.
at::Tensor lossy_tokens(const c10::SmallVector<KvRun, 3>& runs);

using Settings = std::map<std::string, std::string>;  // as in a sweep file

// A scheme of the table. Throws ConfigError for what its factory refuses.
std::unique_ptr<Scheme> make_scheme(const std::string& name, const Settings& settings);

// "uniform k_bits=2 v_bits=4"
std::string describe(const std::string& name, const Settings& settings);

}  // namespace kvsweep::testing
