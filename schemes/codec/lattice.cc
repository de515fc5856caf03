#include "schemes/codec/lattice.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

#include "schemes/codec/bitpack.h"
#include "schemes/codec/cuda_launch.h"
#include "schemes/codec/hadamard.h"
#include "schemes/codec/lattice_cpu.h"
#include "schemes/codec/lattice_search.h"
#include "schemes/codec/row_reader.h"
#include "schemes/kernels/lattice.h"

namespace kvsweep {
namespace {

constexpr int64_t kTileValues = 4096;         // values that a thread looks at together: they stay near
constexpr int64_t kParallelValues = 1 << 13;  // values below which a second thread costs more than it saves
constexpr int64_t kReadTokens = 16;
constexpr int64_t kMaxScores = int64_t{1} << 24;  // of one block of tensor operations: 64 MiB

double largest(at::ScalarType type) {
  return type == at::kHalf ? 65504 : std::numeric_limits<float>::max();
}

// [points, dim]
at::Tensor grid_tensor(const LatticeGrid& grid, at::Device device) {
  at::Tensor values = at::empty({grid.points, grid.dim}, at::kFloat);
  std::copy_n(grid.values, values.numel(), values.mutable_data_ptr<float>());
  return values.to(device);
}

// Calls work(first token, tokens, scratch) for tiles that cover all tokens.
template <class Work>
void for_each_tile(const HiggsLoops& loops, int64_t tokens, const Work& work) {
  const int64_t tile = std::max<int64_t>(1, kTileValues / loops.padded), tiles = (tokens + tile - 1) / tile;
  at::parallel_for(0, tiles, kParallelValues / (tile * loops.padded) + 1, [&](int64_t begin, int64_t end) {
    HiggsScratch scratch;
    for (int64_t i = begin; i < end; ++i) work(i * tile, std::min(tile, tokens - i * tile), scratch);
  });
}

// Blocks of a head beside those of the others.
class HiggsReader final : public RowReader {
 public:
  HiggsReader(const HiggsLoops& loops, int64_t heads, int64_t head_dim, const at::Tensor& codes,
              const at::Tensor& norms)
      : loops_(loops), heads_(heads), head_dim_(head_dim), codes_(codes), norms_(norms) {}

  int64_t heads() const override { return heads_; }
  void read(int64_t head, int64_t first, int64_t count, float* out) const override {
    const int64_t blocks = head_dim_ / loops_.group, bytes = head_dim_ / loops_.dim * loops_.code_bits / 8;
    const int64_t norm_bytes = norms_.row_bytes() / (heads_ * blocks);
    HiggsScratch scratch;
    for (int64_t t = 0; t < count; t += kReadTokens) {
      const HiggsBlocks from{codes_.at<uint8_t>(0, first + t) + head * bytes,
                             norms_.at<uint8_t>(0, first + t) + head * blocks * norm_bytes,
                             codes_.row_bytes(),
                             heads_ * blocks,
                             std::min(kReadTokens, count - t),
                             blocks,
                             head_dim_};
      higgs_decode_blocks(loops_, from, out + t * head_dim_, scratch);
    }
  }

 private:
  const HiggsLoops& loops_;
  int64_t heads_, head_dim_;
  PartRows codes_, norms_;
};

}  // namespace

HiggsCodec::HiggsCodec(HiggsOptions options, int64_t heads, int64_t head_dim)
    : options_(options), heads_(heads), head_dim_(head_dim), grid_(lattice_grid(options.dim, options.points)) {
  const int64_t h = options_.group, d = options_.dim;
  TORCH_CHECK(h >= 1 && std::has_single_bit(static_cast<uint64_t>(h)) && h % d == 0, "higgs: blocks of ", h,
              " channels: a power of two that holds vectors of ", d, " is needed");
  TORCH_CHECK(options_.norm_type == at::kFloat || options_.norm_type == at::kHalf, "higgs: norms of type ",
              options_.norm_type);
  TORCH_CHECK(heads >= 1 && head_dim >= 1, "higgs: ", heads, " heads of ", head_dim, " channels");
  loops_.channels = heads * head_dim;
  loops_.padded = (loops_.channels + h - 1) / h * h;
  loops_.group = h;
  loops_.dim = d;
  loops_.code_bits = std::countr_zero(static_cast<uint64_t>(options_.points));
  loops_.half_norms = options_.norm_type == at::kHalf;
  loops_.saturate = options_.saturate;
  loops_.grid = grid_.values;
  for (int64_t i = 0; i < grid_.points * d; ++i) loops_.largest = std::max(loops_.largest, std::abs(grid_.values[i]));
  loops_.search = &lattice_search(grid_);
}

void HiggsCodec::check_input(const at::Tensor& x) const {
  TORCH_CHECK(x.dim() == 3 && x.size(0) == heads_ && x.size(2) == head_dim_, "higgs: needs [", heads_, ", T, ",
              head_dim_, "], got ", x.sizes());
}

// [H, T, D] -> [T, C] float32
at::Tensor HiggsCodec::tokens_of(const at::Tensor& x) const {
  check_input(x);
  return x.transpose(0, 1).reshape({x.size(1), loops_.channels}).to(at::kFloat).contiguous();
}

at::Tensor HiggsCodec::heads_of(const at::Tensor& tokens) const {
  return tokens.view({-1, heads_, head_dim_}).transpose(0, 1);
}

#ifdef KVSWEEP_CUDA
bool HiggsCodec::has_kernel(const at::Tensor& x) const {
  return x.is_cuda() && loops_.padded <= kMostHiggsChannels;
}

HiggsShape HiggsCodec::shape() const {
  HiggsShape shape;
  shape.heads = heads_;
  shape.head_dim = head_dim_;
  shape.padded = loops_.padded;
  shape.group = loops_.group;
  shape.dim = loops_.dim;
  shape.points = options_.points;
  shape.code_bits = loops_.code_bits;
  shape.half_norms = loops_.half_norms;
  shape.saturate = loops_.saturate;
  std::copy(loops_.search->score_table.begin(), loops_.search->score_table.end(), shape.table);
  return shape;
}

std::vector<at::Tensor> HiggsCodec::encode_with_kernel(const at::Tensor& x) const {
  const int64_t tokens = x.size(1);
  const std::vector<at::Tensor> parts = {
      at::empty({1, tokens, packed_bytes(codes(), code_bits())}, x.options().dtype(at::kByte)),
      at::empty({1, tokens, loops_.padded / options_.group}, x.options().dtype(options_.norm_type))};
  if (tokens == 0) return parts;
  at::Tensor held;
  HiggsEncode job;
  job.shape = shape();
  job.x = rows_of(x, held);
  job.codes = parts[0].mutable_data_ptr<uint8_t>();
  job.norms = parts[1].mutable_data_ptr();
  launch_on(x, [&job](void* stream) { higgs_encode_cuda(job, stream); });
  return parts;
}

at::Tensor HiggsCodec::decode_with_kernel(const std::vector<at::Tensor>& parts) const {
  const at::Tensor packed = parts[0].contiguous(), norms = parts.at(1).contiguous();
  const int64_t tokens = packed.size(1);
  const at::Tensor out = at::empty({heads_, tokens, head_dim_}, packed.options().dtype(at::kFloat));
  if (tokens == 0) return out;
  HiggsDecode job;
  job.shape = shape();
  job.tokens = tokens;
  job.codes = packed.const_data_ptr<uint8_t>();
  job.norms = norms.const_data_ptr();
  job.out = out.mutable_data_ptr<float>();
  launch_on(out, [&job](void* stream) { higgs_decode_cuda(job, stream); });
  return out;
}
#endif

std::vector<at::Tensor> HiggsCodec::encode(const at::Tensor& x) const {
  check_input(x);
#ifdef KVSWEEP_CUDA
  if (has_kernel(x)) return encode_with_kernel(x);
#endif
  if (!x.is_cpu()) return encode_with_ops(x);
  const at::Tensor values = tokens_of(x);
  const int64_t tokens = values.size(0), bytes = packed_bytes(codes(), code_bits()),
                blocks = loops_.padded / options_.group;
  at::Tensor packed = at::empty({1, tokens, bytes}, values.options().dtype(at::kByte));
  at::Tensor norms = at::empty({1, tokens, blocks}, values.options());
  const auto* in = values.const_data_ptr<float>();
  auto* to = packed.mutable_data_ptr<uint8_t>();
  auto* to_norms = norms.mutable_data_ptr<float>();
  for_each_tile(loops_, tokens, [&](int64_t first, int64_t count, HiggsScratch& scratch) {
    higgs_encode_tokens(loops_, in + first * loops_.channels, count, to + first * bytes, to_norms + first * blocks,
                        scratch);
  });
  return {packed, norms.to(options_.norm_type)};
}

at::Tensor HiggsCodec::decode(const std::vector<at::Tensor>& parts) const {
#ifdef KVSWEEP_CUDA
  if (has_kernel(parts.at(0))) return decode_with_kernel(parts);
#endif
  if (!parts.at(0).is_cpu()) return decode_with_ops(parts);
  const PartRows packed(parts[0]), norms(parts.at(1));
  const int64_t tokens = parts[0].size(1), bytes = packed_bytes(codes(), code_bits()),
                blocks = loops_.padded / options_.group;
  TORCH_CHECK(parts[0].size(2) == bytes && parts[1].size(2) == blocks, "higgs: parts of sizes ", parts[0].sizes(),
              " and ", parts[1].sizes());
  at::Tensor out = at::empty({tokens, loops_.channels}, at::kFloat);
  auto* to = out.mutable_data_ptr<float>();
  for_each_tile(loops_, tokens, [&](int64_t first, int64_t count, HiggsScratch& scratch) {
    higgs_decode_blocks(
        loops_,
        {packed.at<uint8_t>(0, first), norms.at<uint8_t>(0, first), bytes, blocks, count, blocks, loops_.channels},
        to + first * loops_.channels, scratch);
  });
  return heads_of(out);
}

std::unique_ptr<const RowReader> HiggsCodec::reader(const std::vector<at::Tensor>& parts) const {
  const bool whole = head_dim_ % options_.group == 0 && head_dim_ / options_.dim * code_bits() % 8 == 0;
  return whole ? std::make_unique<HiggsReader>(loops_, heads_, head_dim_, parts.at(0), parts.at(1)) : nullptr;
}

std::vector<at::Tensor> HiggsCodec::encode_with_ops(const at::Tensor& x) const {
  const at::Tensor values = at::constant_pad_nd(tokens_of(x), {0, loops_.padded - loops_.channels});
  const int64_t tokens = values.size(0), h = options_.group;
  const at::Tensor blocks = values.view({tokens, loops_.padded / h, h});
  at::Tensor squares = blocks.to(at::kDouble).square();
  for (int64_t rest = h / 2; rest > 0; rest /= 2) squares = squares.narrow(2, 0, rest) + squares.narrow(2, rest, rest);
  at::Tensor norms = squares.sqrt().to(at::kFloat).clamp_max(largest(options_.norm_type)).to(options_.norm_type);
  const at::Tensor y = (hadamard_transform_with_ops(blocks) / norms.to(at::kFloat)).view({-1, options_.dim});
  const at::Tensor grid = grid_tensor(grid_, x.device()), twice = (2 * grid).t(), square = grid.square().sum(1).neg();
  at::Tensor found = at::empty({y.size(0)}, y.options().dtype(at::kLong));
  const int64_t rows = std::max<int64_t>(1, kMaxScores / options_.points);
  for (int64_t first = 0; first < y.size(0); first += rows) {
    const int64_t count = std::min(rows, y.size(0) - first);
    found.narrow(0, first, count).copy_(at::addmm(square, y.narrow(0, first, count), twice).argmax(1));
  }
  found = found.view({tokens, loops_.padded / h, h / options_.dim}).masked_fill(norms.eq(0), 0);
  return {pack_bits(found.to(at::kByte).view({1, tokens, codes()}), code_bits()),
          norms.view({1, tokens, loops_.padded / h})};
}

at::Tensor HiggsCodec::decode_with_ops(const std::vector<at::Tensor>& parts) const {
  const at::Tensor found = unpack_bits(parts.at(0), code_bits(), codes()).to(at::kLong);
  const int64_t tokens = found.size(1), h = options_.group;
  at::Tensor y =
      grid_tensor(grid_, found.device()).index_select(0, found.flatten()).view({tokens, loops_.padded / h, h});
  y = y * parts.at(1).view({tokens, loops_.padded / h, 1}).to(at::kFloat);
  if (options_.saturate) y = y.clamp(-largest(at::kHalf), largest(at::kHalf));
  y = hadamard_transform_with_ops(y.to(at::kHalf)).mul(1 / static_cast<double>(h)).view({tokens, loops_.padded});
  return heads_of(y.narrow(1, 0, loops_.channels).to(at::kHalf).to(at::kFloat).contiguous());
}

}  // namespace kvsweep
