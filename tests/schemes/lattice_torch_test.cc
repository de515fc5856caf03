// Oracle and golden: HIGGS codes against plain double loops, the original's vectors and figures for normal values.
#include "schemes/codec/lattice.h"

#include <ATen/ATen.h>
#include <c10/util/Half.h>
#include <fmt/format.h>

#include <bit>
#include <catch2/catch_approx.hpp>
#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include <cmath>
#include <limits>

#include "schemes/codec/bitpack.h"
#include "schemes/codec/hadamard.h"
#include "schemes/codec/lattice_search.h"
#include "tests/support/torch/scheme_golden.h"
#include "tests/support/torch/scheme_probe.h"

namespace kvsweep::testing {
namespace {

using Catch::Matchers::ContainsSubstring;

HiggsOptions options(int64_t dim, int64_t points, int64_t group, at::ScalarType norm_type = at::kFloat,
                     bool saturate = true) {
  return {dim, points, group, norm_type, saturate};
}

std::string label(const HiggsOptions& o) {
  return fmt::format("EDEN{}-{}, blocks of {}", o.dim, o.points, o.group);
}

double as_half(double x) {
  return static_cast<float>(c10::Half(static_cast<float>(x)));
}

// H x with H[i][j] = (-1)^(bits that i and j share)
std::vector<double> transformed(const std::vector<double>& x) {
  std::vector<double> y(x.size());
  for (size_t i = 0; i < x.size(); ++i)
    for (size_t j = 0; j < x.size(); ++j) y[i] += std::popcount(i & j) % 2 == 0 ? x[j] : -x[j];
  return y;
}

double score(const LatticeGrid& grid, int64_t j, const double* y) {
  double sum = 0;
  for (int64_t i = 0; i < grid.dim; ++i) {
    const double g = grid.values[j * grid.dim + i];
    sum += 2 * y[i] * g - g * g;
  }
  return sum;
}

// One block by the header's formulas, in double.
struct Block {
  double norm = 0;
  std::vector<double> y;

  explicit Block(const std::vector<double>& x) {
    for (const double value : x) norm += value * value;
    norm = std::sqrt(norm);
    y = transformed(x);
    if (norm > 0)
      for (double& value : y) value /= norm;
  }
  // How much less code j of vector i scores than the best one, relative to that.
  double behind(const LatticeGrid& grid, int64_t i, int64_t j) const {
    double best = -std::numeric_limits<double>::infinity();
    for (int64_t k = 0; k < grid.points; ++k) best = std::max(best, score(grid, k, &y[i * grid.dim]));
    return (best - score(grid, j, &y[i * grid.dim])) / std::abs(best);
  }
};

std::vector<double> decoded_block(const LatticeGrid& grid, const std::vector<int64_t>& codes, double norm) {
  std::vector<double> values;
  for (const int64_t code : codes)
    for (int64_t i = 0; i < grid.dim; ++i)
      values.push_back(as_half(static_cast<float>(grid.values[code * grid.dim + i] * static_cast<float>(norm))));
  values = transformed(values);
  for (double& value : values) value /= static_cast<double>(values.size());
  return values;
}

// Channels of all heads of one token, padded with zeros to whole blocks.
std::vector<double> padded_token(const at::Tensor& x, int64_t token, int64_t group) {
  const at::Tensor row = merged(x)[token].to(at::kDouble).contiguous();
  std::vector<double> values(row.const_data_ptr<double>(), row.const_data_ptr<double>() + row.numel());
  values.resize((values.size() + group - 1) / group * group);
  return values;
}

at::Tensor unpacked(const HiggsCodec& codec, const std::vector<at::Tensor>& parts) {
  return unpack_bits(parts[0], codec.code_bits(), codec.codes())[0];
}

TEST_CASE("a Hadamard transform is the product with the matrix and undoes itself") {
  const int64_t n = GENERATE(1, 2, 4, 16, 64, 1024, 2048);
  INFO(n << " channels");
  const at::Tensor x = normals({3, 5, n}, 1);
  const at::Tensor y = hadamard_transform(x);
  CHECK(y.allclose(x.matmul(hadamard_matrix(n)), 1e-5, 1e-4));
  CHECK((hadamard_transform(y) / n).allclose(x, 1e-6, 1e-6));
  CHECK(hadamard_transform_with_ops(x).equal(y));
  CHECK(hadamard_transform(x.transpose(0, 1)).equal(y.transpose(0, 1)));
  at::Tensor whole = (normals({7, n}, 2) * 100).round();
  CHECK(hadamard_transform(hadamard_transform(whole)).equal(whole * n));  // sums of integers are exact
  CHECK_THROWS(hadamard_transform(at::zeros({2, 12})));
}

// Project's specification, section 4 (g): to six digits.
TEST_CASE("EDEN2-16 is the published grid") {
  const double points[16][2] = {
      {-.899663, -1.636042}, {-.961183, 1.599957},  {-1.882026, .678778},  {.363008, -1.966787},
      {-.681407, -.576819},  {.727001, .618686},    {.335942, 1.837119},   {1.859930, .036669},
      {.172082, -.940172},   {-1.759970, -.624423}, {-.899381, .322678},   {.839489, -.301704},
      {1.531495, 1.294204},  {-.001178, .000221},   {1.427453, -1.207889}, {-.161239, .878751}};
  const LatticeGrid& grid = lattice_grid(2, 16);
  for (int64_t j = 0; j < 16; ++j)
    for (int64_t i = 0; i < 2; ++i) CHECK(std::abs(grid.values[2 * j + i] - points[j][i]) < 6e-7);
}

TEST_CASE("codes, norms and decoded values are those of plain loops") {
  struct Shape {
    int64_t heads, tokens, dim;
  };
  const HiggsOptions o =
      GENERATE(options(2, 16, 64), options(2, 64, 32), options(2, 256, 128), options(4, 256, 64), options(2, 16, 1024),
               options(4, 256, 4), options(2, 16, 2), options(2, 64, 64, at::kHalf));
  const Shape s = GENERATE(Shape{3, 7, 64}, Shape{1, 1, 80}, Shape{2, 33, 80}, Shape{1, 5, 2});
  INFO(label(o) << ", " << s.heads << " heads of " << s.dim << ", " << s.tokens << " tokens");
  at::Tensor x = normals({s.heads, s.tokens, s.dim}, 3) * 3;
  x.select(2, 1).add_(20);
  x.select(1, 0).mul_(1e-3);
  const HiggsCodec codec(o, s.heads, s.dim);
  const LatticeGrid& grid = lattice_grid(o.dim, o.points);
  const std::vector<at::Tensor> parts = codec.encode(x);
  const at::Tensor codes = unpacked(codec, parts), decoded = merged(codec.decode(parts));
  const int64_t channels = s.heads * s.dim, vectors = o.group / o.dim;
  for (int64_t t = 0; t < s.tokens; ++t) {
    const std::vector<double> token = padded_token(x, t, o.group);
    for (int64_t b = 0; b * o.group < static_cast<int64_t>(token.size()); ++b) {
      const auto first = token.begin() + b * o.group;
      const Block block({first, first + o.group});
      const double norm = o.norm_type == at::kHalf ? as_half(block.norm) : block.norm;
      const auto stored = parts[1][0][t][b].item<double>();
      CHECK(stored == Catch::Approx(norm).epsilon(1e-7));
      std::vector<int64_t> own;
      double behind = 0;
      for (int64_t i = 0; i < vectors; ++i) {
        own.push_back(codes[t][b * vectors + i].item<int64_t>());
        // Of fp16 norms the loops divide by the rounded one: its last bit moves scores by 1e-3.
        if (block.norm > 0) behind = std::max(behind, block.behind(grid, i, own.back()));
      }
      CHECK(behind < (o.norm_type == at::kHalf ? 4e-3 : 1e-5));
      const std::vector<double> values = decoded_block(grid, own, stored);
      double off = 0;
      for (int64_t i = 0; i < o.group && b * o.group + i < channels; ++i)
        off = std::max(off, std::abs(decoded[t][b * o.group + i].item<double>() - values[static_cast<size_t>(i)]));
      CHECK(off <= std::ldexp(block.norm, -10));  // one rounding to fp16 and sums of fp16 values in float32
    }
  }
}

std::vector<uint8_t> nearest(const LatticeSearch& search, const std::vector<float>& y) {
  std::vector<uint8_t> codes(y.size() / search.dim);
  nearest_points(search, y.data(), static_cast<int64_t>(codes.size()), codes.data());
  return codes;
}

std::vector<uint8_t> nearest_of_all(const LatticeSearch& search, const std::vector<float>& y) {
  std::vector<uint8_t> codes(y.size() / search.dim);
  nearest_of_all_points(search, y.data(), static_cast<int64_t>(codes.size()), codes.data());
  return codes;
}

// Oracle: the full search.
TEST_CASE("a search by cells finds the point that a search of all finds") {
  const int64_t points = GENERATE(16, 64, 256);
  INFO(points << " points");
  const LatticeGrid& grid = lattice_grid(2, points);
  const LatticeSearch& search = lattice_search(grid);
  REQUIRE(search.side > 0);
  std::vector<float> y;
  const auto add_random = [&y](int64_t vectors, double size, uint64_t seed) {
    const at::Tensor x = (normals({vectors, 2}, seed) * size).to(at::kFloat).contiguous();
    y.insert(y.end(), x.const_data_ptr<float>(), x.const_data_ptr<float>() + x.numel());
  };
  add_random(200001, 1, 21);  // no whole number of tiles
  for (const double size : {1e-40, 1e-20, 1e-3, .1, 2.0, 4.0, 1e10, 1e38}) add_random(5000, size, 22);
  SECTION("on the border between two points, and rounded to either side") {
    for (int64_t j = 0; j < points; ++j)
      for (int64_t k = 0; k < j; ++k) {
        const float *a = grid.values + 2 * j, *b = grid.values + 2 * k;
        const float dx = b[0] - a[0], dy = b[1] - a[1];
        if (dx * dx + dy * dy > 1) continue;
        for (int along = -8; along <= 8; ++along) {
          const float t = static_cast<float>(along) / 16;
          y.push_back((a[0] + b[0]) / 2 - t * dy);
          y.push_back((a[1] + b[1]) / 2 + t * dx);
        }
      }
  }
  SECTION("at the edges of cells and of the table") {
    const float width = 2 * LatticeSearch::kReach / static_cast<float>(search.side), most = 1e30F;
    for (int64_t i = 0; i <= search.side; ++i)
      for (int64_t j = 0; j <= search.side; ++j) {
        const float x = static_cast<float>(i) * width - LatticeSearch::kReach;
        const float z = static_cast<float>(j) * width - LatticeSearch::kReach;
        for (const float near_x : {x, std::nextafter(x, -most), std::nextafter(x, most)})
          for (const float near_z : {z, std::nextafter(z, -most), std::nextafter(z, most)})
            y.insert(y.end(), {near_x, near_z});
      }
  }
  SECTION("of all other floats") {
    using limits = std::numeric_limits<float>;
    const float odd[] = {0.0F,          -0.0F,
                         limits::min(), limits::denorm_min(),
                         limits::max(), -limits::max(),
                         4.0F,          -4.0F,
                         1.0F,          -limits::denorm_min(),
                         1e19F,         limits::infinity(),
                         -1e19F,        -limits::infinity(),
                         -1.0F,         limits::quiet_NaN()};
    for (const float a : odd)
      for (const float b : odd) y.insert(y.end(), {a, b, 0.3F, 0.4F});
    CHECK(nearest(search, {limits::quiet_NaN(), 1, 1, limits::quiet_NaN()}) == std::vector<uint8_t>{0, 0});
  }
  CHECK(nearest(search, y) == nearest_of_all(search, y));
}

// A square grid in mixed order: between two points, or four, scores are equal exactly.
TEST_CASE("of points with one score the first is taken") {
  constexpr int64_t kSide = 8, kPoints = kSide * kSide;
  std::vector<float> values;
  for (int64_t j = 0; j < kPoints; ++j) {
    const int64_t at = j * 37 % kPoints;
    values.insert(values.end(), {static_cast<float>(at / kSide) - 3.5F, static_cast<float>(at % kSide) - 3.5F});
  }
  const LatticeGrid grid{"square", 2, kPoints, values.data()};
  const LatticeSearch search(grid);
  REQUIRE(search.side > 0);
  std::vector<float> y;
  std::vector<uint8_t> expected;
  int64_t ties = 0;
  for (int64_t i = -40; i <= 40; ++i)
    for (int64_t k = -40; k <= 40; ++k) {
      const double at[] = {static_cast<double>(i) / 8, static_cast<double>(k) / 8};
      y.insert(y.end(), {static_cast<float>(at[0]), static_cast<float>(at[1])});
      int64_t best = 0, equal = 0;
      for (int64_t j = 0; j < kPoints; ++j)
        if (score(grid, j, at) > score(grid, best, at)) best = j;
      for (int64_t j = 0; j < kPoints; ++j) equal += score(grid, j, at) == score(grid, best, at) ? 1 : 0;
      ties += equal > 1 ? 1 : 0;
      expected.push_back(static_cast<uint8_t>(best));
    }
  CHECK(ties > 1000);
  CHECK(nearest(search, y) == expected);
  CHECK(nearest_of_all(search, y) == expected);
}

// Every border lies at an edge of cells, but for roundings: those of scores decide on which side.
TEST_CASE("a search by cells rounds as a search of all does") {
  std::vector<float> values, y;
  for (int64_t j = 0; j < 256; ++j)
    for (const int64_t i : {j / 16, j % 16})
      values.push_back(static_cast<float>(i / 2) / 2 - 2 + (i % 2 == 0 ? -0.11F : 0.11F));
  const LatticeSearch search({"pairs", 2, 256, values.data()});
  REQUIRE(search.side == 64);
  for (int64_t i = -18; i <= 18; ++i)
    for (int64_t k = -72; k <= 72; ++k)
      for (int64_t step = -16; step <= 16; ++step) {
        const float at = static_cast<float>(i) / 8 + static_cast<float>(step) * 0x1p-24F;
        const float other = static_cast<float>(k) / 32 + 0.01F;
        y.insert(y.end(), {at, other, other, at});
      }
  CHECK(nearest(search, y) == nearest_of_all(search, y));
}

TEST_CASE("tensor operations give the same parts and values") {
  const HiggsOptions o =
      GENERATE(options(2, 16, 64), options(2, 64, 256), options(2, 256, 1024), options(4, 256, 64, at::kHalf));
  INFO(label(o));
  at::Tensor x = normals({3, 200, 64}, 4);
  x.select(1, 3).zero_();
  x.select(1, 4).mul_(1e6);
  x.select(1, 5).mul_(1e-6);
  const HiggsCodec codec(o, 3, 64);
  const std::vector<at::Tensor> parts = codec.encode(x), by_ops = codec.encode_with_ops(x);
  CHECK(by_ops[1].equal(parts[1]));
  const at::Tensor codes = unpacked(codec, parts), other = unpacked(codec, by_ops);
  CHECK(codes.ne(other).sum().item<int64_t>() <= codes.numel() / 10000);  // scores as near as a rounding
  CHECK(codec.decode_with_ops(parts).equal(codec.decode(parts)));
}

TEST_CASE("codes of a token are its own, whatever surrounds it and however it lies in memory") {
  const HiggsCodec codec(options(2, 64, 64), 3, 64);
  const at::Tensor x = normals({3, 500, 64}, 5);
  const std::vector<at::Tensor> parts = codec.encode(x);
  const std::vector<at::Tensor> inside = codec.encode(x.narrow(1, 100, 33));
  const std::vector<at::Tensor> turned = codec.encode(x.transpose(0, 1).contiguous().transpose(0, 1));
  for (size_t i = 0; i < 2; ++i) {
    CHECK(inside[i].equal(parts[i].narrow(1, 100, 33)));
    CHECK(turned[i].equal(parts[i]));
  }
  CHECK(codec.decode({parts[0].narrow(1, 100, 33), parts[1].narrow(1, 100, 33)})
            .equal(codec.decode(parts).narrow(1, 100, 33)));
}

TEST_CASE("a scaled token has the same codes and scaled norms") {
  const HiggsCodec codec(options(2, 16, 64), 2, 64);
  const at::Tensor x = normals({2, 50, 64}, 6);
  const std::vector<at::Tensor> parts = codec.encode(x), scaled = codec.encode(x * 8);
  CHECK(scaled[0].equal(parts[0]));
  CHECK(scaled[1].equal(parts[1] * 8));
  CHECK(codec.encode(x * 3.7)[0].ne(parts[0]).sum().item<int64_t>() <= 1);
}

// Figures of the project's specification (section 4 (g)): N(0, 1), blocks of 1024, within 2 %.
TEST_CASE("HIGGS grids lose on normal values what is published") {
  struct Figure {
    int64_t dim, points;
    double nmse;
  };
  const Figure f = GENERATE(Figure{2, 16, .1077}, Figure{2, 64, .0297}, Figure{2, 256, .00782}, Figure{4, 256, .0963});
  INFO("EDEN" << f.dim << "-" << f.points);
  static const at::Tensor x = normals({8, 1024, 128}, 2026);  // 2^20 values
  const HiggsCodec codec(options(f.dim, f.points, 1024), 8, 128);
  CHECK(nmse(x, codec.decode(codec.encode(x))) == Catch::Approx(f.nmse).epsilon(.02));
  const HiggsCodec fp16(options(f.dim, f.points, 1024, at::kHalf), 8, 128);
  CHECK(nmse(x, fp16.decode(fp16.encode(x))) == Catch::Approx(f.nmse).epsilon(.02));
}

TEST_CASE("a block of zeros has code 0 and decodes to zeros") {
  const HiggsOptions o = GENERATE(options(2, 16, 64), options(4, 256, 32), options(2, 64, 64, at::kHalf));
  at::Tensor x = normals({2, 6, 64}, 7);
  x.select(1, 2).zero_();
  x[0][4].zero_();
  if (o.norm_type == at::kHalf) x.select(1, 5).mul_(1e-10);  // the norm is stored as zero
  const HiggsCodec codec(o, 2, 64);
  const std::vector<at::Tensor> parts = codec.encode(x);
  CHECK(unpacked(codec, parts)[2].eq(0).all().item<bool>());
  CHECK(parts[1][0][2].eq(0).all().item<bool>());
  const at::Tensor y = codec.decode(parts);
  CHECK(y.select(1, 2).eq(0).all().item<bool>());
  CHECK(y[0][4].eq(0).all().item<bool>());
  CHECK(y[1][4].ne(0).any().item<bool>());
  CHECK(y.isfinite().all().item<bool>());
  if (o.norm_type == at::kHalf) CHECK(y.select(1, 5).eq(0).all().item<bool>());
}

TEST_CASE("beyond fp16 a block saturates, or overflows as the original's does") {
  const double size = GENERATE(3e4, 1e6, 1e18, 1e38);
  INFO("values of " << size);
  at::Tensor x = normals({1, 4, 64}, 8);
  x.select(1, 1).mul_(size / 4);
  const HiggsCodec codec(options(2, 16, 64), 1, 64), raw(options(2, 16, 64, at::kFloat, false), 1, 64);
  const std::vector<at::Tensor> parts = codec.encode(x);
  const at::Tensor y = codec.decode(parts), z = raw.decode(parts);
  CHECK(y.isfinite().all().item<bool>());
  CHECK(y.select(1, 1).ne(0).any().item<bool>());
  CHECK_FALSE(z.select(1, 1).isfinite().all().item<bool>());
  CHECK(z.select(1, 0).equal(y.select(1, 0)));
  CHECK(raw.decode_with_ops(parts).isnan().equal(z.isnan()));
}

TEST_CASE("NaN stays NaN in its block") {
  at::Tensor x = normals({2, 3, 64}, 9);
  x[1][1][5].fill_(std::numeric_limits<double>::quiet_NaN());
  const HiggsCodec codec(options(2, 16, 64), 2, 64);
  const at::Tensor y = codec.decode(codec.encode(x));
  CHECK(y[1][1].isnan().all().item<bool>());
  CHECK(y.isnan().sum().item<int64_t>() == 64);
}

TEST_CASE("bytes of a token are those that the header states, padding included") {
  struct Bytes {
    HiggsOptions options;
    int64_t heads, dim, codes, norms;
  };
  const Bytes b = GENERATE(Bytes{options(2, 16, 1024), 8, 128, 1024 / 2 * 4 / 8, 4},            // vectors, bits
                           Bytes{options(2, 64, 1024), 8, 128, 1024 / 2 * 6 / 8, 4},            //
                           Bytes{options(4, 256, 1024, at::kHalf), 8, 128, 1024 / 4, 2},        //
                           Bytes{options(2, 16, 64), 3, 64, 192 / 2 * 4 / 8, 3 * 4},            //
                           Bytes{options(2, 16, 1024), 3, 64, 1024 / 2 * 4 / 8, 4},             // 192 padded to 1024
                           Bytes{options(2, 64, 16, at::kHalf), 1, 80, 80 / 2 * 6 / 8, 5 * 2},  //
                           Bytes{options(2, 64, 2), 1, 2, 1, 4});                               // 6 bits in a byte
  INFO(label(b.options) << " of " << b.heads << " heads of " << b.dim);
  const HiggsCodec codec(b.options, b.heads, b.dim);
  const std::vector<at::Tensor> parts = codec.encode(normals({b.heads, 10, b.dim}, 10));
  CHECK(parts[0].numel() == 10 * b.codes);
  CHECK(parts[1].numel() * parts[1].element_size() == 10 * b.norms);
  CHECK(codec.nominal_bits() == std::log2(b.options.points) / static_cast<double>(b.options.dim));
}

TEST_CASE("options and inputs that no grid or block fits are refused") {
  CHECK_THROWS_WITH(HiggsCodec(options(2, 32, 64), 1, 64), ContainsSubstring("no grid of 32 points"));
  CHECK_THROWS_WITH(HiggsCodec(options(2, 16, 48), 1, 64), ContainsSubstring("power of two"));
  CHECK_THROWS_WITH(HiggsCodec(options(4, 256, 2), 1, 64), ContainsSubstring("vectors of 4"));
  CHECK_THROWS(HiggsCodec(options(2, 16, 64, at::kDouble), 1, 64));
  const HiggsCodec codec(options(2, 16, 64), 2, 64);
  CHECK_THROWS(codec.encode(at::zeros({1, 5, 64})));
  const std::vector<at::Tensor> none = codec.encode(at::zeros({2, 0, 64})),
                                by_ops = codec.encode_with_ops(at::zeros({2, 0, 64}));
  for (size_t i = 0; i < 2; ++i) CHECK(none[i].sizes() == by_ops[i].sizes());
  CHECK(codec.decode(none).sizes() == at::IntArrayRef({2, 0, 64}));
  CHECK(codec.decode_with_ops(none).sizes() == at::IntArrayRef({2, 0, 64}));
}

// Golden: grids exact; codes equal but for near ties, counted; norms and reconstructions within the manifest's
// tolerance, reconstructions of the original's own codes.
TEST_CASE("grids are the original's", "[golden]") {
  int64_t checked = 0;
  for (const auto& manifest : golden_manifests_or_skip("aquakv"))
    for (const GoldenCase& c : manifest->cases()) {
      if (c.function() != "edenn.GRIDS") continue;
      for (const LatticeGrid& grid : lattice_grids()) {
        const at::Tensor expected = c.output(fmt::format("EDEN{}_{}", grid.dim, grid.points));
        REQUIRE(expected.sizes() == at::IntArrayRef({grid.points, grid.dim}));
        CHECK(std::equal(grid.values, grid.values + expected.numel(), expected.const_data_ptr<float>()));
        ++checked;
      }
      if (c.has_output("EDEN6_4096")) WARN("EDEN6-4096, whose codes do not fit the original's bytes, is left out");
    }
  CHECK(checked >= 4);
}

double half_ulp_at(double x) {
  return std::ldexp(1.0, std::max(std::ilogb(x), -14) - 10);
}

TEST_CASE("HIGGS codes and reconstructions are the original's", "[golden]") {
  int64_t checked = 0, codes_checked = 0, ties = 0, values_checked = 0, roundings = 0;
  for (const auto& manifest : golden_manifests_or_skip("aquakv"))
    for (const GoldenCase& c : manifest->cases()) {
      if (c.function() != "HiggsQuantizer.quantize/dequantize") continue;
      INFO(c.label());
      if (c.name().starts_with("quirk_")) {
        WARN(c.name() << " is a defect of the original");
        continue;
      }
      const int64_t dim = c.integer("edenn_d"), points = c.integer("edenn_n"), h = c.integer("hadamard_groupsize");
      const at::Tensor x = c.input(0);
      REQUIRE(x.size(0) * x.size(2) == c.integer("channel_size"));
      const HiggsCodec codec(options(dim, points, h, at::kFloat, false), x.size(0), x.size(2));
      REQUIRE(codec.codes() == c.integer("codes_per_token"));
      const std::vector<at::Tensor> parts = codec.encode(x);
      const at::Tensor norms = c.output("norms"), wanted = c.output("idx").view({x.size(1), -1});
      CHECK(parts[1][0].allclose(norms, 1e-6, 0));
      const at::Tensor codes = unpacked(codec, parts);
      const at::Tensor different = codes.ne(wanted).nonzero();
      for (int64_t i = 0; i < different.size(0); ++i) {
        const auto t = different[i][0].item<int64_t>(), at = different[i][1].item<int64_t>(), vectors = h / dim;
        const std::vector<double> token = padded_token(x, t, h);
        const auto first = token.begin() + at / vectors * h;
        const Block block({first, first + h});
        INFO("token " << t << ", code " << at << ": " << codes[t][at].item<int64_t>() << ", the original's "
                      << wanted[t][at].item<int64_t>());
        CHECK(block.behind(lattice_grid(dim, points), at % vectors, wanted[t][at].item<int64_t>()) < 1e-4);
      }
      ties += different.size(0);
      codes_checked += codes.numel();
      const at::Tensor packed = pack_bits(wanted.contiguous().unsqueeze(0), codec.code_bits());
      const at::Tensor values = merged(codec.decode({packed, norms.unsqueeze(0)}));
      const at::Tensor expected = c.output("dequant_fp16").to(at::kFloat);
      CHECK(values.isfinite().equal(expected.isfinite()));
      // 2 fp16 steps at norm / sqrt(h). A value that is larger than that has coarser steps of its own, and sums in
      // another order may end on the other side of a tie: one such step is let pass, and counted.
      for (int64_t t = 0; t < x.size(1); ++t)
        for (int64_t i = 0; i < values.size(1); ++i) {
          const double off = std::abs(values[t][i].item<double>() - expected[t][i].item<double>());
          if (std::isnan(off)) continue;
          const double norm = norms[t][i / h].item<double>() / std::sqrt(static_cast<double>(h));
          if (off <= 2 * half_ulp_at(norm)) continue;
          CHECK(off <= half_ulp_at(expected[t][i].item<double>()));
          ++roundings;
        }
      values_checked += values.numel();
      ++checked;
    }
  WARN(checked << " cases; " << ties << " of " << codes_checked << " codes are near ties, " << roundings << " of "
               << values_checked << " values one fp16 step away");
  CHECK(checked > 0);
  CHECK(ties * 1000 <= codes_checked);
  CHECK(roundings * 1000 <= values_checked);
}

}  // namespace
}  // namespace kvsweep::testing
