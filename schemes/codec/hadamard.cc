#include "schemes/codec/hadamard.h"

#include <ATen/ATen.h>

namespace kvsweep {

at::Tensor hadamard_matrix(int64_t n) {
  TORCH_CHECK(n >= 1 && (n & (n - 1)) == 0, "Hadamard matrix: ", n, " is no power of two");
  at::Tensor h = at::ones({1, 1}, at::kFloat);
  while (h.size(0) < n) h = at::cat({at::cat({h, h}, 1), at::cat({h, -h}, 1)}, 0);
  return h;
}

}  // namespace kvsweep
