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

// A list of runs as [H, S, D] float32 in the basis that they are stored in; [0] where there is none.
at::Tensor decode_runs(const c10::SmallVector<KvRun, 3>& runs);

// The same back in the basis of the model: what a run stands for.
at::Tensor restored_runs(const c10::SmallVector<KvRun, 3>& runs);

// [S] bool: tokens in lossy runs.
at::Tensor lossy_tokens(const c10::SmallVector<KvRun, 3>& runs);

using Settings = std::map<std::string, std::string>;  // as in a sweep file

// A scheme of the table. Throws ConfigError for what its factory refuses.
std::unique_ptr<Scheme> make_scheme(const std::string& name, const Settings& settings);

// Keys and values of one sequence: one tensor a layer, [H, T, D], views on larger tensors as a model's are.
struct Trace {
  std::vector<at::Tensor> k, v;
};
Trace random_trace(int64_t layers, int64_t heads, int64_t tokens, int64_t head_dim, uint64_t seed);

// Settings of a calibrated scheme with an artifact that its own calibrator made from random traces of the context's
// shape; the file lives as long as the process. Throws ConfigError for what the calibrator refuses.
Settings with_random_artifact(const SchemeEntry& entry, Settings settings, const CacheContext& context);

// "uniform k_bits=2 v_bits=4"
std::string describe(const std::string& name, const Settings& settings);

// One configuration of a scheme of the table.
struct SchemeCase {
  const SchemeEntry* entry;
  Settings settings;

  std::string label() const { return describe(entry->name, settings); }
  std::unique_ptr<Scheme> scheme() const { return make_scheme(entry->name, settings); }
};

std::vector<ParamDeclaration> declarations_of(const SchemeEntry& entry);
// The ends of a declared range, or every choice; nothing for texts and files.
std::vector<std::string> values_of(const ParamDeclaration& declared);

// The settings as they are and, of a scheme that can be calibrated, with a random artifact: those that fit the context.
std::vector<SchemeCase> usable_cases(const SchemeEntry& entry, const Settings& settings, const CacheContext& context);

// Every scheme with its defaults; then each of its parameters, alone, at every end and choice that its declaration
// shows, where the scheme accepts it. Fails the test when a scheme cannot be built at all.
std::vector<SchemeCase> scheme_cases(const CacheContext& context);

}  // namespace kvsweep::testing
