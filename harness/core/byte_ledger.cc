#include "harness/core/byte_ledger.h"

#include <ATen/ATen.h>

#include <numeric>

namespace kvsweep {

void ByteLedger::add(ByteRole role, const at::Tensor& used) {
  if (!used.defined() || used.numel() == 0) return;
  TORCH_CHECK(
      used.is_non_overlapping_and_dense() ||
          [&] {
            for (int64_t i = 0; i < used.dim(); ++i)
              if (used.size(i) > 1 && used.stride(i) == 0) return false;
            return true;
          }(),
      "byte ledger: an expanded view of sizes ", used.sizes(), " strides ", used.strides(), " is not memory");
  const int64_t bytes = used.numel() * used.element_size();
  storages_[used.storage().data()] = static_cast<int64_t>(used.storage().nbytes());
  int64_t& billed = views_[used.data_ptr()];
  if (bytes <= billed) return;
  live_[static_cast<size_t>(role)] += bytes - billed;
  billed = bytes;
}

int64_t ByteLedger::live_bytes() const {
  return std::accumulate(live_.begin(), live_.end(), int64_t{0});
}

int64_t ByteLedger::reserved_bytes() const {
  int64_t total = 0;
  for (const auto& [start, bytes] : storages_) total += bytes;
  return total;
}

}  // namespace kvsweep
