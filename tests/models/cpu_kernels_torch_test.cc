// oracle: the CPU kernels against plain loops, products bit for bit, the rest in double.
#include "models/cpu_kernels.h"

#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <catch2/generators/catch_generators_range.hpp>
#include <cmath>
#include <vector>

#include "harness/core/random.h"

namespace kvsweep {
namespace {

std::vector<float> random_values(int64_t count, uint64_t seed) {
  Rng rng(seed);
  std::vector<float> values(static_cast<size_t>(count));
  for (float& value : values) value = static_cast<float>(rng.normal());
  return values;
}

std::vector<CpuVectors> vectors_here() {
  std::vector<CpuVectors> all = {CpuVectors::kAvx2};
  if (widest_vectors() != CpuVectors::kAvx2) all.push_back(widest_vectors());
  return all;
}

}  // namespace

// Every dot product is one chain of fused multiply-adds, whatever the rows beside it and however wide the vectors.
TEST_CASE("rows times weights are chains of fused multiply-adds, bit for bit") {
  if (!has_cpu_kernels()) SKIP("needs AVX2 and FMA");
  // Blocks of every size, whole and with lanes to spare, of both instruction sets.
  const int64_t rows = GENERATE(1, 4, 5, 8, 9, 12, 16, 17, 24, 31, 40, 48, 49, 70, 121);
  const int64_t outs = GENERATE(1, 6, 8, 50), in = GENERATE(3, 16, 77);
  const bool add = GENERATE(false, true);
  const auto x = random_values(rows * in, 1), weight = random_values(outs * in, 2),
             before = random_values(rows * outs, 3);
  std::vector<float> expected = before;
  for (int64_t m = 0; m < rows; ++m)
    for (int64_t n = 0; n < outs; ++n) {
      float sum = 0;
      for (int64_t i = 0; i < in; ++i) sum = std::fma(x[size_t(m * in + i)], weight[size_t(n * in + i)], sum);
      float& out = expected[size_t(m * outs + n)];
      out = add ? out + sum : sum;
    }
  for (const CpuVectors vectors : vectors_here()) {
    std::vector<float> out = before;
    multiply_rows(x.data(), rows, weight.data(), outs, in, out.data(), add, vectors);
    CHECK(out == expected);
  }
}

TEST_CASE("threads that share the outputs leave no trace in them") {
  if (!has_cpu_kernels()) SKIP("needs AVX2 and FMA");
  const int64_t rows = GENERATE(1, 11, 70), outs = 500, in = 203;
  const auto x = random_values(rows * in, 4), weight = random_values(outs * in, 5);
  for (const CpuVectors vectors : vectors_here()) {
    std::vector<float> together(static_cast<size_t>(rows * outs)), one(1);
    multiply_rows(x.data(), rows, weight.data(), outs, in, together.data(), false, vectors);
    for (int64_t n = 0; n < outs; ++n) {
      multiply_rows(x.data(), 1, weight.data() + n * in, 1, in, one.data(), false, vectors);
      CHECK(one[0] == together[size_t(n)]);
    }
  }
}

TEST_CASE("an MLP in one pass is bit for bit its products and gates one after the other") {
  if (!has_cpu_kernels()) SKIP("needs AVX2 and FMA");
  const int64_t rows = GENERATE(1, 4, 8, 9, 16, 24, 31, 40, 48, 49, 121), width = GENERATE(3, 20),
                inner = GENERATE(5, 50);
  const auto x = random_values(rows * width, 1), gate_up = random_values(2 * inner * width, 2),
             down = random_values(width * inner, 3), before = random_values(rows * width, 4);
  for (const CpuVectors vectors : vectors_here()) {
    std::vector<float> both(size_t(2 * rows * inner)), opened(size_t(rows * inner)), expected = before, out = before;
    multiply_rows(x.data(), rows, gate_up.data(), 2 * inner, width, both.data(), false, vectors);
    silu_mul(both.data(), rows, inner, opened.data(), vectors);
    multiply_rows(opened.data(), rows, down.data(), width, inner, expected.data(), true, vectors);
    add_mlp_rows(x.data(), rows, gate_up.data(), down.data(), width, inner, out.data(), vectors);
    CHECK(out == expected);
  }
}

TEST_CASE("silu and product are those of double, and a row's bits its own") {
  if (!has_cpu_kernels()) SKIP("needs AVX2 and FMA");
  const int64_t rows = 3, width = GENERATE(3, 16, 77);
  const auto all = vectors_here();
  const CpuVectors vectors = all[GENERATE_REF(range(size_t{0}, all.size()))];
  auto gate_up = random_values(2 * rows * width, 8);
  for (float& x : gate_up) x *= 10;
  gate_up[0] = -200;  // beyond what e^-x can say
  gate_up[1] = 200;
  std::vector<float> out(static_cast<size_t>(rows * width)), alone(static_cast<size_t>(width));
  silu_mul(gate_up.data(), rows, width, out.data(), vectors);
  for (int64_t m = 0; m < rows; ++m) {
    silu_mul(gate_up.data() + 2 * m * width, 1, width, alone.data(), vectors);
    CHECK(alone == std::vector<float>(out.begin() + m * width, out.begin() + (m + 1) * width));
    for (int64_t i = 0; i < width; ++i) {
      const auto gate = static_cast<double>(gate_up[size_t(2 * m * width + i)]),
                 up = static_cast<double>(gate_up[size_t((2 * m + 1) * width + i)]);
      const double expected = gate / (1 + std::exp(-gate)) * up;
      CHECK(std::abs(static_cast<double>(alone[size_t(i)]) - expected) <= 1e-6 * std::abs(expected) + 1e-30);
    }
  }
}

TEST_CASE("norms divide by the root of the mean square") {
  if (!has_cpu_kernels()) SKIP("needs AVX2 and FMA");
  const int64_t rows = 5, width = GENERATE(3, 8, 77);
  const auto x = random_values(rows * width, 6), weight = random_values(width, 7);
  std::vector<float> out = x;
  norm_rows(out.data(), rows, width, weight.data(), 1e-2f, out.data());
  for (int64_t m = 0; m < rows; ++m) {
    double squares = 0;
    for (int64_t i = 0; i < width; ++i) squares += std::pow(static_cast<double>(x[size_t(m * width + i)]), 2);
    const double scale = 1 / std::sqrt(squares / static_cast<double>(width) + 1e-2);
    for (int64_t i = 0; i < width; ++i) {
      const double expected =
          static_cast<double>(x[size_t(m * width + i)]) * scale * static_cast<double>(weight[size_t(i)]);
      CHECK(std::abs(static_cast<double>(out[size_t(m * width + i)]) - expected) < 1e-5);
    }
  }
}

}  // namespace kvsweep
