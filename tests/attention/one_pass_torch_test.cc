// contract: one pass over a text gives every query what token-by-token decoding gives it, bit for bit, for every scheme
// whose traits promise one_pass; oracle: the reference attention, and reads counted one by one.
#include "harness/attention/one_pass.h"

#include <ATen/ATen.h>

#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <catch2/generators/catch_generators_range.hpp>
#include <cmath>

#include "harness/attention/attention.h"
#include "harness/attention/reads.h"
#include "tests/support/torch/scheme_probe.h"

namespace kvsweep::testing {
namespace {

constexpr int64_t kLayers = 2, kHeads = 3, kGroups = 3, kDim = 64, kTokens = 331;

const Rope& rope() {
  static const Rope table = [] {
    std::vector<float> inv_freq;
    for (int64_t i = 0; i < kDim / 2; ++i)
      inv_freq.push_back(static_cast<float>(std::pow(10000.0, -2.0 * static_cast<double>(i) / kDim)));
    return Rope(inv_freq, 1, at::kCPU, 2048);
  }();
  return table;
}

CacheContext context(int64_t tokens = kTokens) {
  return {kLayers, kHeads, kDim, at::kFloat, at::kCPU, &rope(), tokens};
}

const std::vector<SchemeCase>& one_pass_cases() {
  static const std::vector<SchemeCase> all = [] {
    std::vector<SchemeCase> out = scheme_cases(context());
    std::erase_if(out, [](const SchemeCase& one) { return !one.scheme()->traits().one_pass; });
    return out;
  }();
  return all;
}

void append(KvCache& cache, const Trace& trace, int64_t from, int64_t to) {
  for (int64_t layer = 0; layer < kLayers; ++layer) {
    const auto at = static_cast<size_t>(layer);
    cache.append(layer, {trace.k[at].narrow(1, from, to - from), trace.v[at].narrow(1, from, to - from), from});
  }
}

// The first of the tokens that a query from `start` on reads in both forms; `count`: none.
int64_t first_changing(const CompressedFrom& forms, int64_t start, int64_t count) {
  for (int64_t t = 0; t < count; ++t)
    for (const at::Tensor* side : {&forms.keys, &forms.values})
      if (const auto from = (*side)[t].item<int64_t>(); from > std::max(t, start) && from < count) return t;
  return count;
}

// Both ways store the same keys and values, so that no code can fall on the other side of a border. start: tokens that
// the cache holds before the pass. The reference attention is asked as well unless `bits` alone count.
void check(const Scheme& scheme, int64_t start, int64_t count, bool bits) {
  const Trace trace = random_trace(kLayers, kHeads, count, kDim, 31);
  const at::Tensor q = normals({kHeads * kGroups, count, kDim}, 32);
  const auto streamed = scheme.make_cache(context(count)), whole = scheme.make_cache(context(count));
  append(*streamed, trace, 0, start);
  append(*whole, trace, 0, start);
  const CompressedFrom forms = scheme.compressed_from(start, count);
  std::vector<at::Tensor> outputs, decoded;  // by the reference; as decoding attends
  std::vector<int64_t> reads;
  for (int64_t t = start; t < count; ++t) {
    append(*streamed, trace, t, t + 1);
    const KvView view = streamed->read(1);
    if (!bits) outputs.push_back(attend_reference(view, q.narrow(1, t, 1), t, rope()).output);
    decoded.push_back(attend(view, q.narrow(1, t, 1), t, rope()).output);
    reads.push_back(compressed_reads(view, t));
  }
  DecodedTokens held;
  const int64_t first = std::min(start, first_changing(forms, start, count));
  if (first < start) {
    held = decode_stored(whole->read(1), first);
    held = {held.k.clone(), held.v.clone()};  // before the next append moves them
  }
  const int64_t slab = scheme.traits().append_invariant ? count - start : 1;
  for (int64_t t = start; t < count; t += slab) append(*whole, trace, t, t + slab);
  OnePass tokens{whole->read(1), {}, {}, forms};
  const at::Tensor own_k = trace.k[1].narrow(1, start, count - start),
                   own_v = trace.v[1].narrow(1, start, count - start);
  const bool pending = tokens.after.keys.back().rotation == KeyRotation::kPending;
  tokens.k = pending ? own_k : rope().apply(own_k.contiguous(), start);
  tokens.v = own_v;
  tokens.first = first;
  if (first < start) {
    tokens.k = at::cat({held.k, tokens.k}, 1);
    tokens.v = at::cat({held.v, tokens.v}, 1);
  }
  const at::Tensor queries = q.narrow(1, start, count - start);
  const AttentionResult came = attend_one_pass(tokens, queries, start, rope());
  CHECK(came.output.equal(at::cat(decoded)));
  if (!bits) {
    const at::Tensor expected = at::cat(outputs), reference = attend_one_pass_reference(tokens, queries, start, rope());
    const double size = expected.abs().max().item<double>();
    CHECK((reference - expected).abs().max().item<double>() <= 2e-5 * size);
    CHECK((came.output - expected).abs().max().item<double>() <= 1e-4 * size);
  }
  CHECK(one_pass_reads(tokens.after, forms, start, count - start) == reads);
}

}  // namespace

TEST_CASE("one pass shows each query what token-by-token decoding shows it") {
  const SchemeCase& one = one_pass_cases()[GENERATE(range(size_t{0}, one_pass_cases().size()))];
  const int64_t start = GENERATE(0, 60);
  INFO(one.label() << ", from position " << start);
  check(*one.scheme(), start, kTokens, false);
}

// Far from the border queries share whole chunks of 512 tokens.
TEST_CASE("a long pass has the bits of decoding too") {
  const auto& [name, settings] = GENERATE(
      table<std::string, Settings>({{"uniform", {{"sink", "4"}, {"window", "20"}}},
                                    {"uniform", {{"k_axis", "channel"}, {"v_axis", "channel"}, {"group", "32"}}},
                                    {"kivi", {}},
                                    {"skvq", {{"group", "64"}, {"reorder", "false"}}},
                                    {"fp8", {}}}));
  const int64_t start = GENERATE(0, 700);
  INFO(describe(name, settings) << ", from position " << start);
  check(*make_scheme(name, settings), start, 1300, true);
}

}  // namespace kvsweep::testing
