#include "harness/run/bit_factorial.h"

#include <ATen/ATen.h>

#include <utility>

#include "schemes/codec/affine.h"
#include "schemes/codec/exact.h"
#include "schemes/parts/streamed_cache.h"

namespace kvsweep {
namespace {

constexpr int64_t kBits[] = {kFullBits, 8, 4, 2};

class MixedBits final : public Scheme {
 public:
  MixedBits(int64_t k_bits, int64_t v_bits, int64_t group) : k_bits_(k_bits), v_bits_(v_bits), group_(group) {}

  SchemeTraits traits() const override { return {.lossless = k_bits_ == kFullBits && v_bits_ == kFullBits}; }
  NominalBits nominal_bits(int64_t) const override {
    return {static_cast<double>(k_bits_), static_cast<double>(v_bits_)};
  }
  CompressedFrom compressed_from(int64_t context_tokens, int64_t tokens) const override {
    const auto side = [&](int64_t bits) {
      return bits == kFullBits ? at::full({tokens}, kNeverCompressed, at::kLong)
                               : Residency{}.compressed_from(context_tokens, tokens);
    };
    return {side(k_bits_), side(v_bits_)};
  }
  std::unique_ptr<KvCache> make_cache(const CacheContext& context) const override {
    const auto stream = [&](int64_t bits) -> StreamPlan {
      if (bits == kFullBits) return {std::make_shared<ExactCodec>(context.dtype), {}};
      AffineOptions options;
      options.bits = bits;
      options.group = group_;
      return {std::make_shared<AffineCodec>(options, context.head_dim), {}};
    };
    const LayerPlan plan{stream(k_bits_), stream(v_bits_), KeyRotation::kApplied};
    return std::make_unique<StreamedCache>(context, std::vector<LayerPlan>(static_cast<size_t>(context.layers), plan));
  }

 private:
  int64_t k_bits_, v_bits_, group_;
};

}  // namespace

std::unique_ptr<Scheme> mixed_bits(int64_t k_bits, int64_t v_bits, int64_t group) {
  return std::make_unique<MixedBits>(k_bits, v_bits, group);
}

BitFactorial bench_factorial(const BenchContext& context, const std::vector<int64_t>& lengths, int64_t group,
                             int repeats) {
  std::vector<std::unique_ptr<Scheme>> owned;
  std::vector<const Scheme*> schemes;
  BitFactorial result;
  for (const int64_t k_bits : kBits)
    for (const int64_t v_bits : kBits) {
      owned.push_back(mixed_bits(k_bits, v_bits, group));
      schemes.push_back(owned.back().get());
      result.points.push_back({k_bits, v_bits, {}});
    }
  std::vector<ItlCost> costs = bench_itl(context, schemes, lengths, repeats);
  std::vector<std::vector<double>> rows;
  std::vector<double> itl, attend;
  for (size_t i = 0; i < costs.size(); ++i) {
    rows.push_back({1, costs[i].bytes.key_bits, costs[i].bytes.value_bits});
    itl.push_back(costs[i].itl.coefficients[1]);
    attend.push_back(costs[i].attend.coefficients[1]);
    result.points[i].cost = std::move(costs[i]);
  }
  result.itl = least_squares(rows, itl);
  result.attend = least_squares(rows, attend);
  return result;
}

}  // namespace kvsweep
