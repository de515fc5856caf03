#include "harness/run/fidelity.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>

#include "harness/core/cpu_clones.h"

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

// The first of the largest; 0 where the first is NaN.
KVSWEEP_CPU_CLONES int64_t best_of(const float* row, int64_t vocab) {
  constexpr int64_t kLanes = 64;
  float most[kLanes];
  std::fill_n(most, kLanes, row[0]);
  int64_t i = 0;
  for (; i + kLanes <= vocab; i += kLanes)
    for (int64_t k = 0; k < kLanes; ++k) most[k] = row[i + k] > most[k] ? row[i + k] : most[k];
  for (; i < vocab; ++i) most[0] = row[i] > most[0] ? row[i] : most[0];
  const float* found = std::find(row, row + vocab, *std::max_element(most, most + kLanes));
  return found == row + vocab ? 0 : found - row;
}

// Sum of p (log p - log q) in double: eight sums side by side, so that the compiler may use vectors.
KVSWEEP_CPU_CLONES double divergence(const float* p, const float* log_p, const float* log_q, int64_t vocab) {
  constexpr int64_t kSums = 8;
  double sums[kSums] = {};
  int64_t i = 0;
  for (; i + kSums <= vocab; i += kSums)
#pragma GCC unroll 1  // as a loop it vectorises
    for (int64_t j = 0; j < kSums; ++j) sums[j] += static_cast<double>(p[i + j] * (log_p[i + j] - log_q[i + j]));
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
  std::vector<int64_t> full_best(full_rows.size());
  at::parallel_for(0, std::ssize(full_rows), 1, [&](int64_t begin, int64_t end) {
    for (auto i = static_cast<size_t>(begin); i < static_cast<size_t>(end); ++i)
      full_best[i] = best_of(rows + full_rows[i] * vocab, vocab);
  });
  Fidelity fidelity{std::vector<float>(own.size()), std::vector<int32_t>(own.size()), {}};
  std::vector<char> flips(own.size());
  at::parallel_for(0, pairs, 1, [&](int64_t begin, int64_t end) {
    for (int64_t pair = begin; pair < end; ++pair) {
      const auto i = static_cast<size_t>(pair);
      const auto at = std::lower_bound(full_rows.begin(), full_rows.end(), reference[i]) - full_rows.begin();
      const float *mine = rows + own[i] * vocab, *full = rows + reference[i] * vocab;
      const float* probs_of_full = probs.const_data_ptr<float>() + at * vocab;
      fidelity.kl[i] = static_cast<float>(divergence(probs_of_full, full, mine, vocab));
      fidelity.best[i] = static_cast<int32_t>(best_of(mine, vocab));
      flips[i] = full_best[static_cast<size_t>(at)] != fidelity.best[i];
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
