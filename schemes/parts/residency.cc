#include "schemes/parts/residency.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "harness/core/scheme.h"

namespace kvsweep {

int64_t Residency::compressed_end(int64_t tokens) const {
  const int64_t blocks = std::max<int64_t>(0, tokens - sink - window) / block;
  return std::min(sink, tokens) + blocks * block;
}

int64_t Residency::next_end(int64_t end, int64_t before, int64_t after) const {
  if (!whole) return compressed_end(after);
  const int64_t from = std::max(end, std::min(sink, before));
  return before - from >= block ? before : std::max(end, std::min(sink, after));
}

at::Tensor Residency::compressed_from(int64_t context_tokens, int64_t tokens) const {
  at::Tensor from = at::full({tokens}, kNeverCompressed, at::kLong);
  auto* out = from.mutable_data_ptr<int64_t>();
  if (!whole) {
    for (int64_t t = sink; t < tokens; ++t) out[t] = sink + window + ((t - sink) / block + 1) * block - 1;
    return from;
  }
  int64_t end = 0, done = sink;
  for (int64_t before = 0, after = std::max<int64_t>(context_tokens, 1); done < tokens; before = after++) {
    end = next_end(end, before, after);
    for (; done < std::min(end, tokens); ++done) out[done] = after - 1;
  }
  return from;
}

void Residency::check() const {
  TORCH_CHECK(sink >= 0 && window >= 0 && block >= 1, "residency: sink ", sink, ", window ", window, ", block ", block);
  TORCH_CHECK(!whole || window == 0, "residency: everything is compressed at once, but a window of ", window,
              " is kept");
}

}  // namespace kvsweep
