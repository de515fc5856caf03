#include "schemes/parts/finite.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include "schemes/codec/cuda_launch.h"
#include "schemes/kernels/finite.h"

namespace kvsweep {
namespace {

// A sum is NaN or infinite when an item is; one that merely overflows is looked at again item by item.
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
