// Golden: blocks of ggml, byte for byte. Oracle: the same in plain loops, worked blocks, figures for normal values;
// bytes and settings of the scheme.
#include <ATen/ATen.h>
#include <c10/util/BFloat16.h>
#include <c10/util/Half.h>
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <catch2/catch_approx.hpp>
#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <catch2/matchers/catch_matchers_exception.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include <cmath>
#include <regex>

#include "harness/core/error.h"
#include "schemes/codec/ggml_block.h"
#include "tests/support/torch/scheme_golden.h"
#include "tests/support/torch/scheme_probe.h"

namespace kvsweep::testing {
namespace {

using Catch::Matchers::ContainsSubstring;
using Catch::Matchers::MessageMatches;

// ggml's struct: the bytes of a block's parts in order. [H, T, N, bytes]
at::Tensor block_bytes(const std::vector<at::Tensor>& parts) {
  std::vector<at::Tensor> bytes;
  for (const at::Tensor& part : parts)
    bytes.push_back(part.dim() == 3 ? part.contiguous().view(at::kByte).view({part.size(0), part.size(1), -1, 2})
                                    : part);
  return at::cat(bytes, -1);
}

// Values in rows of one block.
std::vector<at::Tensor> encoded(GgmlType type, const at::Tensor& x) {
  const int64_t n = ggml_block_values(type);
  return GgmlCodec(type, n).encode(x.reshape({1, -1, n}));
}

// Codes are one apart where x / d lies on an edge between two: the CPU backend divides otherwise and rounds half to
// even. -> how many differ.
int64_t differ_at_ties(const at::Tensor& x, const at::Tensor& ours, const at::Tensor& theirs) {
  REQUIRE(ours.narrow(1, 0, 2).equal(theirs.narrow(1, 0, 2)));
  const at::Tensor codes = ours.narrow(1, 2, 32).contiguous().view(at::kChar).to(at::kFloat);
  const at::Tensor apart = theirs.narrow(1, 2, 32).contiguous().view(at::kChar).to(at::kFloat) - codes;
  const at::Tensor steps = x / (x.abs().amax(1, true) / 127);
  CHECK(apart.abs().max().item<float>() <= 1);
  CHECK(((steps - codes).abs().sub(0.5).abs().lt(1e-4)).logical_or(apart.eq(0)).all().item<bool>());
  return apart.ne(0).sum().item<int64_t>();
}

// What the original does in more than one way.
struct Seen {
  int64_t ties = 0, left_over = 0, chunks = 0;
};

void check_blocks(const GoldenCase& golden, GgmlType type, Seen& seen) {
  const int64_t n = ggml_block_values(type);
  const at::Tensor x = golden.input(0).reshape({-1, n});
  const std::vector<at::Tensor> parts = encoded(type, x);
  const at::Tensor bytes = block_bytes(parts).flatten(0, 2), expected = golden.output("bytes_ref");
  REQUIRE(bytes.sizes() == expected.sizes());
  at::Tensor other = bytes.ne(expected).any(1);
  if (type == GgmlType::kIq4Nl) {
    // Blocks of zeros keep the codes that ggml made before; their scale of zero hides them.
    const at::Tensor empty = x.abs().amax(1).lt(1e-15);
    CHECK(bytes.narrow(1, 0, 2).equal(expected.narrow(1, 0, 2)));
    seen.left_over += other.logical_and(empty).sum().item<int64_t>();
    other = other.logical_and(empty.logical_not());
  }
  CHECK(other.sum().item<int64_t>() == 0);
  CHECK(GgmlCodec(type, n).decode(parts).view({-1, n}).equal(golden.output("dequant_ref")));
  if (golden.has_output("bytes_cpu_backend") && type == GgmlType::kQ8_0)
    seen.ties += differ_at_ties(x, bytes, golden.output("bytes_cpu_backend"));
  else if (golden.has_output("bytes_cpu_backend"))
    WARN(golden.label() << ": the CPU backend makes other bytes than the reference: not compared");
  seen.chunks += golden.has_output("bytes_quantize_chunk") ? 1 : 0;
}

void check_casts(const GoldenCase& golden) {
  const at::Tensor x = golden.input(0).reshape({1, 1, -1});
  for (const auto& [type, key] : {std::pair{GgmlType::kF16, "f16_bits"}, std::pair{GgmlType::kBF16, "bf16_bits"}}) {
    const std::vector<at::Tensor> parts = GgmlCodec(type, x.size(2)).encode(x);
    const at::Tensor bits = parts[0].view(at::kShort).to(at::kInt).bitwise_and(0xFFFF).flatten();
    CHECK(bits.equal(golden.output(key).to(at::kInt).bitwise_and(0xFFFF)));
  }
}

TEST_CASE("ggml blocks are those of the original, byte for byte", "[golden]") {
  static const std::regex rows(R"(^quantize_row_(\w+)_ref, dequantize_row_(\w+)(;.*)?$)");
  int64_t checked = 0;
  Seen seen;
  for (const auto& manifest : golden_manifests_or_skip("llamacpp"))
    for (const GoldenCase& golden : manifest->cases()) {
      INFO(golden.label());
      if (golden.name().starts_with("quirk_")) {
        WARN(golden.label() << " documents a defect of the original: skipped");
        continue;
      }
      std::smatch match;
      if (golden.function() == "stored input") continue;
      if (std::regex_match(golden.function(), match, rows)) {
        REQUIRE(match[1] == match[2]);
        check_blocks(golden, ggml_type(match[1].str()), seen);
      } else if (golden.function() == "ggml_fp32_to_fp16_row, ggml_fp32_to_bf16_row_ref") {
        check_casts(golden);
      } else {
        FAIL("unknown function " << golden.function());
      }
      ++checked;
    }
  CHECK(checked > 0);
  if (seen.ties > 0)
    WARN(seen.ties << " ties of q8_0 that ggml's CPU backend rounds to even, its reference away from zero");
  if (seen.left_over > 0)
    WARN(seen.left_over << " iq4_nl blocks of zeros hold codes of the block before in the original");
  if (seen.chunks > 0)
    WARN(seen.chunks << " outputs of ggml_quantize_chunk not compared: its search for weight files is no cache path");
}

// Rounding a double result of two floats to float32 is the float32 result (53 >= 2 * 24 + 2 bits).
double single(double value) {
  return static_cast<float>(value);
}

double as_fp16(double value) {
  return static_cast<float>(c10::Half(static_cast<float>(std::clamp(value, -65504.0, 65504.0))));
}

struct Block {
  std::vector<uint8_t> bytes;
  std::vector<double> values;
};

void put_fp16(Block& block, double value) {
  const uint16_t bits = c10::Half(static_cast<float>(std::clamp(value, -65504.0, 65504.0))).x;
  block.bytes.push_back(static_cast<uint8_t>(bits & 255));
  block.bytes.push_back(static_cast<uint8_t>(bits >> 8));
}

void put_codes(Block& block, const std::vector<int>& q, bool five) {
  if (five) {
    uint32_t high = 0;
    for (size_t j = 0; j < 32; ++j) high |= q[j] >= 16 ? uint32_t{1} << j : 0;
    for (int i = 0; i < 4; ++i) block.bytes.push_back(static_cast<uint8_t>(high >> (8 * i) & 255));
  }
  for (size_t j = 0; j < 16; ++j) block.bytes.push_back(static_cast<uint8_t>(q[j] % 16 + 16 * (q[j + 16] % 16)));
}

double peak_of(const std::vector<double>& x) {
  double peak = 0;
  for (const double value : x)
    if (std::abs(value) > std::abs(peak)) peak = value;
  return peak;
}

double reciprocal(double d) {
  const double inverse = d == 0 ? 0 : single(1 / d);
  return std::isfinite(inverse) ? inverse : 0;
}

Block block_q8_0(const std::vector<double>& x) {
  Block block;
  const double d = single(std::abs(peak_of(x)) / 127), id = reciprocal(d);
  put_fp16(block, d);
  for (const double value : x) {
    const double q = std::round(single(value * id));  // half away from zero
    block.bytes.push_back(static_cast<uint8_t>(static_cast<int8_t>(q)));
    block.values.push_back(single(q * as_fp16(d)));
  }
  return block;
}

Block block_signed(const std::vector<double>& x, int zero) {  // q4_0, q5_0
  Block block;
  const double d = single(peak_of(x) / -zero), id = reciprocal(d);
  put_fp16(block, d);
  std::vector<int> q;
  for (const double value : x) {
    q.push_back(std::min(2 * zero - 1, static_cast<int>(single(single(value * id) + zero + 0.5))));
    block.values.push_back(single((q.back() - zero) * as_fp16(d)));
  }
  put_codes(block, q, zero == 16);
  return block;
}

Block block_affine(const std::vector<double>& x, int top) {  // q4_1, q5_1
  Block block;
  const auto [low, high] = std::minmax_element(x.begin(), x.end());
  const double d = single(single(*high - *low) / top), id = reciprocal(d);
  put_fp16(block, d);
  put_fp16(block, *low);
  std::vector<int> q;
  for (const double value : x) {
    q.push_back(std::min(top, static_cast<int>(single(single(single(value - *low) * id) + 0.5))));
    block.values.push_back(single(single(q.back() * as_fp16(d)) + as_fp16(*low)));
  }
  put_codes(block, q, top == 31);
  return block;
}

Block block_iq4_nl(const std::vector<double>& x) {
  constexpr std::array<int, 16> kLevels = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};
  Block block;
  const double first = single(peak_of(x) / -127), id = std::abs(peak_of(x)) < 1e-15F ? 0 : single(1 / first);
  std::vector<int> q;
  double top = 0, bottom = 0;
  for (const double value : x) {
    const double y = single(value * id);
    size_t nearest = 0;
    for (size_t k = 1; k < 16; ++k)
      if (std::abs(kLevels[k] - y) <= std::abs(kLevels[nearest] - y)) nearest = k;
    q.push_back(static_cast<int>(nearest));
    const double weighted = single(single(value * value) * kLevels[nearest]);
    top = single(top + single(weighted * value));
    bottom = single(bottom + single(weighted * kLevels[nearest]));
  }
  const double d = id == 0 ? 0 : single(top / bottom);
  put_fp16(block, d);
  for (const int code : q) block.values.push_back(single(kLevels[static_cast<size_t>(code)] * as_fp16(d)));
  put_codes(block, q, false);
  return block;
}

Block block_nvfp4(const std::vector<double>& x) {
  constexpr std::array<int, 16> kLevels = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};
  const auto value_of = [](int code) {  // of a scale byte: bias 7
    return code < 8 ? std::ldexp(code, -9) : std::ldexp(8 + code % 8, code / 8 - 10);
  };
  Block block;
  std::vector<uint8_t> packed;
  for (size_t s = 0; s < 4; ++s) {
    const std::vector<double> part(x.begin() + static_cast<int64_t>(16 * s),
                                   x.begin() + static_cast<int64_t>(16 * s + 16));
    const double wanted = single(std::abs(peak_of(part)) / 6);
    int scale = 0;  // the upper one of two at a tie; none between 7 * 2^-9 and 2^-6 is rounded up
    while (scale < 126 && 2 * wanted >= value_of(scale) + value_of(scale + 1)) ++scale;
    if (wanted < value_of(8)) scale = std::min(scale, 7);
    if (wanted >= 256) scale = 126;
    block.bytes.push_back(static_cast<uint8_t>(scale));
    std::vector<int> q;
    for (const double value : part) {
      int nearest = 0;
      const auto error = [&](int k) {
        return std::abs(single(kLevels[static_cast<size_t>(k)] * value_of(scale) / 2 - value));
      };
      for (int k = 1; k < 16; ++k)
        if (error(k) < error(nearest)) nearest = k;
      q.push_back(nearest);
      block.values.push_back(single(kLevels[static_cast<size_t>(nearest)] * value_of(scale) / 2));
    }
    for (size_t j = 0; j < 8; ++j) packed.push_back(static_cast<uint8_t>(q[j] + 16 * q[j + 8]));
  }
  block.bytes.insert(block.bytes.end(), packed.begin(), packed.end());
  return block;
}

Block block_by_hand(GgmlType type, const std::vector<double>& x) {
  switch (type) {
    case GgmlType::kQ8_0:
      return block_q8_0(x);
    case GgmlType::kQ4_0:
      return block_signed(x, 8);
    case GgmlType::kQ5_0:
      return block_signed(x, 16);
    case GgmlType::kQ4_1:
      return block_affine(x, 15);
    case GgmlType::kQ5_1:
      return block_affine(x, 31);
    case GgmlType::kIq4Nl:
      return block_iq4_nl(x);
    default:
      return block_nvfp4(x);
  }
}

GgmlType generated_block_type() {
  return GENERATE(GgmlType::kQ8_0, GgmlType::kQ4_0, GgmlType::kQ4_1, GgmlType::kQ5_0, GgmlType::kQ5_1, GgmlType::kIq4Nl,
                  GgmlType::kNvfp4);
}

std::string name_of(GgmlType type) {
  return std::string(kGgmlTypeNames[static_cast<size_t>(type)]);
}

// Normal values; an outlier channel, ties between magnitudes, steps that hit edges, tiny, huge and constant rows.
at::Tensor hard_input(int64_t heads, int64_t tokens, int64_t dim) {
  at::Tensor x = normals({heads, tokens, dim}, 11);
  x.select(2, 3).add_(25);
  x.select(1, 0).fill_(-2.5);
  if (tokens < 12) return x;
  x.select(1, 1).zero_();
  x.select(1, 2).mul_(1e-9);
  x.select(1, 3).mul_(1e-41);
  x.select(1, 4).mul_(1e6);
  x.select(1, 5).mul_(1e9);
  x.select(1, 6).copy_(x.select(1, 6).sign());
  x.select(1, 7).copy_(at::arange(dim) % 32 * 0.5 - 8);
  x.select(1, 8).mul_(0.01);
  x.select(1, 9).copy_((at::arange(dim) % 32 - 16) * 8);
  x.select(1, 10).copy_(-127 + (at::arange(dim) % 32) * 7.5);
  x.select(1, 11).mul_(1e-13);
  if (tokens > 12) x.select(1, 12).copy_((at::arange(dim) % 16) * 110);  // an NVFP4 scale of 275: beyond 256
  return x;
}

TEST_CASE("ggml blocks are those of plain loops in double") {
  const GgmlType type = generated_block_type();
  const auto [heads, tokens, blocks] = GENERATE(table<int64_t, int64_t, int64_t>({{1, 1, 1}, {2, 60, 3}}));
  INFO(name_of(type) << ", " << heads << " heads, " << tokens << " tokens");
  const int64_t n = ggml_block_values(type);
  const at::Tensor x = hard_input(heads, tokens, blocks * n);
  const GgmlCodec codec(type, blocks * n);
  const std::vector<at::Tensor> parts = codec.encode(x);
  const at::Tensor bytes = block_bytes(parts).contiguous(), decoded = codec.decode(parts);
  REQUIRE(bytes.sizes().slice(0, 3) == at::IntArrayRef({heads, tokens, blocks}));
  const auto in = x.accessor<float, 3>(), out = decoded.accessor<float, 3>();
  const auto stored = bytes.accessor<uint8_t, 4>();
  int64_t other_bytes = 0, other_values = 0;
  for (int64_t h = 0; h < heads; ++h)
    for (int64_t t = 0; t < tokens; ++t)
      for (int64_t b = 0; b < blocks; ++b) {
        std::vector<double> values;
        for (int64_t j = 0; j < n; ++j) values.push_back(in[h][t][b * n + j]);
        const Block expected = block_by_hand(type, values);
        REQUIRE(static_cast<int64_t>(expected.bytes.size()) == bytes.size(3));
        for (int64_t i = 0; i < bytes.size(3); ++i)
          other_bytes += stored[h][t][b][i] != expected.bytes[static_cast<size_t>(i)];
        for (int64_t j = 0; j < n; ++j)
          other_values += out[h][t][b * n + j] != static_cast<float>(expected.values[static_cast<size_t>(j)]);
      }
  CHECK(other_bytes == 0);
  CHECK(other_values == 0);
}

TEST_CASE("ggml blocks by tensor operations have the bits of the CPU loops") {
  const GgmlType type = generated_block_type();
  INFO(name_of(type));
  std::vector<at::Device> devices = {at::kCPU};
  if (at::hasCUDA()) devices.emplace_back(at::kCUDA);
  const GgmlCodec codec(type, 192);
  const at::Tensor x = hard_input(2, 70, 192);
  const std::vector<at::Tensor> expected = codec.encode(x), none = codec.encode(x.narrow(1, 0, 0));
  for (const at::Device device : devices) {
    INFO(device.str());
    const std::vector<at::Tensor> parts = codec.encode_with_ops(x.to(device));
    REQUIRE(parts.size() == expected.size());
    for (size_t i = 0; i < parts.size(); ++i) {
      INFO(codec.parts()[i].name);
      CHECK(parts[i].scalar_type() == expected[i].scalar_type());
      CHECK(parts[i].cpu().equal(expected[i]));
      CHECK(codec.encode_with_ops(x.narrow(1, 0, 0).to(device))[i].sizes() == none[i].sizes());
    }
    CHECK(codec.decode_with_ops(parts).cpu().equal(codec.decode(expected)));
  }
}

TEST_CASE("ggml blocks in views with gaps are those of contiguous tensors") {
  const GgmlType type = generated_block_type();
  INFO(name_of(type));
  const GgmlCodec codec(type, 64);
  const at::Tensor x = normals({40, 5, 64}, 4).transpose(0, 1).narrow(0, 1, 3).narrow(1, 4, 32);
  const std::vector<at::Tensor> parts = codec.encode(x.contiguous());
  std::vector<at::Tensor> inside;
  for (const at::Tensor& part : codec.encode(x)) {
    std::vector<int64_t> sizes = part.sizes().vec();
    sizes[1] += 7;
    inside.push_back(at::zeros(sizes, part.options()).narrow(1, 2, part.size(1)).copy_(part));
  }
  for (size_t i = 0; i < parts.size(); ++i) CHECK(inside[i].equal(parts[i]));
  CHECK(codec.decode(inside).equal(codec.decode(parts)));
  CHECK(codec.decode_with_ops(inside).equal(codec.decode(parts)));
  CHECK(codec.encode(x.transpose(1, 2).contiguous().transpose(1, 2)).back().equal(parts.back()));
}

// sin(0..31) as one block (specification, section 1.3): the whole block in hexadecimal, and its NMSE.
TEST_CASE("the ggml blocks of a sine are the worked ones") {
  struct Worked {
    GgmlType type;
    std::string bytes;
    double nmse;
  };
  const Worked w = GENERATE(
      Worked{GgmlType::kQ8_0, "0820006b7312a086dd537e34bb81bc357e53db86a113746aff958def617922ac83cd", 1.135e-5},
      Worked{GgmlType::kQ4_0, "0030680f2f99f2f0861d1f7be4f0a43b0f5d", 3.695e-3},
      Worked{GgmlType::kQ4_1, "3f3000bc580e2e99e2e0751c1f7bd3f0a33b0f4c", 4.267e-3},
      Worked{GgmlType::kQ5_0, "002c8fe3781cb01d4f22f4d10c2b2fe7c7f047570faa", 1.254e-3},
      Worked{GgmlType::kQ5_1, "1c2c00bc8fe3381cb01d4e22e4d1fb2a1fe6b7e047560f9a", 6.986e-4},
      Worked{GgmlType::kIq4Nl, "1420580f1fa9f1f0851e1f6ce3f0b32c0f4e", 4.324e-3});
  INFO(name_of(w.type));
  at::Tensor x = at::empty({1, 1, 32}, at::kFloat);
  for (int64_t j = 0; j < 32; ++j) x[0][0][j].fill_(std::sin(static_cast<double>(j)));
  const GgmlCodec codec(w.type, 32);
  const std::vector<at::Tensor> parts = codec.encode(x);
  const at::Tensor bytes = block_bytes(parts).flatten();
  std::string hex;
  for (int64_t i = 0; i < bytes.numel(); ++i) hex += fmt::format("{:02x}", bytes[i].item<uint8_t>());
  CHECK(hex == w.bytes);
  CHECK(nmse(x, codec.decode(parts)) == Catch::Approx(w.nmse).epsilon(1e-3));
}

// Specification, section 7: what the original gives on normal values, within 2 %.
TEST_CASE("the error of ggml types on normal values is that of the original") {
  const auto [type, error, bits] = GENERATE(table<GgmlType, double, double>({{GgmlType::kQ8_0, 2.87e-5, 8.5},
                                                                             {GgmlType::kQ4_0, 7.38e-3, 4.5},
                                                                             {GgmlType::kQ4_1, 6.12e-3, 5.0},
                                                                             {GgmlType::kQ5_0, 1.82e-3, 5.5},
                                                                             {GgmlType::kQ5_1, 1.43e-3, 6.0},
                                                                             {GgmlType::kIq4Nl, 6.19e-3, 4.5}}));
  INFO(name_of(type));
  static const at::Tensor x = normals({2, 4096, 128}, 2026);  // 2^20 values
  const GgmlCodec codec(type, 128);
  const std::vector<at::Tensor> parts = codec.encode(x);
  CHECK(nmse(x, codec.decode(parts)) == Catch::Approx(error).epsilon(.02));
  int64_t bytes = 0;
  for (const at::Tensor& part : parts) bytes += part.numel() * part.element_size();
  CHECK(8.0 * static_cast<double>(bytes) / static_cast<double>(x.numel()) == bits);
}

TEST_CASE("the first of two equal magnitudes says the sign of a ggml scale, and half of q8_0 goes away from zero") {
  at::Tensor x = at::zeros({1, 1, 32});
  x[0][0][4] = -16;
  x[0][0][9] = 16;
  CHECK(encoded(GgmlType::kQ4_0, x)[0].item<float>() == 2);
  CHECK(encoded(GgmlType::kQ4_0, -x)[0].item<float>() == -2);
  x.zero_();
  for (const auto& [channel, value] : {std::pair{0, 127.0}, {1, 0.5}, {2, 1.5}, {3, -0.5}, {4, -2.5}, {5, 0.49999997}})
    x[0][0][channel] = value;
  const at::Tensor codes = encoded(GgmlType::kQ8_0, x).back().view(at::kChar).flatten();
  CHECK(codes.narrow(0, 0, 6).equal(at::tensor({127, 1, 2, -1, -3, 0}, at::kChar)));
}

TEST_CASE("ggml blocks without a range decode to what they hold, beyond fp16 they saturate") {
  const GgmlType type = generated_block_type();
  INFO(name_of(type));
  const GgmlCodec codec(type, 64);
  const auto decoded = [&](double value) { return codec.decode(codec.encode(at::full({2, 3, 64}, value))); };
  CHECK(decoded(0).eq(0).all().item<bool>());
  CHECK(decoded(1e-41).eq(0).all().item<bool>());
  CHECK(decoded(1.5).allclose(at::full({2, 3, 64}, 1.5), 0, type == GgmlType::kNvfp4 ? 0 : 1e-3));
  const at::Tensor huge = decoded(1e9);
  CHECK(huge.isfinite().all().item<bool>());
  CHECK(huge.gt(2600).all().item<bool>());
}

TEST_CASE("f16 and bf16 caches round half to even and saturate") {
  const at::Tensor x =
      at::tensor({1.0 + 0x1p-11, 1.0 + 3 * 0x1p-11, 1.0 + 0x1p-8, 1e-9, 70000.0, -1e30, 3.4e38}, at::kFloat)
          .view({1, 1, 7});
  const GgmlCodec half(GgmlType::kF16, 7), brain(GgmlType::kBF16, 7);
  CHECK(half.decode(half.encode(x))
            .flatten()
            .equal(at::tensor({1.0, 1.0 + 0x1p-9, 1.0 + 0x1p-8, 0.0, 65504.0, -65504.0, 65504.0}, at::kFloat)));
  const at::Tensor brains = brain.decode(brain.encode(x)).flatten();
  CHECK(brains.narrow(0, 0, 3).equal(at::ones({3})));
  CHECK(brains.isfinite().all().item<bool>());
  CHECK(half.nominal_bits() == 16);
  CHECK_FALSE(half.exact());
}

TEST_CASE("ggml types refuse NaN and infinity with their place, ranges beyond float32 and foreign shapes") {
  const double bad = GENERATE(std::nan(""), HUGE_VAL, -HUGE_VAL);
  const GgmlType type = GENERATE(GgmlType::kQ8_0, GgmlType::kQ5_1, GgmlType::kIq4Nl, GgmlType::kNvfp4, GgmlType::kF16);
  INFO(name_of(type) << ", " << bad);
  const GgmlCodec codec(type, 64);
  at::Tensor x = normals({2, 20, 64}, 1);
  x[1][13][39].fill_(bad);
  CHECK_THROWS_WITH(codec.encode(x), ContainsSubstring("head 1, token 13, channel 39"));
  CHECK_THROWS_WITH(codec.encode_with_ops(x), ContainsSubstring("head 1, token 13, channel 39"));
  CHECK_THROWS(codec.encode(at::zeros({2, 20, 32})));
  if (type == GgmlType::kF16) return;
  x.fill_(3e38).select(2, 0).neg_();
  CHECK_THROWS_WITH(codec.encode(x), ContainsSubstring("half of float32's range"));
  CHECK_THROWS_WITH(codec.encode_with_ops(x), ContainsSubstring("half of float32's range"));
  CHECK_THROWS_WITH(GgmlCodec(type, 80), ContainsSubstring("no multiple of"));
}

struct Fixture {
  int64_t dim = 128;
  std::unique_ptr<Rope> rope;
  CacheContext context;
  at::Tensor k, v;

  Fixture() { resize(128); }
  void resize(int64_t head_dim) {
    dim = head_dim;
    rope = std::make_unique<Rope>(std::vector<float>(static_cast<size_t>(dim / 2), 0.01F), 1.0F, at::kCPU, 256);
    context = {2, 3, dim, at::kFloat, at::kCPU, rope.get(), 100};
    k = normals({3, 100, dim}, 1);
    v = normals({3, 100, dim}, 2);
  }
  std::unique_ptr<KvCache> filled(const Settings& settings) const {
    auto cache = make_scheme("ggml", settings)->make_cache(context);
    for (int64_t layer = 0; layer < context.layers; ++layer) cache->append(layer, {k, v, 0});
    return cache;
  }
};

TEST_CASE_METHOD(Fixture, "ggml bills the blocks of keys and values by role") {
  ByteLedger ledger;
  filled({{"k_type", "q5_1"}, {"v_type", "q4_0"}})->account(ledger);
  const int64_t blocks = 2 * 3 * 100 * dim / 32;  // layers × heads × tokens, 32 channels each; of keys, of values
  CHECK(ledger.live(ByteRole::kCodes) == blocks * (16 + 4) + blocks * 16);  // nibbles and fifth bits, nibbles
  CHECK(ledger.live(ByteRole::kScales) == blocks * 2 + blocks * 2);
  CHECK(ledger.live(ByteRole::kZeros) == blocks * 2);
  CHECK(ledger.live(ByteRole::kWindow) == 0);
  CHECK(ledger.live_bytes() == blocks * (24 + 18));  // sizes of block_q5_1 and block_q4_0
  ByteLedger wide;
  filled({{"k_type", "f16"}, {"v_type", "bf16"}})->account(wide);
  CHECK(wide.live(ByteRole::kCodes) == 2 * 2 * 3 * 100 * dim * 2);
  CHECK(wide.live_bytes() == wide.live(ByteRole::kCodes));
}

TEST_CASE_METHOD(Fixture, "ggml compresses every token at once, keys after RoPE") {
  const auto cache = filled({{"rotation", "off"}});
  const KvView view = cache->read(1);
  REQUIRE(view.keys.size() == 1);
  CHECK(view.keys[0].tokens == 100);
  CHECK(view.keys[0].rotation == KeyRotation::kApplied);
  CHECK_FALSE(view.keys[0].basis.defined());
  const GgmlCodec codec(GgmlType::kQ8_0, dim);
  CHECK(decode_runs(view.keys).equal(codec.decode(codec.encode(rope->apply(k, 0)))));
  CHECK(decode_runs(view.values).equal(codec.decode(codec.encode(v))));
}

TEST_CASE_METHOD(Fixture, "ggml rotates keys by the largest Hadamard that divides the head dim, values by that of 64") {
  const auto [head_dim, of_keys] = GENERATE(table<int64_t, int64_t>({{64, 64}, {128, 128}, {192, 64}, {256, 256}}));
  INFO("head dim " << head_dim);
  resize(head_dim);
  const auto cache = filled({{"k_type", "q8_0"}, {"v_type", "q4_0"}});
  const KvView view = cache->read(0);
  const std::pair<const KvRun&, int64_t> sides[] = {{view.keys[0], of_keys}, {view.values[0], 64}};
  for (const auto& [run, n] : sides) {
    REQUIRE(run.basis.sizes() == at::IntArrayRef({dim, dim}));
    const auto basis = run.basis.accessor<float, 2>();
    int64_t other = 0;
    for (int64_t i = 0; i < dim; ++i)
      for (int64_t j = 0; j < dim; ++j) {
        int64_t common = i % n & j % n, sign = 1;
        for (; common != 0; common &= common - 1) sign = -sign;
        const double expected = i / n == j / n ? static_cast<double>(sign) / std::sqrt(static_cast<double>(n)) : 0;
        other += std::abs(basis[i][j] - expected) > 1e-7;
      }
    CHECK(other == 0);
  }
  CHECK(nmse(rope->apply(k, 0), restored_runs(view.keys)) < 4e-5);
  CHECK(nmse(v, restored_runs(view.values)) == Catch::Approx(7.38e-3).epsilon(.05));
}

TEST_CASE_METHOD(Fixture, "the rotation of ggml is off where llama.cpp leaves it off") {
  const auto rotated = [this](const Settings& settings) {
    const auto cache = filled(settings);
    const KvView view = cache->read(0);
    return std::pair{view.keys[0].basis.defined(), view.values[0].basis.defined()};
  };
  CHECK(rotated({}) == std::pair{true, true});
  CHECK(rotated({{"rotation", "off"}}) == std::pair{false, false});
  CHECK(rotated({{"k_type", "f16"}}) == std::pair{false, true});
  CHECK(rotated({{"v_type", "bf16"}}) == std::pair{true, false});
  resize(96);
  CHECK(rotated({}) == std::pair{false, false});
}

// So many values that a sum in another order would move some of them over the border between two codes.
TEST_CASE_METHOD(Fixture, "a token's rotated ggml block does not depend on the tokens beside it") {
  constexpr int64_t kMany = 600;
  resize(GENERATE(128, 192, 256));
  INFO("head dim " << dim);
  rope = std::make_unique<Rope>(std::vector<float>(static_cast<size_t>(dim / 2), 0.01F), 1.0F, at::kCPU, kMany);
  context.rope = rope.get();
  context.layers = 1;
  const at::Tensor x = normals({3, kMany, dim}, 3);
  const auto whole = make_scheme("ggml", {})->make_cache(context),
             single = make_scheme("ggml", {})->make_cache(context);
  whole->append(0, {x, x, 0});
  for (int64_t t = 0; t < kMany; ++t) single->append(0, {x.narrow(1, t, 1), x.narrow(1, t, 1), t});
  CHECK(decode_runs(single->read(0).keys).equal(decode_runs(whole->read(0).keys)));
  CHECK(decode_runs(single->read(0).values).equal(decode_runs(whole->read(0).values)));
}

TEST_CASE_METHOD(Fixture, "the rotation of ggml spreads outlier channels") {
  v.slice(2, 0, dim, 32).add_(30);
  const at::Tensor plain = restored_runs(filled({{"v_type", "q4_0"}, {"rotation", "off"}})->read(0).values);
  const at::Tensor spread = restored_runs(filled({{"v_type", "q4_0"}})->read(0).values);
  CHECK(nmse(v, spread) < nmse(v, plain) / 2);
}

TEST_CASE_METHOD(Fixture, "a ggml type that is the model's own stores what came") {
  context.dtype = at::kHalf;
  k = k.to(at::kHalf);
  v = v.to(at::kHalf);
  const auto cache = filled({{"k_type", "f16"}, {"v_type", "bf16"}});
  const KvView view = cache->read(0);
  CHECK(view.keys[0].codec->exact());
  CHECK_FALSE(view.values[0].codec->exact());
  CHECK(decode_runs(view.keys).equal(rope->apply(k, 0).to(at::kFloat)));
}

TEST_CASE_METHOD(Fixture, "ggml types may differ by layer and count as what they pack") {
  Params params("ggml", "night.yaml", {{"k_type", {"q4_0", 3, {{1, 1, "q8_0", 4}}}}, {"v_type", {"q5_1", 5}}});
  std::unique_ptr<Scheme> scheme;
  for (const SchemeEntry& entry : scheme_table())
    if (entry.name == "ggml") scheme = entry.make(params);
  CHECK(scheme->nominal_bits(2).k == (4 + 8) / 2.0);
  CHECK(scheme->nominal_bits(4).k == (4 + 8 + 4 + 4) / 4.0);
  CHECK(scheme->nominal_bits(2).v == 5);
  CHECK(make_scheme("ggml", {{"k_type", "iq4_nl"}, {"v_type", "f16"}})->nominal_bits(2).k == 4);
  CHECK(make_scheme("ggml", {{"k_type", "iq4_nl"}, {"v_type", "f16"}})->nominal_bits(2).v == 16);
}

TEST_CASE_METHOD(Fixture, "ggml settings that do not fit are refused by name") {
  const auto refused = [this](const Settings& settings, const std::string& why) {
    INFO(describe("ggml", settings));
    CHECK_THROWS_MATCHES(make_scheme("ggml", settings)->make_cache(context), ConfigError,
                         MessageMatches(ContainsSubstring(why)));
  };
  refused({{"k_type", "q4_K"}}, "ggml.k_type = 'q4_K' is not one of f16, bf16, q8_0");
  refused({{"rotation", "on"}}, "rotation");
  resize(80);
  refused({{"v_type", "q4_0"}, {"k_type", "f16"}},
          "ggml.v_type = q4_0 needs a head dim that is a multiple of 32; the model's is 80");
  resize(96);
  refused({{"k_type", "nvfp4"}}, "ggml.k_type = nvfp4 needs a head dim that is a multiple of 64; the model's is 96");
}

}  // namespace
}  // namespace kvsweep::testing
