#include "schemes/parts/predictor.h"

#include <ATen/ATen.h>

#include <algorithm>

namespace kvsweep {

at::Tensor AffineMap::apply(const at::Tensor& x) const {
  return at::addmm(bias.to(at::kFloat), x.to(at::kFloat), weight.to(at::kFloat).t());
}

RidgeFit::RidgeFit(int64_t in, int64_t out, at::Device device)
    : gram_(at::zeros({in + 1, in + 1}, at::dtype(at::kDouble).device(device))),
      cross_(at::zeros({in + 1, out}, gram_.options())) {}

void RidgeFit::add(const at::Tensor& x, const at::Tensor& y) {
  TORCH_CHECK(
      x.dim() == 2 && x.size(1) + 1 == gram_.size(0) && y.sizes() == at::IntArrayRef({x.size(0), cross_.size(1)}),
      "ridge: rows of sizes ", x.sizes(), " and ", y.sizes());
  for (int64_t first = 0; first < x.size(0); first += kRows) {
    const int64_t count = std::min(kRows, x.size(0) - first);
    const at::Tensor rows = at::constant_pad_nd(x.narrow(0, first, count).to(at::kDouble), {0, 1}, 1);
    gram_.addmm_(rows.t(), rows);
    cross_.addmm_(rows.t(), y.narrow(0, first, count).to(at::kDouble));
  }
}

AffineMap RidgeFit::solve(double damping) const {
  const int64_t in = gram_.size(0) - 1;
  TORCH_CHECK(gram_[in][in].item<double>() > 0, "ridge: no rows");
  // On the CPU: small beside the sums, and a GPU's factorisation is a library of its own.
  at::Tensor damped = gram_.to(at::kCPU, at::kDouble, /*non_blocking=*/false, /*copy=*/true);
  damped.diagonal().add_(damped.diagonal().mean(), damping);
  const at::Tensor solution =
      at::cholesky_solve(cross_.to(at::kCPU), at::linalg_cholesky(damped)).to(gram_.device(), at::kFloat);
  return {solution.narrow(0, 0, in).t().contiguous(), solution[in].clone()};
}

void RelativeError::add(const at::Tensor& y, const at::Tensor& prediction) {
  const at::Tensor wanted = y.to(at::kDouble);
  error_ += (wanted - prediction.to(at::kDouble)).square().sum().item<double>();
  energy_ += wanted.square().sum().item<double>();
}

}  // namespace kvsweep
