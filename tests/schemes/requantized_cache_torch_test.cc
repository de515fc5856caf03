// Oracle and golden: when a cache that packs everything anew does so, and what it then shows.
#include "schemes/parts/requantized_cache.h"

#include <ATen/ATen.h>

#include <fmt/format.h>
#include <algorithm>
#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include <cmath>
#include <map>
#include <set>

#include "schemes/codec/hqq.h"
#include "schemes/codec/quanto.h"
#include "tests/support/torch/scheme_golden.h"
#include "tests/support/torch/scheme_probe.h"

namespace kvsweep::testing {
namespace {

using Catch::Matchers::ContainsSubstring;

// Rotates nothing.
const Rope& still(int64_t head_dim) {
  static std::map<int64_t, Rope> ropes;
  return ropes.try_emplace(head_dim, std::vector<float>(static_cast<size_t>(head_dim / 2), 0.0F), 1, at::kCPU, 4096)
      .first->second;
}

CacheContext context_of(int64_t heads, int64_t head_dim, at::ScalarType dtype = at::kFloat) {
  return {1, heads, head_dim, dtype, at::kCPU, &still(head_dim), 0};
}

struct Counts {
  int64_t packed = 0, exact = 0;
  bool operator==(const Counts&) const = default;
};

Counts counts_of(const c10::SmallVector<KvRun, 3>& runs) {
  Counts counts;
  for (const KvRun& run : runs) (run.codec->exact() ? counts.exact : counts.packed) += run.tokens;
  return counts;
}

struct Held {
  Counts keys, values;
};

// What is held once the step is over: what it filled is packed.
Held after_step(const KvCache& cache) {
  const auto next = cache.clone();
  next->finish_context();
  const KvView view = next->read(0);
  return {counts_of(view.keys), counts_of(view.values)};
}

std::shared_ptr<const Codec> quanto(int64_t heads, int64_t head_dim, QuantoOptions options = {2, {}, 64, at::kFloat}) {
  return std::make_shared<QuantoCodec>(options, heads, head_dim);
}

TEST_CASE("a prompt is packed as a whole, then everything with every R tokens") {
  // Specification, section 0.3: R = 128, prompt 100, (packed, exact) after n steps.
  const std::vector<std::pair<int64_t, Counts>> expected = {{0, {100, 0}},     {1, {100, 1}},   {126, {100, 126}},
                                                            {127, {100, 127}}, {128, {228, 0}}, {129, {228, 1}},
                                                            {256, {356, 0}}};
  const auto codec = quanto(1, 16);
  RequantizedCache cache(context_of(1, 16), {{codec, codec}}, 128);
  const at::Tensor x = normals({1, 400, 16}, 1);
  cache.append(0, {x.narrow(1, 0, 100), x.narrow(1, 0, 100), 0});
  CHECK(counts_of(cache.read(0).keys) == Counts{0, 100});  // the prompt's own step reads it exact
  for (int64_t n = 0; n <= 256; ++n) {
    if (n > 0) {
      cache.append(0, {x.narrow(1, 99 + n, 1), x.narrow(1, 99 + n, 1), 99 + n});
      // i = 99 + n reads j < 100 + 128 * floor((i - 100) / 128) packed.
      CHECK(counts_of(cache.read(0).values).packed == 100 + 128 * ((n - 1) / 128));
    }
    for (const auto& [step, counts] : expected)
      if (step == n) {
        INFO("after " << n << " steps");
        CHECK(after_step(cache).keys == counts);
        CHECK(after_step(cache).values == counts);
      }
  }
}

TEST_CASE("a residual length below two works as two") {
  const auto codec = quanto(1, 16);
  const int64_t length = GENERATE(0, 1, 2);
  RequantizedCache cache(context_of(1, 16), {{codec, codec}}, length);
  const at::Tensor x = normals({1, 20, 16}, 1);
  cache.append(0, {x.narrow(1, 0, 3), x.narrow(1, 0, 3), 0});
  for (int64_t t = 3; t < 20; ++t) {
    cache.append(0, {x.narrow(1, t, 1), x.narrow(1, t, 1), t});
    CHECK(after_step(cache).keys == Counts{3 + (t - 2) / 2 * 2, (t - 2) % 2});
  }
}

TEST_CASE("packing anew is literal: unpack, join, pack") {
  const auto codec = quanto(2, 80, {4, GENERATE(GroupCut::kConsecutive, GroupCut::kRows), 64, at::kHalf});
  constexpr int64_t kPrompt = 50, kLength = 24, kTokens = 130;
  RequantizedCache cache(context_of(2, 80), {{codec, codec}}, kLength);
  const at::Tensor k = normals({2, kTokens, 80}, 1), v = normals({2, kTokens, 80}, 2);
  cache.append(0, {k.narrow(1, 0, kPrompt), v.narrow(1, 0, kPrompt), 0});
  at::Tensor held_k = k.narrow(1, 0, kPrompt), held_v = v.narrow(1, 0, kPrompt);
  const auto pack = [&codec](at::Tensor& held) { held = codec->decode(codec->encode(held)); };
  for (int64_t t = kPrompt; t < kTokens; ++t) {
    if ((t - kPrompt) % kLength == 0) {
      pack(held_k);
      pack(held_v);
    }
    held_k = at::cat({held_k, k.narrow(1, t, 1)}, 1);
    held_v = at::cat({held_v, v.narrow(1, t, 1)}, 1);
    cache.append(0, {k.narrow(1, t, 1), v.narrow(1, t, 1), t});
    CHECK(decode_runs(cache.read(0).keys).equal(held_k));
    CHECK(decode_runs(cache.read(0).values).equal(held_v));
  }
}

TEST_CASE("tokens that come together after the prompt are stored as if they had come one by one") {
  const auto codec = quanto(2, 64);
  const at::Tensor x = normals({2, 200, 64}, 3);
  const auto filled = [&](int64_t slab) {
    auto cache =
        std::make_unique<RequantizedCache>(context_of(2, 64), std::vector<RequantizedPlan>{{codec, codec}}, 16);
    cache->append(0, {x.narrow(1, 0, 30), x.narrow(1, 0, 30), 0});
    for (int64_t t = 30; t < 200; t += slab) {
      const int64_t count = std::min(slab, 200 - t);
      cache->append(0, {x.narrow(1, t, count), x.narrow(1, t, count), t});
    }
    return cache;
  };
  const auto single = filled(1);
  for (const int64_t slab : {3, 16, 17, 40, 170})
    CHECK(decode_runs(filled(slab)->read(0).keys).equal(decode_runs(single->read(0).keys)));
}

TEST_CASE("old tokens do not drift on axis 0, and do where groups form anew") {
  const GroupCut cut = GENERATE(GroupCut::kConsecutive, GroupCut::kRows);
  const auto codec = quanto(1, 64, {2, cut, 64, at::kFloat});
  RequantizedCache cache(context_of(1, 64), {{codec, codec}}, 24);
  const at::Tensor x = normals({1, 400, 64}, 5);
  cache.append(0, {x.narrow(1, 0, 100), x.narrow(1, 0, 100), 0});
  cache.finish_context();
  const at::Tensor first = decode_runs(cache.read(0).keys).clone();
  cache.append(0, {x.narrow(1, 100, 300), x.narrow(1, 100, 300), 100});
  const at::Tensor last = decode_runs(cache.read(0).keys).narrow(1, 0, 100);
  const double before = nmse(x.narrow(1, 0, 100), first), after = nmse(x.narrow(1, 0, 100), last);
  if (cut == GroupCut::kConsecutive) {
    CHECK((last - first).abs().max().item<float>() <= 1e-6F);
  } else {
    CHECK(after > 1.2 * before);
  }
}

TEST_CASE("a slab that does not follow is refused, and so are NaN and infinity") {
  const auto codec = quanto(1, 64);
  RequantizedCache cache(context_of(1, 64), {{codec, codec}}, 16);
  at::Tensor x = normals({1, 8, 64}, 6);
  cache.append(0, {x, x, 5});
  CHECK_THROWS_WITH(cache.append(0, {x, x, 14}), ContainsSubstring("does not follow"));
  CHECK_THROWS_WITH(cache.append(0, {x, x.narrow(1, 0, 3), 13}), ContainsSubstring("values of sizes"));
  x[0][2][3] = GENERATE(NAN, INFINITY);
  CHECK_THROWS_WITH(cache.append(0, {x, x, 13}), ContainsSubstring("NaN or infinity"));
}

// --- golden -------------------------------------------------------------------------------------------------------

at::ScalarType dtype_of(const std::string& text) {
  if (text.ends_with("bf16") || text.ends_with("bfloat16")) return at::kBFloat16;
  return text.ends_with("fp16") || text.ends_with("float16") ? at::kHalf : at::kFloat;
}

struct Traced {
  const GoldenCase& golden;
  std::shared_ptr<const Codec> keys, values;
  at::ScalarType dtype = at::kFloat;
  bool bit_exact = false;
};

Traced traced(const GoldenCase& golden, int64_t heads, int64_t head_dim) {
  const bool kvq = golden.function() == "KVQ.update";
  const bool hqq = kvq || golden.text("backend") == "hqq";
  const at::ScalarType dtype = dtype_of(golden.text(kvq ? "compute_dtype" : "dtype"));
  const int64_t group = golden.integer(kvq ? "group_size" : "q_group_size");
  const auto codec = [&](const std::string& letter, const std::string& name) -> std::shared_ptr<const Codec> {
    const double bits = golden.number(kvq ? "nbits_" + letter : "nbits");
    const int64_t axis = golden.integer(kvq ? "axis" : "axis_" + name);
    if (hqq) {
      const GroupCut cut = axis == 1 ? GroupCut::kConsecutive : GroupCut::kStrided;
      return std::make_shared<HqqCodec>(HqqOptions{bits, cut, group, dtype}, heads, head_dim);
    }
    return quanto(heads, head_dim,
                  {static_cast<int64_t>(bits), axis == 0 ? GroupCut::kConsecutive : GroupCut::kRows, group, dtype});
  };
  return {golden, codec("k", "key"), codec("v", "value"), dtype, !hqq};
}

// Values beyond 1e-3 of their group's range (float32) or one bfloat16 step, of what a step returned. A group's range is
// bounded from below by the row's.
int64_t far_values(const at::Tensor& mine, const at::Tensor& expected, at::ScalarType dtype) {
  const at::Tensor a = mine.to(at::kDouble), b = expected.to(at::kDouble);
  const at::Tensor allowed = dtype == at::kFloat ? (b.amax(2, true) - b.amin(2, true)) * 1e-3
                                                 : b.abs().clamp_min(1e-30).log2().floor().exp2() / 128;
  return (a - b).abs().gt(allowed).sum().item<int64_t>();
}

void check_trace(const Traced& traced, const at::Tensor& k, const at::Tensor& v) {
  const GoldenCase& golden = traced.golden;
  const int64_t prompt = golden.integer("prompt"), steps = golden.integer("decode");
  RequantizedCache cache(context_of(k.size(0), k.size(2), traced.dtype), {{traced.keys, traced.values}},
                         golden.integer("residual_length"));
  REQUIRE(k.size(1) >= prompt + steps);
  const at::Tensor residency = golden.output("residency");
  const bool both_sides = golden.function() == "KVQ.update";  // [total, K exact, V exact], else [total, packed, exact]
  int64_t compared = 0;
  for (int64_t step = 0; step <= steps; ++step) {
    INFO("step " << step);
    const int64_t from = step == 0 ? 0 : prompt + step - 1, count = step == 0 ? prompt : 1;
    cache.append(0, {k.narrow(1, from, count), v.narrow(1, from, count), from});
    const KvView read = cache.read(0);
    for (const auto& [letter, runs] : {std::pair{"k", read.keys}, std::pair{"v", read.values}}) {
      const std::string name = fmt::format("ret_{}_step{}", letter, step);
      if (!golden.has_output(name)) continue;
      INFO(name);
      const at::Tensor expected = golden.output(name)[0], mine = decode_runs(runs);
      REQUIRE(mine.sizes() == expected.sizes());
      if (traced.bit_exact) {
        CHECK(mine.equal(expected.to(at::kFloat)));
      } else {
        // One code on at most 0.1 % of the values of narrow types; none in float32.
        const int64_t far = far_values(mine, expected, traced.dtype);
        CHECK(far * 1000 <= (traced.dtype == at::kFloat ? 0 : mine.numel()));
      }
      ++compared;
    }
    const auto [keys, values] = after_step(cache);
    CHECK(residency[step][0].item<int64_t>() == prompt + step);
    CHECK(residency[step][1].item<int64_t>() == (both_sides ? keys.exact : keys.packed));
    CHECK(residency[step][2].item<int64_t>() == values.exact);
  }
  CHECK(compared == 2 * static_cast<int64_t>(golden.numbers("kept_steps").size()));
}

TEST_CASE("what each step reads and leaves is what QuantizedLayer and KVQ return and leave", "[golden]") {
  // Every function of the two folders has a test.
  static const std::set<std::string> elsewhere = {"QuantoQuantizedLayer._quantize/_dequantize",
                                                  "HQQQuantizedLayer._quantize/_dequantize", "allocate_bits_greedy",
                                                  "allocate_groups_greedy", "bit_pattern"};
  const std::string folder = GENERATE("hf_quantized_cache", "kv_adaquant");
  int64_t checked = 0;
  for (const auto& manifest : golden_manifests_or_skip(folder))
    for (const GoldenCase& golden : manifest->cases()) {
      INFO(golden.label());
      if (golden.name().starts_with("quirk_")) {
        WARN(golden.name() << " documents a defect of the original");
        continue;
      }
      if (elsewhere.contains(golden.function())) continue;
      const bool known = golden.function() == "QuantizedLayer.update" || golden.function() == "KVQ.update";
      INFO("function " << golden.function());
      REQUIRE(known);
      const at::Tensor k = golden.input(0), v = golden.input(1);
      const Traced one = traced(golden, k.size(0), k.size(2));
      check_trace(one, k.to(one.dtype), v.to(one.dtype));
      ++checked;
    }
  CHECK(checked > 0);
}

}  // namespace
}  // namespace kvsweep::testing
