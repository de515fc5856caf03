#include "schemes/parts/finite.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include "harness/core/cpu_clones.h"
#include "schemes/codec/cuda_launch.h"
#include "schemes/kernels/finite.h"

namespace kvsweep {
namespace {

// x * 0 is NaN where x is NaN or infinite, and sums keep it.
KVSWEEP_CPU_CLONES bool rows_are_finite(const float* x, int64_t stride, int64_t rows, int64_t dim) {
  constexpr int64_t kLanes = 16;
  float poison[kLanes] = {};
  for (int64_t row = 0; row < rows; ++row, x += stride) {
    int64_t i = 0;
    for (; i + kLanes <= dim; i += kLanes)
      for (int64_t k = 0; k < kLanes; ++k) poison[k] += x[i + k] * 0.0F;
    for (; i < dim; ++i) poison[0] += x[i] * 0.0F;
  }
  for (int64_t k = 1; k < kLanes; ++k) poison[0] += poison[k];
  return poison[0] == 0;
}

bool is_finite(const at::Tensor& x) {
  if (x.scalar_type() != at::kFloat || x.stride(2) != 1) return x.isfinite().all().item<bool>();
  for (int64_t head = 0; head < x.size(0); ++head)
    if (!rows_are_finite(x.const_data_ptr<float>() + head * x.stride(0), x.stride(1), x.size(1), x.size(2)))
      return false;
  return true;
}

bool may_hold_others(const KvSlab& slab) {
#ifdef KVSWEEP_CUDA
  if (slab.k.is_cuda()) {
    if (slab.k.numel() == 0) return false;
    const at::Tensor found = at::zeros({1}, at::dtype(at::kInt).pinned_memory(true));
    at::Tensor k, v;
    launch_on(slab.k, [&](void* stream) {
      find_others_cuda(rows_of(slab.k, k), rows_of(slab.v, v), found.mutable_data_ptr<int32_t>(), stream);
    });
    c10::cuda::getCurrentCUDAStream(slab.k.device().index()).synchronize();
    return *found.const_data_ptr<int32_t>() != 0;
  }
#endif
  if (slab.k.is_cpu()) return !is_finite(slab.k) || !is_finite(slab.v);
  // A sum is NaN or infinite when an item is; one that merely overflows is looked at again item by item.
  const auto sum = [](const at::Tensor& x) { return x.sum(at::kFloat); };
  return !(sum(slab.k) + sum(slab.v)).isfinite().item<bool>();
}

}  // namespace

void require_finite(int64_t layer, const KvSlab& slab) {
  if (!may_hold_others(slab)) return;
  const at::Tensor bad_keys = slab.k.isfinite().logical_not(), bad_values = slab.v.isfinite().logical_not();
  const auto keys = bad_keys.sum().item<int64_t>(), values = bad_values.sum().item<int64_t>();
  if (keys + values == 0) return;
  const at::Tensor first = (keys > 0 ? bad_keys : bad_values).nonzero()[0].to(at::kCPU).contiguous();
  const int64_t* at = first.const_data_ptr<int64_t>();
  TORCH_CHECK(false,
              fmt::format("NaN or infinity in {} of {} keys and {} of {} values of layer {}; the first is a {} at "
                          "head {}, position {}, channel {}",
                          keys, slab.k.numel(), values, slab.v.numel(), layer, keys > 0 ? "key" : "value", at[0],
                          slab.position + at[1], at[2]));
}

}  // namespace kvsweep
