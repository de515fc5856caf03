#include "harness/core/rope.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include "harness/core/cpu_clones.h"

namespace kvsweep {
namespace {

constexpr int64_t kGrain = 1 << 15;  // values that are worth a thread

// Rows of 2 * half float32 values in CPU memory; strides in values.
struct Rows {
  const float* from = nullptr;
  float* to = nullptr;  // may be `from`
  int64_t from_head = 0, from_token = 0, to_head = 0, to_token = 0;
  const float *cos = nullptr, *sin = nullptr;
  int64_t half = 0, tokens = 0;
  int64_t first = 0;                   // position of token 0
  const int64_t* positions = nullptr;  // of every token, instead
};

// Rows [begin, end) of all heads' tokens. Products are rounded before they are added, as in x * cos + rotate_half(x) *
// sin.
KVSWEEP_CPU_CLONES void rotate_rows(const Rows& rows, int64_t begin, int64_t end) {
  const int64_t half = rows.half;
  for (int64_t row = begin; row < end; ++row) {
    const int64_t head = row / rows.tokens, token = row % rows.tokens;
    const int64_t position = rows.positions != nullptr ? rows.positions[token] : rows.first + token;
    const float* from = rows.from + head * rows.from_head + token * rows.from_token;
    const float *cos = rows.cos + position * half, *sin = rows.sin + position * half;
    float* to = rows.to + head * rows.to_head + token * rows.to_token;
#pragma GCC ivdep
    for (int64_t i = 0; i < half; ++i) {
      const float a = from[i], b = from[half + i];
      to[i] = a * cos[i] - b * sin[i];
      to[half + i] = b * cos[i] + a * sin[i];
    }
  }
}

bool has_rows(const at::Tensor& x) {
  return x.is_cpu() && x.scalar_type() == at::kFloat && x.stride(2) == 1;
}

// With tensor operations, in place; cos and sin [T, D/2].
void rotate_with_ops(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin) {
  const int64_t half = cos.size(1);
  at::Tensor first = x.narrow(2, 0, half), second = x.narrow(2, half, half);
  const at::Tensor a = first.to(at::kFloat), b = second.to(at::kFloat);
  const at::Tensor rotated = (a * cos).sub_(b * sin);
  second.copy_((b * cos).add_(a * sin));
  first.copy_(rotated);
}

}  // namespace

Rope::Rope(std::vector<float> inv_freq, float attention_scaling, at::Device device, int64_t max_positions) {
  const at::Tensor frequencies = at::tensor(inv_freq, at::kFloat);
  const at::Tensor angles = at::arange(max_positions, at::kFloat).unsqueeze(1) * frequencies.unsqueeze(0);
  cos_ = (angles.cos() * attention_scaling).to(device);
  sin_ = (angles.sin() * attention_scaling).to(device);
}

// x -> to, both [heads, T, D]; to may be x. Positions from `first` on, or those given.
void Rope::turn(const at::Tensor& x, const at::Tensor& to, int64_t first, const at::Tensor& positions) const {
  const int64_t tokens = x.dim() == 3 ? x.size(1) : 0;
  TORCH_CHECK(x.dim() == 3 && x.size(2) == head_dim(), "Rope: x of sizes ", x.sizes(), " is not [heads, T, ",
              head_dim(), "]");
  if (!has_rows(x) || !has_rows(to)) {
    if (!to.is_same(x)) to.copy_(x);
    return positions.defined() ? rotate_with_ops(to, cos_.index_select(0, positions), sin_.index_select(0, positions))
                               : rotate_with_ops(to, cos_.narrow(0, first, tokens), sin_.narrow(0, first, tokens));
  }
  at::Tensor given;
  Rows rows;
  if (positions.defined()) {
    given = positions.contiguous();
    TORCH_CHECK(given.scalar_type() == at::kLong && given.numel() == tokens, "Rope: ", given.numel(), " positions for ",
                tokens, " tokens");
    rows.positions = given.const_data_ptr<int64_t>();
    for (int64_t t = 0; t < tokens; ++t) check_range(rows.positions[t], 1);
  }
  rows.from = x.const_data_ptr<float>();
  rows.from_head = x.stride(0);
  rows.from_token = x.stride(1);
  rows.to = to.mutable_data_ptr<float>();
  rows.to_head = to.stride(0);
  rows.to_token = to.stride(1);
  rows.cos = cos_.const_data_ptr<float>();
  rows.sin = sin_.const_data_ptr<float>();
  rows.half = cos_.size(1);
  rows.tokens = tokens;
  rows.first = first;
  at::parallel_for(0, x.size(0) * tokens, kGrain / head_dim() + 1,
                   [&](int64_t begin, int64_t end) { rotate_rows(rows, begin, end); });
}

void Rope::check_range(int64_t position, int64_t tokens) const {
  TORCH_CHECK(position >= 0 && position + tokens <= max_positions(), "Rope: positions ", position, " to ",
              position + tokens - 1, " are outside a table of ", max_positions());
}

void Rope::rotate(const at::Tensor& x, int64_t position) const {
  check_range(position, x.size(1));
  turn(x, x, position, {});
}

void Rope::rotate(const at::Tensor& x, const at::Tensor& positions) const {
  turn(x, x, 0, positions);
}

at::Tensor Rope::apply(const at::Tensor& x, int64_t position) const {
  check_range(position, x.size(1));
  const at::Tensor out = at::empty(x.sizes(), x.options());
  turn(x, out, position, {});
  return out;
}

at::Tensor Rope::apply(const at::Tensor& x, const at::Tensor& positions) const {
  const at::Tensor out = at::empty(x.sizes(), x.options());
  turn(x, out, 0, positions);
  return out;
}

}  // namespace kvsweep
