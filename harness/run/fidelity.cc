#include "harness/run/fidelity.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <array>

namespace kvsweep {
namespace {

template <class T>
std::vector<T> to_vector(const at::Tensor& values) {
  const at::Tensor host = values.to(at::kCPU).contiguous();
  return {host.const_data_ptr<T>(), host.const_data_ptr<T>() + host.numel()};
}

at::Tensor indices(const std::vector<int64_t>& values, at::Device device) {
  return at::tensor(values, at::kLong).to(device);
}

int64_t best_of(const float* row, int64_t vocab) {
  return std::max_element(row, row + vocab) - row;
}

// Sum of p (log p - log q) in double: eight sums side by side, so that the compiler may use vectors.
double divergence(const float* p, const float* log_p, const float* log_q, int64_t vocab) {
  std::array<double, 8> sums{};
  int64_t i = 0;
  for (; i + 8 <= vocab; i += 8)
    for (int64_t j = 0; j < 8; ++j)
      sums[static_cast<size_t>(j)] += static_cast<double>(p[i + j] * (log_p[i + j] - log_q[i + j]));
  for (; i < vocab; ++i) sums[0] += static_cast<double>(p[i] * (log_p[i] - log_q[i]));
  return ((sums[0] + sums[4]) + (sums[2] + sums[6])) + ((sums[1] + sums[5]) + (sums[3] + sums[7]));
}

Fidelity compare_on_cpu(const at::Tensor& log_probs, const std::vector<int64_t>& own,
                        const std::vector<int64_t>& reference) {
  const int64_t vocab = log_probs.size(1), pairs = static_cast<int64_t>(own.size());
  const float* rows = log_probs.const_data_ptr<float>();
  std::vector<int64_t> full_rows = reference;
  std::sort(full_rows.begin(), full_rows.end());
  full_rows.erase(std::unique(full_rows.begin(), full_rows.end()), full_rows.end());
  // Softmax works row by row; exp() of the whole would depend, in its last bit, on where its vectors end.
  const at::Tensor probs = log_probs.index_select(0, indices(full_rows, at::kCPU)).softmax(-1);
  const auto probs_of = [&](int64_t row) {
    const auto at = std::lower_bound(full_rows.begin(), full_rows.end(), row) - full_rows.begin();
    return probs.const_data_ptr<float>() + at * vocab;
  };
  Fidelity fidelity{std::vector<float>(own.size()), std::vector<int32_t>(own.size()), {}};
  std::vector<char> flips(own.size());
  at::parallel_for(0, pairs, 1, [&](int64_t begin, int64_t end) {
    for (int64_t pair = begin; pair < end; ++pair) {
      const auto i = static_cast<size_t>(pair);
      const float *mine = rows + own[i] * vocab, *full = rows + reference[i] * vocab;
      fidelity.kl[i] = static_cast<float>(divergence(probs_of(reference[i]), full, mine, vocab));
      fidelity.best[i] = static_cast<int32_t>(best_of(mine, vocab));
      flips[i] = best_of(full, vocab) != fidelity.best[i];
    }
  });
  fidelity.flip.assign(flips.begin(), flips.end());
  return fidelity;
}

}  // namespace

Fidelity compare_rows(const at::Tensor& log_probs, const std::vector<int64_t>& own,
                      const std::vector<int64_t>& reference) {
  if (log_probs.is_cpu()) return compare_on_cpu(log_probs.contiguous(), own, reference);
  const at::Tensor mine = log_probs.index_select(0, indices(own, log_probs.device()));
  const at::Tensor full = log_probs.index_select(0, indices(reference, log_probs.device()));
  Fidelity fidelity;
  fidelity.kl = to_vector<float>(full.exp().mul_(full - mine).sum(-1));
  for (const int64_t token : to_vector<int64_t>(mine.argmax(-1))) fidelity.best.push_back(static_cast<int32_t>(token));
  const std::vector<int64_t> best = to_vector<int64_t>(full.argmax(-1));
  for (size_t i = 0; i < best.size(); ++i) fidelity.flip.push_back(best[i] != fidelity.best[i]);
  return fidelity;
}

std::vector<float> log_probs_of(const at::Tensor& log_probs, const std::vector<int64_t>& rows,
                                const std::vector<int64_t>& tokens) {
  if (rows.empty()) return {};
  const at::Device device = log_probs.device();
  return to_vector<float>(log_probs.index({indices(rows, device), indices(tokens, device)}));
}

}  // namespace kvsweep
