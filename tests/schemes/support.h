#pragma once

#include <ATen/ATen.h>

#include <string>
#include <vector>

#include "harness/core/error.h"
#include "harness/core/kv_cache.h"
#include "harness/core/random.h"
#include "harness/core/scheme.h"

namespace kvsweep::testing {

// Standard normal, the same on every platform.
inline at::Tensor normals(std::vector<int64_t> sizes, uint64_t seed) {
  Rng rng(seed);
  at::Tensor x = at::empty(sizes, at::kFloat);
  auto* out = x.mutable_data_ptr<float>();
  for (int64_t i = 0; i < x.numel(); ++i) out[i] = static_cast<float>(rng.normal());
  return x;
}

// ||x - y||^2 / ||x||^2 in double.
inline double nmse(const at::Tensor& x, const at::Tensor& y) {
  const at::Tensor a = x.to(at::kDouble), b = y.to(at::kDouble);
  return (a - b).square().sum().item<double>() / a.square().sum().item<double>();
}

// A list of runs as [H, S, D] float32; [0] where there is none.
inline at::Tensor decode_runs(const c10::SmallVector<KvRun, 3>& runs) {
  std::vector<at::Tensor> pieces;
  for (const KvRun& run : runs) {
    pieces.push_back(run.codec->decode(run.parts));
    TORCH_CHECK(pieces.back().size(1) == run.tokens, "a run of ", run.tokens, " tokens decodes to ",
                pieces.back().size(1));
  }
  return pieces.empty() ? at::empty({0}) : at::cat(pieces, 1);
}

// [S] bool: tokens in lossy runs.
inline at::Tensor lossy_tokens(const c10::SmallVector<KvRun, 3>& runs) {
  std::vector<at::Tensor> pieces = {at::empty({0}, at::kBool)};
  for (const KvRun& run : runs) pieces.push_back(at::full({run.tokens}, !run.codec->exact(), at::kBool));
  return at::cat(pieces);
}

inline const SchemeEntry& scheme_entry(const std::string& name) {
  for (const SchemeEntry& entry : scheme_table())
    if (entry.name == name) return entry;
  TORCH_CHECK(false, "no scheme ", name);
}

using Settings = std::map<std::string, std::string>;

inline std::unique_ptr<Scheme> make_scheme(const std::string& name, const Settings& settings) {
  std::map<std::string, ParamValue> values;
  for (const auto& [key, value] : settings) values[key] = {value, 0};
  Params params(name, "", values);
  return scheme_entry(name).make(params);
}

inline std::string describe(const std::string& name, const Settings& settings) {
  std::string text = name;
  for (const auto& [key, value] : settings) text += " " + key + "=" + value;
  return text;
}

}  // namespace kvsweep::testing
