// Oracle: clustered codes against plain double loops, figures for normal values, and what reordering is for.
#include "schemes/codec/clustered.h"

#include <ATen/ATen.h>
#include <c10/util/BFloat16.h>
#include <c10/util/Half.h>

#include <algorithm>
#include <catch2/catch_approx.hpp>
#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include <cmath>
#include <numeric>

#include "harness/core/random.h"
#include "schemes/codec/affine.h"
#include "tests/support/torch/scheme_probe.h"

namespace kvsweep::testing {
namespace {

using Catch::Approx;
using Catch::Matchers::ContainsSubstring;

at::Tensor shorts(const std::vector<int64_t>& values) {
  return at::tensor(values, at::kLong).to(at::kShort);
}

// A random order, cut at random places.
ChannelClusters random_clusters(int64_t channels, int64_t count, uint64_t seed) {
  Rng rng(seed);
  std::vector<int64_t> order(static_cast<size_t>(channels)), inner(static_cast<size_t>(channels - 1));
  std::iota(order.begin(), order.end(), 0);
  std::iota(inner.begin(), inner.end(), 1);
  rng.shuffle(order);
  rng.shuffle(inner);
  std::vector<int64_t> starts(inner.begin(), inner.begin() + count - 1);
  starts.push_back(0);
  starts.push_back(channels);
  std::sort(starts.begin(), starts.end());
  return {shorts(order), shorts(starts)};
}

// --- the oracle ---------------------------------------------------------------------------------------------------

// A double that is the result of one operation on two values of the type, rounded to it: 53 bits are enough for the
// first rounding, to float32, to change nothing.
double round_to(double value, at::ScalarType type) {
  const auto x = static_cast<float>(value);
  if (type == at::kHalf) return static_cast<float>(c10::Half(std::clamp(x, -65504.0F, 65504.0F)));
  if (type == at::kBFloat16) return static_cast<float>(c10::BFloat16(x));
  return x;
}

// The nearest of all E4M3 values; of two, the one with an even code.
double e4m3(double value) {
  double best = 0;
  for (int code = 0; code <= 0x7e; ++code) {  // 0x7f is NaN
    const int exponent = code >> 3, mantissa = code & 7;
    const double one = exponent == 0 ? std::ldexp(mantissa, -9) : std::ldexp(8 + mantissa, exponent - 10);
    const double mine = std::abs(one - std::abs(value)), theirs = std::abs(best - std::abs(value));
    if (mine < theirs || (mine == theirs && code % 2 == 0)) best = one;
  }
  return std::copysign(best, value);
}

struct Cluster {
  double scale = 0, zero = 0;  // as stored
  std::vector<int64_t> codes;
  std::vector<double> values;  // decoded
};

// The header's formulas.
Cluster encode_cluster(std::vector<double> x, const ClusteredOptions& o) {
  const auto r = [&o](double value) { return round_to(value, o.arithmetic); };
  for (double& value : x) value = r(value);
  const auto [low, high] = std::minmax_element(x.begin(), x.end());
  const double top = static_cast<double>(o.levels - 1), clip = static_cast<float>(o.clip);
  double zero = r(*low * clip), scale = std::max(r(r(r(*high * clip) - zero) / top), r(1e-5F));
  Cluster made{o.fp8 ? e4m3(scale) : scale, o.fp8 ? e4m3(zero) : zero, {}, {}};
  if (o.codes_from_rounded) {
    zero = made.zero;
    scale = made.scale;
  }
  for (const double value : x) {
    const double q = scale == 0 ? 0 : std::nearbyint(std::clamp(r(r(value - zero) / scale), 0.0, top));
    made.codes.push_back(static_cast<int64_t>(q));
    made.values.push_back(r(r(q * made.scale) + made.zero));
  }
  return made;
}

// Offsets, a tiny and a huge token, constant channels, values on a coarse grid.
at::Tensor hard_input(int64_t heads, int64_t tokens, int64_t dim) {
  at::Tensor x = normals({heads, tokens, dim}, 11);
  x.select(2, 3).add_(25);
  x.select(2, dim - 1).fill_(-2.5);
  if (tokens < 9) return x;
  x.select(1, 2).mul_(1e-5);
  x.select(1, 3).mul_(3e-7);
  x.select(1, 4).mul_(9000);
  x.select(1, 5).fill_(1.25);
  x.select(1, 6).mul_(4).round_().div_(4);
  x.select(1, 7).abs_().add_(300);
  x.select(1, 8).mul_(60).clamp_(-300, 900);
  return x;
}

struct Shape {
  int64_t heads, tokens, dim, clusters;
};

TEST_CASE("clustered codes, metadata and values are those of plain loops, bit for bit") {
  const Shape shape = GENERATE(Shape{3, 41, 64, 6}, Shape{1, 1, 80, 3}, Shape{2, 30, 40, 79}, Shape{5, 9, 16, 1});
  ClusteredOptions o;
  o.levels = GENERATE(2, 3, 4, 8, 16, 100, 256);
  o.arithmetic = GENERATE(at::kHalf, at::kBFloat16, at::kFloat);
  o.fp8 = GENERATE(false, true);
  o.codes_from_rounded = GENERATE(false, true);
  o.clip = GENERATE(1.0, 0.92);
  o.trits = o.levels == 3 && shape.heads != 2;
  INFO(shape.heads << " heads of " << shape.dim << ", " << o.levels << " levels, arithmetic " << o.arithmetic
                   << (o.fp8 ? ", fp8" : "") << (o.codes_from_rounded ? ", from rounded" : "") << ", clip " << o.clip);
  const int64_t channels = shape.heads * shape.dim;
  const at::Tensor x = hard_input(shape.heads, shape.tokens, shape.dim);
  const ChannelClusters clusters = random_clusters(channels, shape.clusters, 5);
  const ClusteredCodec codec(o, shape.heads, shape.dim, clusters);
  const std::vector<at::Tensor> parts = codec.encode(x);
  const at::Tensor codes = codec.unpack(parts[0]), decoded = codec.decode(parts);
  REQUIRE(decoded.scalar_type() == at::kFloat);
  const at::Tensor scale = parts[1].to(at::kFloat), zero = parts[2].to(at::kFloat);
  const auto q = codes.accessor<uint8_t, 3>();
  const auto in = x.accessor<float, 3>(), y = decoded.accessor<float, 3>(), s = scale.accessor<float, 3>(),
             z = zero.accessor<float, 3>();
  const auto order = clusters.order.accessor<int16_t, 1>(), starts = clusters.starts.accessor<int16_t, 1>();
  int64_t values = 0, other_codes = 0, other_metadata = 0, other_values = 0;
  for (int64_t t = 0; t < shape.tokens; ++t)
    for (int64_t k = 0; k < shape.clusters; ++k) {
      std::vector<double> members;
      for (int64_t c = starts[k]; c < starts[k + 1]; ++c)
        members.push_back(in[order[c] / shape.dim][t][order[c] % shape.dim]);
      const Cluster expected = encode_cluster(members, o);
      other_metadata += s[0][t][k] != static_cast<float>(expected.scale);
      other_metadata += z[0][t][k] != static_cast<float>(expected.zero);
      for (int64_t c = starts[k]; c < starts[k + 1]; ++c, ++values) {
        const auto at = static_cast<size_t>(c - starts[k]);
        other_codes += q[0][t][c] != expected.codes[at];
        other_values += y[order[c] / shape.dim][t][order[c] % shape.dim] != static_cast<float>(expected.values[at]);
      }
    }
  REQUIRE(values == x.numel());
  CHECK(other_metadata == 0);
  CHECK(other_codes == 0);
  CHECK(other_values == 0);
}

TEST_CASE("tensor operations give the bits of the CPU loops for clusters") {
  ClusteredOptions o;
  o.levels = GENERATE(2, 3, 4, 16, 256);
  o.trits = o.levels == 3 && GENERATE(false, true);
  o.arithmetic = GENERATE(at::kHalf, at::kBFloat16, at::kFloat);
  o.fp8 = GENERATE(false, true);
  o.codes_from_rounded = GENERATE(false, true);
  o.clip = 0.92;
  const ChannelClusters clusters =
      GENERATE(true, false) ? random_clusters(3 * 24, 5, 8) : ChannelClusters::neighbours(3 * 24, 18);
  const at::Tensor x = hard_input(3, 50, 24);
  std::vector<at::Device> devices = {at::kCPU};
  if (at::hasCUDA()) devices.emplace_back(at::kCUDA, 0);
  for (const at::Device device : devices) {
    INFO(device.str() << ", " << o.levels << " levels, arithmetic " << o.arithmetic << (o.fp8 ? ", fp8" : ""));
    const ClusteredCodec codec(o, 3, 24, clusters, device);
    const std::vector<at::Tensor> expected = codec.encode(x), parts = codec.encode_with_ops(x.to(device));
    for (size_t i = 0; i < parts.size(); ++i) {
      CHECK(parts[i].scalar_type() == expected[i].scalar_type());
      CHECK(parts[i].to(at::kCPU, at::kFloat).equal(expected[i].to(at::kFloat)));
    }
    CHECK(codec.decode_with_ops(parts).cpu().equal(codec.decode(expected)));
    const at::Tensor nothing = x.narrow(1, 0, 0);
    const std::vector<at::Tensor> none = codec.encode_with_ops(nothing.to(device));
    for (size_t i = 0; i < none.size(); ++i) CHECK(none[i].sizes() == codec.encode(nothing)[i].sizes());
    CHECK(codec.decode_with_ops(none).sizes() == at::IntArrayRef({3, 0, 24}));
  }
}

// --- relations ----------------------------------------------------------------------------------------------------

TEST_CASE("without clip, order and narrow types it is rounding to nearest over all heads") {
  const int64_t bits = GENERATE(1, 2, 3, 4, 8), group = GENERATE(24, 32, 96, 192);
  ClusteredOptions o;
  o.levels = int64_t{1} << bits;
  o.arithmetic = at::kFloat;
  const ClusteredCodec codec(o, 3, 64, ChannelClusters::neighbours(192, group));
  const AffineCodec affine({bits, group, GroupAxis::kToken, false, at::kFloat}, 192);
  const at::Tensor x = normals({3, 50, 64}, 2);
  const at::Tensor side_by_side = x.transpose(0, 1).reshape({1, 50, 192});
  const std::vector<at::Tensor> parts = codec.encode(x), expected = affine.encode(side_by_side);
  for (size_t i = 0; i < parts.size(); ++i) CHECK(parts[i].equal(expected[i]));
  CHECK(codec.decode(parts).transpose(0, 1).reshape({1, 50, 192}).equal(affine.decode(expected)));
}

TEST_CASE("the order inside a cluster and the order of clusters change no value") {
  ClusteredOptions o;
  o.levels = 3;
  o.clip = 0.92;
  const at::Tensor x = normals({2, 30, 64}, 4);
  const ChannelClusters clusters = random_clusters(128, 4, 9);
  std::vector<at::Tensor> turned, shuffled;  // clusters read backwards; in the order 2, 0, 3, 1
  std::vector<int64_t> starts = {0};
  const auto at = clusters.starts.accessor<int16_t, 1>();
  for (const int64_t k : {0, 1, 2, 3}) turned.push_back(clusters.order.narrow(0, at[k], at[k + 1] - at[k]).flip(0));
  for (const int64_t k : {2, 0, 3, 1}) {
    shuffled.push_back(clusters.order.narrow(0, at[k], at[k + 1] - at[k]));
    starts.push_back(starts.back() + at[k + 1] - at[k]);
  }
  const auto decoded = [&](const ChannelClusters& by) {
    const ClusteredCodec codec(o, 2, 64, by);
    return codec.decode(codec.encode(x));
  };
  const at::Tensor expected = decoded(clusters);
  CHECK(decoded({at::cat(turned), clusters.starts}).equal(expected));
  CHECK(decoded({at::cat(shuffled), shorts(starts)}).equal(expected));
}

TEST_CASE("equal clusters are groups of neighbours among permuted channels") {
  ClusteredOptions o;
  o.clip = 0.92;
  const at::Tensor x = normals({2, 30, 64}, 4);
  const at::Tensor order = random_clusters(128, 1, 3).order;
  const ClusteredCodec clustered(o, 2, 64, {order, at::arange(0, 129, 32, at::kShort)});
  const ClusteredCodec neighbours(o, 1, 128, ChannelClusters::neighbours(128, 32));
  const at::Tensor permuted = x.transpose(0, 1).reshape({1, 30, 128}).index_select(2, order.to(at::kLong)).contiguous();
  const auto parts = clustered.encode(x), expected = neighbours.encode(permuted);
  for (size_t i = 0; i < parts.size(); ++i) CHECK(parts[i].equal(expected[i]));
  const at::Tensor back = clustered.decode(parts).transpose(0, 1).reshape({1, 30, 128});
  CHECK(back.index_select(2, order.to(at::kLong)).equal(neighbours.decode(expected)));
}

TEST_CASE("each token's clusters are its own") {
  ClusteredOptions o;
  o.clip = 0.92;
  const ClusteredCodec codec(o, 3, 64, random_clusters(192, 3, 1));
  const at::Tensor x = normals({3, 50, 64}, 8);
  at::Tensor changed = x.clone();
  changed.select(1, 20).mul_(100);
  const at::Tensor a = codec.decode(codec.encode(x)), b = codec.decode(codec.encode(changed));
  CHECK(a.narrow(1, 0, 20).equal(b.narrow(1, 0, 20)));
  CHECK(a.narrow(1, 21, 29).equal(b.narrow(1, 21, 29)));
  CHECK(codec.decode(codec.encode(x.narrow(1, 20, 1))).equal(a.narrow(1, 20, 1)));
}

TEST_CASE("views with gaps and narrow types encode and decode like contiguous float32") {
  ClusteredOptions o;
  o.clip = 0.92;
  const ClusteredCodec codec(o, 3, 64, random_clusters(192, 5, 1));
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
  const auto turned = codec.encode(x.transpose(1, 2).contiguous().transpose(1, 2)),
             half = codec.encode(x.to(at::kHalf));
  for (size_t i = 0; i < parts.size(); ++i) {
    CHECK(turned[i].equal(parts[i]));
    CHECK(half[i].equal(parts[i]));  // the arithmetic rounds its input to fp16 anyway
  }
}

// --- figures ------------------------------------------------------------------------------------------------------

// Section 5 of the project's specification: NMSE of i.i.d. N(0,1), 128 channels, within 2 %; 0: no figure.
struct Figure {
  int64_t levels;
  double clip, own, fp8;
};

TEST_CASE("the error of clipped clusters on normal values is the published one") {
  const Figure f = GENERATE(Figure{4, 1, .2499, .2587}, Figure{4, .96, .2297, .2385}, Figure{4, .92, .2108, .2191},
                            Figure{4, .8, .1619, .1691}, Figure{4, .6, .1185, .1227}, Figure{3, 1, .530, .5415},
                            Figure{3, .92, .4575, .468}, Figure{3, .6, .2216, 0}, Figure{3, .5, .1926, 0});
  INFO(f.levels << " levels, clip " << f.clip);
  static const at::Tensor x = normals({2, 8192, 64}, 2026);  // 2^20 values
  ClusteredOptions o;
  o.levels = f.levels;
  o.clip = f.clip;
  o.arithmetic = GENERATE(at::kHalf, at::kFloat);
  const auto loss = [&] {
    const ClusteredCodec codec(o, 2, 64, ChannelClusters::neighbours(128, 128));
    return nmse(x, codec.decode(codec.encode(x)));
  };
  const double own = loss();
  CHECK(own == Approx(f.own).epsilon(.02));
  o.fp8 = true;
  const double fp8 = loss();
  if (f.fp8 > 0) CHECK(fp8 == Approx(f.fp8).epsilon(.02));
  o.codes_from_rounded = true;
  CHECK(loss() < fp8);
}

TEST_CASE("the error of clusters falls as levels rise") {
  const at::Tensor x = normals({3, 500, 64}, 6);
  const double clip = GENERATE(1.0, 0.92);
  double before = std::numeric_limits<double>::infinity();
  for (const int64_t levels : {2, 3, 4, 8, 16, 32, 64, 128, 256}) {
    ClusteredOptions o;
    o.levels = levels;
    o.clip = clip;
    const ClusteredCodec codec(o, 3, 64, ChannelClusters::neighbours(192, 64));
    const double loss = nmse(x, codec.decode(codec.encode(x)));
    CHECK(loss < before);
    before = loss;
  }
}

TEST_CASE("bringing channels of one range together spares the narrow ones the steps of the wide ones") {
  at::Tensor x = normals({2, 500, 64}, 12);
  x.slice(2, 0, 64, 2).mul_(30);  // every other channel
  const at::Tensor every = at::arange(128);
  const at::Tensor order =
      at::cat({every.masked_select(every.remainder(2).eq(0)), every.masked_select(every.remainder(2).eq(1))});
  ClusteredOptions o;
  const auto narrow_loss = [&](const ChannelClusters& clusters) {
    const ClusteredCodec codec(o, 2, 64, clusters);
    return (x - codec.decode(codec.encode(x))).slice(2, 1, 64, 2).square().mean().item<double>();
  };
  const double apart = narrow_loss(ChannelClusters::neighbours(128, 64));
  const double joined = narrow_loss({order.to(at::kShort), at::tensor({0, 64, 128}, at::kShort)});
  CHECK(apart / joined > 300);  // the steps are 30 times finer, the error 900 times smaller where codes vary
  CHECK(joined == Approx(.2018).epsilon(.05));  // that of 2 bits in groups of 64
}

// --- layout and edges ---------------------------------------------------------------------------------------------

// One head of eight channels; cluster 0 holds channels 7 6 5 4, cluster 1 the others.
TEST_CASE("worked codes of two clusters") {
  const at::Tensor x = at::tensor({0.0, 1.0, 2.0, 3.0, -4.0, -2.6, -1.0, 2.0}, at::kFloat).view({1, 1, 8});
  ClusteredOptions o;
  o.clip = 0.5;
  const ClusteredCodec codec(o, 1, 8, {shorts({7, 6, 5, 4, 0, 1, 2, 3}), shorts({0, 4, 8})});
  const std::vector<at::Tensor> parts = codec.encode(x);
  // -4 .. 2 clipped to -2 .. 1: scale 1; 0 .. 3 to 0 .. 1.5: scale 0.5.
  CHECK(parts[1].to(at::kFloat).equal(at::tensor({1.0, 0.5}, at::kFloat).view({1, 1, 2})));
  CHECK(parts[2].to(at::kFloat).equal(at::tensor({-2.0, 0.0}, at::kFloat).view({1, 1, 2})));
  CHECK(codec.unpack(parts[0]).equal(at::tensor({3, 1, 0, 0, 0, 2, 3, 3}, at::kByte).view({1, 1, 8})));
  CHECK(parts[0].equal(at::tensor({3 + 4 * 1, 4 * 2 + 16 * 3 + 64 * 3}, at::kByte).view({1, 1, 2})));
  CHECK(codec.decode(parts).flatten().equal(at::tensor({0.0, 1.0, 1.5, 1.5, -2.0, -2.0, -1.0, 1.0}, at::kFloat)));
}

TEST_CASE("five ternary codes share a byte, lowest digit first") {
  const at::Tensor x = at::tensor({2.0, 1.0, 0.0, 0.0, 1.0, 2.0, 1.0}, at::kFloat).view({1, 1, 7});
  ClusteredOptions o;
  o.levels = 3;
  const ClusteredCodec slots(o, 1, 7, ChannelClusters::neighbours(7, 7));
  o.trits = true;
  const ClusteredCodec trits(o, 1, 7, ChannelClusters::neighbours(7, 7));
  CHECK(slots.encode(x)[0].equal(at::tensor({2 + 4 * 1, 1 + 4 * 2 + 16 * 1}, at::kByte).view({1, 1, 2})));
  CHECK(trits.encode(x)[0].equal(at::tensor({2 + 3 * 1 + 81 * 1, 2 + 3 * 1}, at::kByte).view({1, 1, 2})));
  CHECK(trits.decode(trits.encode(x)).equal(x));
  CHECK(slots.nominal_bits() == 2);
  CHECK(trits.nominal_bits() == 1.6);
}

TEST_CASE("bytes of a token are those that the header states") {
  struct Bytes {
    int64_t levels;
    bool trits, fp8;
    int64_t bytes;
  };
  constexpr int64_t kChannels = 192, kClusters = 3;
  const Bytes b = GENERATE(Bytes{4, false, false, kChannels * 2 / 8 + 2 * kClusters * 2},
                           Bytes{4, false, true, kChannels * 2 / 8 + 2 * kClusters * 1},
                           Bytes{3, false, true, kChannels * 2 / 8 + 2 * kClusters * 1},
                           Bytes{3, true, true, 39 + 2 * kClusters * 1},  // 192 codes, five in a byte
                           Bytes{8, false, false, kChannels * 3 / 8 + 2 * kClusters * 2});
  ClusteredOptions o;
  o.levels = b.levels;
  o.trits = b.trits;
  o.fp8 = b.fp8;
  const ClusteredCodec codec(o, 3, 64, random_clusters(kChannels, kClusters, 2));
  int64_t bytes = 0;
  for (const at::Tensor& part : codec.encode(normals({3, 10, 64}, 1))) bytes += part.numel() * part.element_size();
  CHECK(bytes == 10 * b.bytes);
}

TEST_CASE("a constant cluster decodes to its clipped value and what the least scale adds") {
  const double value = GENERATE(0.0, 1.25, -3.0, 65504.0, 1e-6);
  ClusteredOptions o;
  o.levels = GENERATE(2, 3, 4, 256);
  o.clip = GENERATE(1.0, 0.5);
  o.arithmetic = GENERATE(at::kHalf, at::kFloat);
  INFO(value << " clipped to " << o.clip);
  const ClusteredCodec codec(o, 2, 16, ChannelClusters::neighbours(32, 16));
  const std::vector<at::Tensor> parts = codec.encode(at::full({2, 3, 16}, value, at::kFloat));
  CHECK(parts[1].to(at::kFloat).eq(round_to(1e-5F, o.arithmetic)).all().item<bool>());
  const at::Tensor added = codec.decode(parts) - round_to(value * o.clip, o.arithmetic);
  const bool above = value > 0 && o.clip < 1;  // over the range that clip left
  CHECK(added.ge(0).all().item<bool>());
  CHECK(added.le(above ? static_cast<double>(o.levels) * 1.1e-5 : 0).all().item<bool>());
}

TEST_CASE("E4M3 metadata flushes small scales to zero and saturates large minima") {
  ClusteredOptions o;
  o.fp8 = true;
  o.codes_from_rounded = GENERATE(false, true);
  o.arithmetic = GENERATE(at::kHalf, at::kFloat);
  const ChannelClusters one = ChannelClusters::neighbours(32, 32);
  const ClusteredCodec codec(o, 1, 32, one);
  const at::Tensor small = normals({1, 20, 32}, 1) * 1e-4;
  const std::vector<at::Tensor> flushed = codec.encode(small);
  CHECK(flushed[1].to(at::kFloat).eq(0).all().item<bool>());
  CHECK(codec.decode(flushed).eq(flushed[2].to(at::kFloat).view({1, 20, 1})).all().item<bool>());
  if (o.codes_from_rounded) CHECK(flushed[0].eq(0).all().item<bool>());
  const at::Tensor large = normals({1, 20, 32}, 2) * 20 - 1000;
  const std::vector<at::Tensor> saturated = codec.encode(large);
  CHECK(saturated[2].to(at::kFloat).eq(-448).all().item<bool>());
  CHECK(codec.decode(saturated).isfinite().all().item<bool>());
  o.saturate = false;
  const ClusteredCodec original(o, 1, 32, one);
  CHECK(original.decode(original.encode(large)).isnan().all().item<bool>());
  CHECK(original.encode(large * 0.4)[2].to(at::kFloat).isfinite().all().item<bool>());
}

TEST_CASE("values beyond fp16 saturate in fp16 arithmetic and do not in float32") {
  const at::Tensor x = normals({2, 8, 32}, 3) * 1e6;
  ClusteredOptions o;
  o.levels = 16;
  const ChannelClusters one = ChannelClusters::neighbours(64, 64);
  const ClusteredCodec half(o, 2, 32, one);
  CHECK(half.decode(half.encode(x)).isfinite().all().item<bool>());
  o.arithmetic = at::kFloat;
  const ClusteredCodec single(o, 2, 32, one);
  CHECK(nmse(x, single.decode(single.encode(x))) < .01);
}

TEST_CASE("clusters refuse NaN and infinity with their place") {
  const double bad = GENERATE(std::nan(""), HUGE_VAL, -HUGE_VAL);
  const int64_t channel = GENERATE(0, 7, 39);
  ClusteredOptions o;
  o.arithmetic = GENERATE(at::kHalf, at::kFloat, at::kBFloat16);
  const ClusteredCodec codec(o, 2, 40, random_clusters(80, 3, 4));
  at::Tensor x = normals({2, 20, 40}, 1);
  x[1][13][channel].fill_(bad);
  const std::string place = "head 1, token 13, channel " + std::to_string(channel);
  CHECK_THROWS_WITH(codec.encode(x), ContainsSubstring(place));
  CHECK_THROWS_WITH(codec.encode_with_ops(x), ContainsSubstring(place));
  if (o.arithmetic == at::kHalf) return;
  const at::Tensor wide = at::full({2, 20, 40}, 3e38);
  wide.select(2, 0).neg_();
  CHECK_THROWS_WITH(codec.encode(wide), ContainsSubstring("half of float32's range"));
  CHECK_THROWS_WITH(codec.encode_with_ops(wide), ContainsSubstring("half of float32's range"));
}

TEST_CASE("clusters and options outside the contract are refused") {
  const auto refused = [](const ClusteredOptions& o, const ChannelClusters& clusters, const std::string& why) {
    CHECK_THROWS_WITH(ClusteredCodec(o, 2, 16, clusters), ContainsSubstring(why));
  };
  const ChannelClusters good = ChannelClusters::neighbours(32, 16);
  const auto with = [](const auto& change) {
    ClusteredOptions o;
    change(o);
    return o;
  };
  refused(with([](auto& o) { o.levels = 1; }), good, "outside [2, 256]");
  refused(with([](auto& o) { o.levels = 257; }), good, "outside [2, 256]");
  refused(with([](auto& o) { o.trits = true; }), good, "not stored as trits");
  refused(with([](auto& o) { o.clip = 0; }), good, "outside (0, 1]");
  refused(with([](auto& o) { o.clip = 1.01; }), good, "outside (0, 1]");
  refused(with([](auto& o) { o.arithmetic = at::kDouble; }), good, "arithmetic in Double");
  refused({}, ChannelClusters::neighbours(48, 16), "0 to 48 of 32");
  refused({}, {{}, shorts({0, 16, 16, 32})}, "a cluster is empty");
  refused({}, {{}, shorts({0, 20, 16, 32})}, "a cluster is empty");
  refused({}, {{}, shorts({1, 32})}, "1 to 32 of 32");
  refused({}, {{}, at::tensor({0, 32}, at::kLong)}, "int16");
  refused({}, {at::arange(31, at::kShort), shorts({0, 32})}, "no permutation");
  refused({}, {at::zeros({32}, at::kShort), shorts({0, 32})}, "no permutation");
  CHECK_THROWS_WITH(ChannelClusters::neighbours(32, 12), ContainsSubstring("does not divide 32"));
  const ClusteredCodec codec({}, 2, 16, good);
  CHECK_THROWS_WITH(codec.encode(at::zeros({2, 5, 17})), ContainsSubstring("needs [2, T, 16]"));
  CHECK_THROWS(codec.encode(at::zeros({3, 5, 16})));
}

}  // namespace
}  // namespace kvsweep::testing
