#include "tests/support/torch/scheme_probe.h"

#include <ATen/ATen.h>

#include "harness/core/random.h"

namespace kvsweep::testing {

at::Tensor normals(const std::vector<int64_t>& sizes, uint64_t seed) {
  Rng rng(seed);
  at::Tensor x = at::empty(sizes, at::kFloat);
  auto* out = x.mutable_data_ptr<float>();
  for (int64_t i = 0; i < x.numel(); ++i) out[i] = static_cast<float>(rng.normal());
  return x;
}

double nmse(const at::Tensor& x, const at::Tensor& y) {
  const at::Tensor a = x.to(at::kDouble), b = y.to(at::kDouble);
  return (a - b).square().sum().item<double>() / a.square().sum().item<double>();
}

at::Tensor decode_runs(const c10::SmallVector<KvRun, 3>& runs) {
  std::vector<at::Tensor> pieces;
  for (const KvRun& run : runs) {
    pieces.push_back(run.codec->decode(run.parts));
    TORCH_CHECK(pieces.back().size(1) == run.tokens, "a run of ", run.tokens, " tokens decodes to ",
                pieces.back().size(1));
  }
  return pieces.empty() ? at::empty({0}) : at::cat(pieces, 1);
}

at::Tensor lossy_tokens(const c10::SmallVector<KvRun, 3>& runs) {
  std::vector<at::Tensor> pieces = {at::empty({0}, at::kBool)};
  for (const KvRun& run : runs) pieces.push_back(at::full({run.tokens}, !run.codec->exact(), at::kBool));
  return at::cat(pieces);
}

std::unique_ptr<Scheme> make_scheme(const std::string& name, const Settings& settings) {
  std::map<std::string, ParamValue> values;
  for (const auto& [key, value] : settings) values[key] = {value, 0};
  Params params(name, "", values);
  for (const SchemeEntry& entry : scheme_table())
    if (entry.name == name) return entry.make(params);
  TORCH_CHECK(false, "no scheme ", name);
}

std::string describe(const std::string& name, const Settings& settings) {
  std::string text = name;
  for (const auto& [key, value] : settings) text += " " + key + "=" + value;
  return text;
}

}  // namespace kvsweep::testing
