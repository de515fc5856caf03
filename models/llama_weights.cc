#include <ATen/ATen.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include "harness/core/error.h"
#include "models/llama_layer.h"

namespace kvsweep {
namespace {

// Reads tensors one at a time straight into the storage that the model computes with.
class WeightReader {
 public:
  WeightReader(const WeightSource& source, ModelOptions options, std::vector<std::string>& warnings)
      : source_(source), options_(options), warnings_(warnings) {}

  // Tensors of equal width below one another as one.
  at::Tensor stacked(const std::vector<std::string>& names, const std::vector<int64_t>& rows,
                     const std::vector<int64_t>& row_shape, at::ScalarType dtype) {
    std::vector<int64_t> shape = {0};
    for (const int64_t count : rows) shape[0] += count;
    shape.insert(shape.end(), row_shape.begin(), row_shape.end());
    const at::Tensor all = at::empty(shape, at::TensorOptions().dtype(dtype).device(options_.device));
    int64_t first = 0;
    for (size_t i = 0; i < names.size(); ++i) {
      read(names[i], all.narrow(0, first, rows[i]));
      first += rows[i];
    }
    return all;
  }

  at::Tensor matrix(const std::string& name, int64_t rows, int64_t columns) {
    return stacked({name}, {rows}, {columns}, options_.dtype);
  }

  // Norm weights stay float32: norms are computed in it.
  at::Tensor norm(const std::string& name, int64_t width) { return stacked({name}, {width}, {}, at::kFloat); }

 private:
  void read(const std::string& name, const at::Tensor& target) {
    const std::vector<int64_t> shape = source_.shape(name);
    if (at::IntArrayRef(shape) != target.sizes())
      throw DataError(fmt::format("{}: tensor {} has shape [{}], the model's config needs [{}]", source_.place(name),
                                  name, fmt::join(shape, ", "), fmt::join(target.sizes(), ", ")));
    const bool direct = options_.device.is_cpu() && target.scalar_type() == at::kFloat;
    const at::Tensor values = direct ? target : at::empty(target.sizes(), at::TensorOptions().dtype(at::kFloat));
    source_.read(name, values.mutable_data_ptr<float>());
    check_finite(name, values);
    if (!direct) target.copy_(values);
  }

  // A finite sum proves that every value is finite; only an odd one is counted.
  void check_finite(const std::string& name, const at::Tensor& values) {
    if (std::isfinite(values.sum().item<float>())) return;
    const int64_t bad = at::isfinite(values).logical_not_().sum().item<int64_t>();
    if (bad > 0) warnings_.push_back(fmt::format("{}: {} values", name, bad));
  }

  const WeightSource& source_;
  ModelOptions options_;
  std::vector<std::string>& warnings_;
};

}  // namespace

Llama::Llama(LlamaConfig config, const WeightSource& weights, ModelOptions options)
    : config_(std::move(config)), options_(options) {
  const RopeTable table = rope_table(config_.rope, config_.head_dim, config_.max_positions);
  rope_ = std::make_unique<Rope>(table.inv_freq, table.attention_scaling, options_.device, config_.max_positions);
  WeightReader reader(weights, options_, warnings_);
  const int64_t hidden = config_.hidden, inner = config_.intermediate;
  const int64_t q_rows = config_.heads * config_.head_dim, kv_rows = config_.kv_heads * config_.head_dim;
  embedding_ = reader.matrix("model.embed_tokens.weight", config_.vocab, hidden);
  for (int64_t index = 0; index < config_.layers; ++index) {
    const std::string prefix = fmt::format("model.layers.{}.", index);
    const std::string attention = prefix + "self_attn.", mlp = prefix + "mlp.";
    const auto stacked = [&](const std::string& at, const std::vector<std::string>& names, const std::string& kind,
                             const std::vector<int64_t>& rows, const std::vector<int64_t>& row_shape) {
      std::vector<std::string> full;
      for (const std::string& name : names) full.push_back(at + name + kind);
      return reader.stacked(full, rows, row_shape, options_.dtype);
    };
    Layer layer;
    layer.attention_norm = reader.norm(prefix + "input_layernorm.weight", hidden);
    layer.mlp_norm = reader.norm(prefix + "post_attention_layernorm.weight", hidden);
    layer.qkv = stacked(attention, {"q_proj", "k_proj", "v_proj"}, ".weight", {q_rows, kv_rows, kv_rows}, {hidden});
    layer.output = stacked(attention, {"o_proj"}, ".weight", {hidden}, {q_rows});
    layer.gate_up = stacked(mlp, {"gate_proj", "up_proj"}, ".weight", {inner, inner}, {hidden});
    layer.down = stacked(mlp, {"down_proj"}, ".weight", {hidden}, {inner});
    if (config_.attention_bias) {
      layer.qkv_bias = stacked(attention, {"q_proj", "k_proj", "v_proj"}, ".bias", {q_rows, kv_rows, kv_rows}, {});
      layer.output_bias = stacked(attention, {"o_proj"}, ".bias", {hidden}, {});
    }
    if (config_.mlp_bias) {
      layer.gate_up_bias = stacked(mlp, {"gate_proj", "up_proj"}, ".bias", {inner, inner}, {});
      layer.down_bias = stacked(mlp, {"down_proj"}, ".bias", {hidden}, {});
    }
    layers_.push_back(std::move(layer));
  }
  final_norm_ = reader.norm("model.norm.weight", hidden);
  head_ = config_.tied_head ? embedding_ : reader.matrix("lm_head.weight", config_.vocab, hidden);
}

int64_t Llama::weight_bytes() const {
  int64_t bytes = static_cast<int64_t>(embedding_.nbytes() + final_norm_.nbytes());
  if (!config_.tied_head) bytes += static_cast<int64_t>(head_.nbytes());
  for (const Layer& layer : layers_)
    for (const at::Tensor* tensor :
         {&layer.attention_norm, &layer.mlp_norm, &layer.qkv, &layer.qkv_bias, &layer.output, &layer.output_bias,
          &layer.gate_up, &layer.gate_up_bias, &layer.down, &layer.down_bias})
      if (tensor->defined()) bytes += static_cast<int64_t>(tensor->nbytes());
  return bytes;
}

}  // namespace kvsweep
