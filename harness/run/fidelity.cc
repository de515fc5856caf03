#include "harness/run/fidelity.h"

#include <ATen/ATen.h>

namespace kvsweep {
namespace {

std::vector<float> to_floats(const at::Tensor& values) {
  const at::Tensor host = values.to(at::kCPU, at::kFloat).contiguous();
  return {host.const_data_ptr<float>(), host.const_data_ptr<float>() + host.numel()};
}

}  // namespace

Fidelity compare_distributions(const at::Tensor& reference_log_probs, const at::Tensor& log_probs) {
  Fidelity fidelity;
  const at::Tensor difference = reference_log_probs - log_probs;
  fidelity.kl = to_floats(reference_log_probs.exp().mul_(difference).sum(-1));
  const at::Tensor flips = (reference_log_probs.argmax(-1) != log_probs.argmax(-1)).to(at::kCPU);
  for (int64_t i = 0; i < flips.numel(); ++i) fidelity.flip.push_back(flips.const_data_ptr<bool>()[i]);
  return fidelity;
}

std::vector<float> negative_log_likelihood(const at::Tensor& log_probs, const at::Tensor& targets) {
  return to_floats(log_probs.gather(-1, targets.to(log_probs.device()).unsqueeze(-1)).squeeze(-1).neg());
}

}  // namespace kvsweep
