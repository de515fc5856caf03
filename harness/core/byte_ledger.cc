#include "harness/core/byte_ledger.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <numeric>
#include <vector>

namespace kvsweep {
namespace {

// Two indices of x may reach the same element: a stride that does not step over everything that smaller strides reach.
bool overlaps_itself(const at::Tensor& x) {
  std::vector<std::pair<int64_t, int64_t>> steps;  // stride, elements
  for (int64_t i = 0; i < x.dim(); ++i)
    if (x.size(i) > 1) steps.emplace_back(x.stride(i), x.size(i));
  std::sort(steps.begin(), steps.end());
  int64_t reach = 0;  // farthest element of the dimensions so far
  for (const auto& [stride, size] : steps) {
    if (stride <= reach) return true;
    reach += stride * (size - 1);
  }
  return false;
}

}  // namespace

void ByteLedger::add(ByteRole role, const at::Tensor& used) {
  if (!used.defined()) return;
  TORCH_CHECK(!overlaps_itself(used), "byte ledger: a view of sizes ", used.sizes(), " and strides ", used.strides(),
              " shows elements twice: its size is not memory");
  storages_[used.storage().data()] = static_cast<int64_t>(used.storage().nbytes());
  if (used.numel() == 0) return;
  const int64_t bytes = used.numel() * used.element_size();
  int64_t& billed = views_[used.data_ptr()];
  if (bytes <= billed) return;
  live_[static_cast<size_t>(role)] += bytes - billed;
  billed = bytes;
}

void ByteLedger::add_rebuilt(const at::Tensor& tensor) {
  if (tensor.defined()) storages_[tensor.storage().data()] = static_cast<int64_t>(tensor.storage().nbytes());
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
