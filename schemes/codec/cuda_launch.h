#pragma once

#include <ATen/core/Tensor.h>

#include "schemes/kernels/rows.h"

#ifdef KVSWEEP_CUDA
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#endif

namespace kvsweep {

// kHalf, kBFloat16 or kFloat.
inline FloatType float_type(at::ScalarType type) {
  TORCH_CHECK(type == at::kHalf || type == at::kBFloat16 || type == at::kFloat, "kernels: no values of type ", type);
  return type == at::kHalf ? FloatType::kHalf : type == at::kBFloat16 ? FloatType::kBFloat16 : FloatType::kFloat;
}

#ifdef KVSWEEP_CUDA
// x [H, T, D] as kernels read it; `held` keeps the memory when x had to be copied.
inline DeviceRows rows_of(const at::Tensor& x, at::Tensor& held) {
  const bool narrow = x.scalar_type() == at::kHalf || x.scalar_type() == at::kBFloat16;
  held = narrow ? x : x.to(at::kFloat);
  if (held.stride(2) != 1) held = held.contiguous();
  return {
      held.const_data_ptr(), float_type(held.scalar_type()), held.stride(0), held.stride(1), held.size(0), held.size(1),
      held.size(2)};
}

// A part [H, ...] as kernels read it; copied when there are gaps inside a head.
inline DevicePart part_of(const at::Tensor& part, at::Tensor& held) {
  int64_t dense = 1;
  bool gaps = false;
  for (int64_t i = part.dim() - 1; i > 0; dense *= part.size(i--))
    gaps = gaps || (part.size(i) > 1 && part.stride(i) != dense);
  held = gaps ? part.contiguous() : part;
  return {held.const_data_ptr(), held.stride(0)};
}

// Calls launch(stream) for the current stream of x's device. The device is not waited for.
template <class Launch>
void launch_on(const at::Tensor& x, const Launch& launch) {
  const c10::cuda::CUDAGuard guard(x.device());
  launch(c10::cuda::getCurrentCUDAStream().stream());
  C10_CUDA_KERNEL_LAUNCH_CHECK();
}
#endif

}  // namespace kvsweep
