#pragma once

#include <ATen/core/Tensor.h>

namespace kvsweep {

// Whether all dimensions behind the first lie densely: a head's rows one behind the other, heads wherever they are, as
// a TokenBuffer gives them.
inline bool rows_are_dense(const at::Tensor& x) {
  for (int64_t i = x.dim() - 1, dense = 1; i > 0; --i) {
    if (x.size(i) > 1 && x.stride(i) != dense) return false;
    dense *= x.size(i);
  }
  return true;
}

}  // namespace kvsweep
