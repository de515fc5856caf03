// oracle: rotary embedding against plain loops in double.
#include "harness/core/rope.h"

#include <ATen/ATen.h>

#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <cmath>

namespace kvsweep {
namespace {

const std::vector<float> kFrequencies = {1.0f, 0.3f, 0.05f, 0.001f};

// x [heads, T, D] at `positions` in double.
at::Tensor rotated_in_double(const at::Tensor& x, const std::vector<int64_t>& positions, double scaling) {
  const at::Tensor out = x.to(at::kDouble).clone(at::MemoryFormat::Contiguous);
  const int64_t half = x.size(2) / 2;
  auto values = out.accessor<double, 3>();
  for (int64_t head = 0; head < x.size(0); ++head)
    for (int64_t token = 0; token < x.size(1); ++token)
      for (int64_t i = 0; i < half; ++i) {
        const double angle = static_cast<double>(positions[static_cast<size_t>(token)]) *
                             static_cast<double>(kFrequencies[static_cast<size_t>(i)]);
        const double a = values[head][token][i], b = values[head][token][i + half];
        values[head][token][i] = scaling * (a * std::cos(angle) - b * std::sin(angle));
        values[head][token][i + half] = scaling * (b * std::cos(angle) + a * std::sin(angle));
      }
  return out;
}

double largest_difference(const at::Tensor& a, const at::Tensor& b) {
  REQUIRE(a.sizes() == b.sizes());
  return (a.to(at::kDouble) - b.to(at::kDouble)).abs().max().item<double>();
}

}  // namespace

TEST_CASE("keys are rotated as by plain loops, in a row and at given positions") {
  const Rope rope(kFrequencies, 1.25f, at::kCPU, 300);
  at::manual_seed(1);
  const at::Tensor x = at::randn({3, 5, 8});
  CHECK(largest_difference(rope.apply(x, 200), rotated_in_double(x, {200, 201, 202, 203, 204}, 1.25)) < 2e-5);
  const std::vector<int64_t> positions = {7, 0, 299, 7, 100};
  CHECK(largest_difference(rope.apply(x, at::tensor(positions)), rotated_in_double(x, positions, 1.25)) < 2e-5);
}

TEST_CASE("rotating in place touches the view and nothing else") {
  const Rope rope(kFrequencies, 1.0f, at::kCPU, 300);
  const auto dtype = GENERATE(at::kFloat, at::kBFloat16);
  const at::Tensor all = at::randn({5, 40}).to(dtype), before = all.clone();
  const at::Tensor view = all.narrow(1, 8, 16).unflatten(1, {2, 8}).transpose(0, 1);  // [2 heads, 5 tokens, 8]
  const at::Tensor expected = rope.apply(view, 9);
  CHECK(at::equal(all, before));
  CHECK(expected.scalar_type() == dtype);
  rope.rotate(view, 9);
  CHECK(at::equal(view, expected));
  CHECK(at::equal(all.narrow(1, 0, 8), before.narrow(1, 0, 8)));
  CHECK(at::equal(all.narrow(1, 24, 16), before.narrow(1, 24, 16)));
}

TEST_CASE("one position more than the table has is refused") {
  const Rope rope(kFrequencies, 1.0f, at::kCPU, 10);
  CHECK(rope.max_positions() == 10);
  CHECK(rope.head_dim() == 8);
  CHECK_NOTHROW(rope.apply(at::ones({1, 3, 8}), 7));
  CHECK_THROWS(rope.apply(at::ones({1, 3, 8}), 8));
  CHECK_THROWS(rope.apply(at::ones({1, 3, 8}), -1));
  CHECK_THROWS(rope.apply(at::ones({1, 1, 8}), at::tensor({int64_t{10}})));
  CHECK_THROWS(rope.apply(at::ones({1, 1, 6}), 0));
}

}  // namespace kvsweep
