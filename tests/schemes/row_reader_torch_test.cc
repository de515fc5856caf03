// contract: a codec's reader gives the bits of decode(), whichever tokens are asked for, of every scheme and parameter;
// oracle: parts in memory with gaps are read like those without.
#include <ATen/ATen.h>

#include <algorithm>
#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <catch2/generators/catch_generators_range.hpp>
#include <set>

#include "schemes/codec/float8.h"
#include "schemes/codec/nvfp4.h"
#include "schemes/codec/row_reader.h"
#include "tests/support/torch/scheme_probe.h"

namespace kvsweep::testing {
namespace {

constexpr int64_t kHeads = 3, kDim = 64, kTokens = 150;

const Rope& rope() {
  static const Rope kRope(std::vector<float>(kDim / 2, 0.01F), 1, at::kCPU, 4 * kTokens);
  return kRope;
}

CacheContext context() {
  CacheContext context;
  context.layers = 1;
  context.kv_heads = kHeads;
  context.head_dim = kDim;
  context.rope = &rope();
  context.expected_tokens = 2 * kTokens;
  return context;
}

const std::vector<SchemeCase>& all_cases() {
  static const std::vector<SchemeCase> kCases = scheme_cases(context());
  return kCases;
}

// The rows of a reader, asked for in pieces of `step` tokens.
at::Tensor in_pieces(const RowReader& reader, int64_t tokens, int64_t dim, int64_t step) {
  at::Tensor out = at::full({reader.heads(), tokens, dim}, -1, at::kFloat);
  for (int64_t head = 0; head < reader.heads(); ++head)
    for (int64_t t = 0; t < tokens; t += step)
      reader.read(head, t, std::min(step, tokens - t), out[head][t].mutable_data_ptr<float>());
  return out;
}

}  // namespace

TEST_CASE("a reader's rows have the bits of decode, in pieces of any length") {
  std::set<std::string> read;  // codecs that have a reader
  for (const SchemeCase& one : all_cases()) {
    INFO(one.label());
    const Trace trace = random_trace(1, kHeads, kTokens, kDim, 5);
    const auto cache = one.scheme()->make_cache(context());
    cache->append(0, {trace.k[0], trace.v[0], 0});
    cache->finish_context();
    const KvView view = cache->read(0);
    for (const auto* side : {&view.keys, &view.values})
      for (const KvRun& run : *side) {
        const auto reader = run.codec->reader(run.parts);
        if (reader == nullptr) continue;
        read.insert(run.codec->name());
        const at::Tensor decoded = run.codec->decode(run.parts);
        REQUIRE(reader->heads() == decoded.size(0));
        for (const int64_t step : {1, 7, 32, 1000}) REQUIRE(in_pieces(*reader, run.tokens, kDim, step).equal(decoded));
      }
  }
  CHECK(read == std::set<std::string>{"float8", "ggml", "higgs", "nvfp4", "quanto"});
}

TEST_CASE("parts with gaps between heads are read like those without") {
  const at::Tensor part = at::arange(2 * 10 * 4, at::kInt).view({2, 10, 4}), narrow = part.narrow(1, 3, 5);
  for (const at::Tensor& one : {narrow, narrow.contiguous(), narrow.transpose(0, 1).contiguous().transpose(0, 1)}) {
    const PartRows rows(one);
    CHECK(rows.heads() == 2);
    CHECK(rows.row_bytes() == 16);
    for (int64_t head = 0; head < 2; ++head)
      for (int64_t t = 0; t < 5; ++t) CHECK(rows.at<int32_t>(head, t)[3] == narrow[head][t][3].item<int32_t>());
  }
}

TEST_CASE("float8 and NVFP4 by tensor operations have the bits of the CPU loops") {
  const double scale = GENERATE(1e-6, 1e-3, 1.0, 300.0, 1e6);
  at::Tensor x = normals({kHeads, 37, kDim}, 11) * scale;
  x[0][0].zero_();
  x[1][2].fill_(-0.0);
  x[2][3] = at::arange(kDim, at::kFloat) / 8 - 4;  // levels and ties
  x = x.transpose(0, 1).contiguous().transpose(0, 1);
  const at::Tensor each = at::tensor({0.5F, 1.0F, 3.0F});
  for (const Float8Format format : {Float8Format::kE4M3, Float8Format::kE5M2})
    for (const at::Tensor& scales : {at::Tensor(), at::ones({1}), each}) {
      const Float8Codec codec(format, scales);
      const auto parts = codec.encode(x), expected = codec.encode_with_ops(x);
      REQUIRE(parts.size() == expected.size());
      for (size_t i = 0; i < parts.size(); ++i) CHECK(parts[i].equal(expected[i]));
      CHECK(codec.decode(parts).equal(codec.decode_with_ops(parts)));
    }
  for (const NvFp4Scales scales : {NvFp4Scales::kModelOpt, NvFp4Scales::kTorchAo})
    for (const float tensor_scale : {1.0F, 0.013F}) {
      const NvFp4Codec codec(kDim, tensor_scale, scales);
      const auto parts = codec.encode(x), expected = codec.encode_with_ops(x);
      CHECK(parts[0].equal(expected[0]));
      CHECK(parts[1].equal(expected[1]));
      CHECK(codec.decode(parts).equal(codec.decode_with_ops(parts)));
    }
}

}  // namespace kvsweep::testing
