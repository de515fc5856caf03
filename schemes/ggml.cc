#include <ATen/ATen.h>
#include <fmt/format.h>

#include <cmath>

#include "harness/core/error.h"
#include "harness/core/scheme.h"
#include "schemes/codec/exact.h"
#include "schemes/codec/ggml_block.h"
#include "schemes/codec/hadamard.h"
#include "schemes/parts/streamed_cache.h"

// Cache types of llama.cpp (--cache-type-k, --cache-type-v): blocks along the head dim of keys after RoPE and of
// values, every token compressed as it comes, the one being decoded too. Arithmetic: schemes/codec/ggml_block.h.
//
// rotation: auto. Since pull request 21038 (April 2026) llama.cpp multiplies keys and queries, and values with the
// inverse on attention's output, by an orthonormal Hadamard matrix where the type is quantized and the head dim is a
// multiple of 64 (src/llama-kv-cache.cpp: attn_rot_k, attn_rot_v). Keys: the largest power of two that divides the head
// dim (build_input_k_rot); values: 64 (build_input_v_rot); the head dim is cut into blocks of that size. `off` is
// LLAMA_ATTN_ROT_DISABLE=1 and every version before.
//
// Code differs: the default type there is f16, which compresses nothing in a model of 16 bits; here q8_0. Types may
// differ by layer here. nvfp4 is a type of ggml that llama.cpp does not take for its cache. The rotation's sums are
// float32 butterflies; the original multiplies with the matrix, in the order of its backend.

namespace kvsweep {
namespace {

std::vector<std::string> type_names() {
  return {kGgmlTypeNames.begin(), kGgmlTypeNames.end()};
}

// Keys or values.
struct Side {
  const char* key;  // of the parameter
  PerLayer<std::string> types;
};

double mean_bits(const PerLayer<std::string>& types, int64_t layers) {
  double sum = 0;
  for (const std::string& name : types.values(layers)) sum += static_cast<double>(ggml_payload_bits(ggml_type(name)));
  return sum / static_cast<double>(layers);
}

// Hadamard matrices of n along the diagonal of [dim, dim], orthonormal; n = 0: none.
struct Rotation {
  int64_t n = 0;
  at::Tensor basis{};

  Rotation() = default;
  Rotation(int64_t size, int64_t dim, at::Device device) : n(size) {
    const std::vector<at::Tensor> blocks(static_cast<size_t>(dim / n), hadamard_matrix(n) * unit());
    basis = at::block_diag(blocks).to(device);
  }
  float unit() const { return 1 / std::sqrt(static_cast<float>(n)); }
  at::Tensor operator()(const at::Tensor& x) const {
    return hadamard_transform(x.reshape({x.size(0), x.size(1), x.size(2) / n, n})).mul_(unit()).view(x.sizes());
  }
};

class Ggml final : public Scheme {
 public:
  explicit Ggml(Params& params);

  NominalBits nominal_bits(int64_t layers) const override {
    return {mean_bits(keys_.types, layers), mean_bits(values_.types, layers)};
  }
  CompressedFrom compressed_from(int64_t context_tokens, int64_t tokens) const override {
    const at::Tensor from = Residency{}.compressed_from(context_tokens, tokens);
    return {from, from};
  }
  std::unique_ptr<KvCache> make_cache(const CacheContext& context) const override;

 private:
  StreamPlan stream(const Side& side, const std::string& name, const Rotation& rotation,
                    const CacheContext& context) const;

  Side keys_, values_;
  bool rotate_ = true;
};

Ggml::Ggml(Params& params) : keys_{"k_type", {}}, values_{"v_type", {}} {
  keys_.types = params.layer_choices("k_type", "q8_0", type_names(), "block type of keys");
  values_.types = params.layer_choices("v_type", "q8_0", type_names(), "block type of values");
  rotate_ =
      params.choice("rotation", "auto", {"auto", "off"},
                    "auto: Hadamard of K, Q and V where the type is quantized and 64 divides the head dim") == "auto";
  params.finish();
}

StreamPlan Ggml::stream(const Side& side, const std::string& name, const Rotation& rotation,
                        const CacheContext& context) const {
  const GgmlType type = ggml_type(name);
  const int64_t block = ggml_block_values(type);
  if (context.head_dim % block != 0)
    throw ConfigError(fmt::format("ggml.{} = {} needs a head dim that is a multiple of {}; the model's is {}", side.key,
                                  name, block, context.head_dim));
  if (!ggml_quantized(type) && context.dtype == (type == GgmlType::kF16 ? at::kHalf : at::kBFloat16))
    return {std::make_shared<ExactCodec>(context.dtype), {}};
  const auto codec = std::make_shared<GgmlCodec>(type, context.head_dim);
  if (!ggml_quantized(type) || rotation.n == 0) return {codec, {}};
  return {codec, {}, rotation.basis, rotation};
}

std::unique_ptr<KvCache> Ggml::make_cache(const CacheContext& context) const {
  const auto k_types = keys_.types.values(context.layers), v_types = values_.types.values(context.layers);
  const int64_t dim = context.head_dim;
  Rotation of_keys, of_values;
  if (rotate_ && dim % 64 == 0) {
    of_keys = Rotation(dim & -dim, dim, context.device);
    of_values = Rotation(64, dim, context.device);
  }
  std::vector<LayerPlan> plans;
  for (size_t layer = 0; layer < k_types.size(); ++layer)
    plans.push_back(
        {stream(keys_, k_types[layer], of_keys, context), stream(values_, v_types[layer], of_values, context)});
  return std::make_unique<StreamedCache>(context, plans);
}

}  // namespace

SchemeEntry ggml_entry() {
  return {"ggml", "cache types of llama.cpp: q8_0, q4_0, q5_1, iq4_nl and others, with or without its rotation",
          [](Params& params) -> std::unique_ptr<Scheme> { return std::make_unique<Ggml>(params); }};
}

}  // namespace kvsweep
