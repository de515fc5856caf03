// oracle: fused attention against the reference and against plain loops in double, over runs packed in every way.
#include "harness/attention/fused.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <fmt/format.h>

#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <catch2/generators/catch_generators_range.hpp>
#include <cmath>
#include <memory>

#include "harness/attention/attention.h"
#include "harness/core/random.h"
#include "schemes/codec/affine.h"
#include "schemes/codec/exact.h"
#include "tests/support/torch/exact_cache.h"

namespace kvsweep {
namespace {

// Stores half of every value, and says nothing of how.
class HalvedCodec : public Codec {
 public:
  std::string name() const override { return "halved"; }
  double nominal_bits() const override { return 8; }
  std::vector<PartSpec> parts() const override { return {{"half", ByteRole::kCodes}}; }
  std::vector<at::Tensor> encode(const at::Tensor& x) const override { return {x * 0.5}; }
  at::Tensor decode(const std::vector<at::Tensor>& parts) const override { return parts[0] * 2; }
};

const ExactCodec kExact(at::kFloat);
const HalvedCodec kHalved;

struct NamedKernels {
  std::string name;
  const cpu::Kernels* kernels;
};

std::vector<NamedKernels> kernels_of_this_cpu() {
  std::vector<NamedKernels> all;
  for (const NamedKernels& one : {NamedKernels{"portable", cpu::portable_kernels()},
                                  {"avx2", cpu::avx2_kernels()},
                                  {"avx512", cpu::avx512_kernels()}})
    if (one.kernels != nullptr)
      all.push_back(one);
    else
      WARN("this CPU has no kernels of the kind " << one.name);
  return all;
}

Rope rope_of(int64_t dim, int64_t positions = 4000) {
  std::vector<float> frequencies;
  for (int64_t i = 0; i < dim / 2; ++i)
    frequencies.push_back(static_cast<float>(std::pow(10000.0, -2.0 * double(i) / double(dim))));
  return Rope(frequencies, 1.0F, at::kCPU, positions);
}

// [H, T, D] with channels of unlike ranges, off zero: as keys have them.
at::Tensor random_rows(int64_t heads, int64_t tokens, int64_t dim, Rng& rng) {
  const at::Tensor x = at::empty({heads, tokens, dim});
  float* at = x.mutable_data_ptr<float>();
  for (int64_t i = 0; i < x.numel(); ++i) {
    const int64_t channel = i % dim;
    at[i] = static_cast<float>(rng.normal() * (channel % 7 == 3 ? 3 : 1) + (channel % 5 == 1 ? 1.5 : 0));
  }
  return x;
}

KvRun stored(const Codec& codec, const at::Tensor& x) {
  KvRun run;
  run.codec = &codec;
  run.parts = codec.encode(x);
  run.tokens = x.size(1);
  return run;
}

// The largest distance of a row to the row that it should be, relative to that row's norm.
double off(const at::Tensor& got, const at::Tensor& want) {
  const at::Tensor gap = (got.to(at::kDouble) - want.to(at::kDouble)).norm(2, {-1});
  return (gap / want.to(at::kDouble).norm(2, {-1})).max().item<double>();
}

void check_view(const KvView& view, const at::Tensor& q, int64_t position, const Rope& rope, double bound = 1e-4) {
  const at::Tensor want = attend_reference(view, q, position, rope).output;
  for (const NamedKernels& one : kernels_of_this_cpu()) {
    const auto got = attend_fused(view, q, position, rope, *one.kernels);
    INFO(one.name);
    if (q.size(2) % one.kernels->dim_multiple != 0) {
      CHECK(!got);
      continue;
    }
    REQUIRE(got);
    REQUIRE(got->output.sizes() == want.sizes());
    CHECK(off(got->output, want) < bound);
  }
}

std::string named(const AffineOptions& o) {
  return fmt::format("bits {} group {} {}{}{}{} metadata {}", o.bits, o.group,
                     o.axis == GroupAxis::kToken ? "token" : "channel", o.symmetric ? " symmetric" : "",
                     o.form == AffineForm::kZeroPoint ? " zero-point" : "", o.arithmetic == at::kHalf ? " half" : "",
                     c10::toString(o.metadata));
}

AffineOptions random_options(int64_t dim, Rng& rng) {
  AffineOptions o;
  o.bits = rng.between(1, 8);
  o.axis = rng.below(2) == 0 ? GroupAxis::kToken : GroupAxis::kChannel;
  o.group = o.axis == GroupAxis::kChannel
                ? rng.pick<int64_t>({16, 32, 48, 64, 128, 5})
                : rng.pick<int64_t>({dim, dim / 2, dim / 4, 16, 8, dim / 5 * 5 == dim ? 5 : 4});
  o.metadata = rng.pick<at::ScalarType>({at::kHalf, at::kBFloat16, at::kFloat});
  const uint64_t form = rng.below(6);
  o.symmetric = form == 0 && o.bits >= 2;
  if (form == 1) o.form = AffineForm::kReciprocal;
  if (form == 2) o.form = AffineForm::kZeroPoint;
  if (form > 3) o.arithmetic = at::kHalf;
  return o;
}

// Orthonormal [H, D, D] or [D, D].
at::Tensor random_basis(int64_t heads, int64_t dim, Rng& rng) {
  std::vector<int64_t> sizes = {dim, dim};
  if (rng.below(2) == 0) sizes.insert(sizes.begin(), heads);
  at::Tensor x = at::empty(sizes, at::kDouble);
  for (int64_t i = 0; i < x.numel(); ++i) x.mutable_data_ptr<double>()[i] = rng.normal();
  return std::get<0>(at::linalg_qr(x)).to(at::kFloat).contiguous();
}

struct Made {
  KvView view;
  std::vector<std::unique_ptr<Codec>> codecs;
  std::string text;
};

// Up to four runs over `tokens` tokens, some empty.
void add_runs(Made& made, bool keys, int64_t heads, int64_t tokens, int64_t dim, Rng& rng) {
  auto& runs = keys ? made.view.keys : made.view.values;
  int64_t first = 0;
  while (first < tokens) {
    int64_t count = runs.size() >= 3 ? tokens - first : rng.between(0, tokens - first);
    const Codec* codec = &kExact;
    const uint64_t kind = rng.below(8);
    if (kind == 0) codec = &kHalved;
    if (kind > 2) {
      const AffineOptions options = random_options(dim, rng);
      made.codecs.push_back(std::make_unique<AffineCodec>(options, dim));
      codec = made.codecs.back().get();
      count = count / codec->group_tokens() * codec->group_tokens();
      made.text += fmt::format("{}[{}: {}]", keys ? "K" : "V", count, named(options));
      if (runs.size() >= 3 && count < tokens - first) codec = &kExact, count = tokens - first;
    }
    KvRun run = stored(*codec, random_rows(heads, count, dim, rng));
    if (keys && rng.below(3) == 0) run.rotation = KeyRotation::kPending;
    if (rng.below(4) == 0) run.basis = random_basis(heads, dim, rng);
    runs.push_back(std::move(run));
    first += count;
  }
}

Made random_view(int64_t heads, int64_t tokens, int64_t dim, bool dropped, bool keep, Rng& rng) {
  Made made;
  add_runs(made, true, heads, tokens, dim, rng);
  add_runs(made, false, heads, tokens, dim, rng);
  made.view.position = rng.between(0, 20);
  if (dropped) {
    std::vector<int64_t> positions;
    for (int64_t t = 0, at = made.view.position; t < tokens; ++t, at += rng.between(1, 3)) positions.push_back(at);
    made.view.positions = at::tensor(positions, at::kLong);
  }
  if (keep) {
    made.view.keep = at::ones({heads, tokens}, at::kBool);
    bool* at = made.view.keep.mutable_data_ptr<bool>();
    for (int64_t i = 0; i < heads * tokens; ++i)
      if (i % tokens != 0 && rng.below(3) == 0) at[i] = false;
  }
  return made;
}

// One packed body of keys and of values.
KvView body_of(const Codec& keys, const Codec& values, const at::Tensor& k, const at::Tensor& v) {
  KvView view;
  view.keys.push_back(stored(keys, k));
  view.values.push_back(stored(values, v));
  return view;
}

}  // namespace

TEST_CASE("fused attention over random views is the reference's") {
  Rng rng(derive_seed(3, "fused"));
  const auto [dropped, keep] =
      GENERATE(std::pair{false, false}, std::pair{true, false}, std::pair{false, true}, std::pair{true, true});
  for (int round = 0; round < 25; ++round) {
    const int64_t dim = rng.pick<int64_t>({64, 80, 128, 32, 48}), heads = rng.between(1, 3);
    const int64_t groups = rng.between(1, 6), queries = rng.below(3) == 0 ? rng.between(2, 40) : 1;
    const int64_t tokens = rng.between(queries, rng.below(3) == 0 ? 1300 : 200);
    const Rope rope = rope_of(dim);
    const Made made = random_view(heads, tokens, dim, dropped, keep, rng);
    const at::Tensor q = random_rows(heads * groups, queries, dim, rng) * 0.5;
    // The first token is always seen, sometimes little more.
    const int64_t last = dropped ? made.view.positions[tokens - 1].item<int64_t>() : made.view.position + tokens - 1;
    const int64_t position = rng.below(4) == 0 ? made.view.position : std::max(made.view.position, last - queries + 1);
    INFO(fmt::format("round {} D {} H {} G {} T {} S {} {}", round, dim, heads, groups, queries, tokens, made.text));
    check_view(made.view, q, position, rope);
  }
}

TEST_CASE("every width, axis and form of the affine codec is attended as it is decoded") {
  const int64_t bits = GENERATE(range(1, 9));
  const int64_t dim = GENERATE(64, 80, 128);
  Rng rng(derive_seed(static_cast<uint64_t>(bits * 1000 + dim), "fused/forms"));
  std::vector<AffineOptions> all;
  for (const GroupAxis axis : {GroupAxis::kToken, GroupAxis::kChannel})
    for (const int64_t group : {dim, dim / 2, int64_t{16}, int64_t{32}}) {
      if (axis == GroupAxis::kToken && dim % group != 0) continue;
      for (const at::ScalarType metadata : {at::kHalf, at::kBFloat16, at::kFloat})
        all.push_back({bits, group, axis, false, metadata, at::kFloat, AffineForm::kMinimum});
      all.push_back({bits, group, axis, false, at::kHalf, at::kFloat, AffineForm::kZeroPoint});
      all.push_back({bits, group, axis, false, at::kHalf, at::kHalf, AffineForm::kZeroPoint});
      all.push_back({bits, group, axis, false, at::kHalf, at::kHalf, AffineForm::kMinimum});
      if (bits > 1) all.push_back({bits, group, axis, true, at::kHalf, at::kFloat, AffineForm::kMinimum});
    }
  const Rope rope = rope_of(dim);
  for (const AffineOptions& options : all) {
    const AffineCodec codec(options, dim);
    const int64_t tokens = 2 * 80 * 2;  // whole groups of 16, 32, 64 and 80 tokens, or nearly
    const int64_t whole = tokens / codec.group_tokens() * codec.group_tokens();
    KvView view = body_of(codec, codec, random_rows(2, whole, dim, rng), random_rows(2, whole, dim, rng));
    const int64_t groups = rng.between(1, 5), queries = rng.pick<int64_t>({1, 1, 5});
    INFO(fmt::format("D {} G {} T {} {}", dim, groups, queries, named(options)));
    check_view(view, random_rows(2 * groups, queries, dim, rng) * 0.5, whole - queries, rope);
  }
}

TEST_CASE("fused attention is that of plain loops in double over what the codec decodes") {
  Rng rng(derive_seed(5, "fused/double"));
  const int64_t dim = 64, tokens = 700, groups = 3;
  const AffineCodec keys({4, 32, GroupAxis::kChannel}, dim), values({3, 32, GroupAxis::kToken}, dim);
  const KvView view = body_of(keys, values, random_rows(1, 672, dim, rng), random_rows(1, 672, dim, rng));
  const at::Tensor q = random_rows(groups, 1, dim, rng);
  const at::Tensor k = keys.decode(view.keys[0].parts).to(at::kDouble)[0];
  const at::Tensor v = values.decode(view.values[0].parts).to(at::kDouble)[0];
  at::Tensor want = at::zeros({1, groups, dim}, at::kDouble);
  for (int64_t head = 0; head < groups; ++head) {
    double total = 0;
    for (int64_t t = 0; t < 672; ++t) {
      double score = 0;
      for (int64_t d = 0; d < dim; ++d)
        score += double(q.const_data_ptr<float>()[head * dim + d]) * k.const_data_ptr<double>()[t * dim + d];
      const double weight = std::exp(score / std::sqrt(double(dim)));
      total += weight;
      for (int64_t d = 0; d < dim; ++d)
        want.mutable_data_ptr<double>()[head * dim + d] += weight * v.const_data_ptr<double>()[t * dim + d];
    }
    want[0][head] /= total;
  }
  for (const NamedKernels& one : kernels_of_this_cpu()) {
    INFO(one.name);
    CHECK(off(attend_fused(view, q, tokens, rope_of(dim), *one.kernels)->output, want) < 2e-5);
  }
}

TEST_CASE("a query's bits do not depend on the queries beside it nor on the threads") {
  Rng rng(derive_seed(7, "fused/bits"));
  const int64_t dim = GENERATE(64, 128), groups = GENERATE(1, 3, 4);
  const Rope rope = rope_of(dim);
  const int threads = at::get_num_threads();
  for (int round = 0; round < 6; ++round) {
    const int64_t queries = 150, tokens = rng.between(queries, 1500);
    Made made = random_view(2, tokens, dim, round == 4, round == 5, rng);
    const at::Tensor q = random_rows(2 * groups, queries, dim, rng) * 0.5;
    const int64_t position = made.view.position + tokens - queries;
    INFO(fmt::format("round {} D {} G {} S {} {}", round, dim, groups, tokens, made.text));
    for (const NamedKernels& one : kernels_of_this_cpu()) {
      INFO(one.name);
      at::set_num_threads(1);
      const at::Tensor all = attend_fused(made.view, q, position, rope, *one.kernels)->output;
      at::set_num_threads(3);
      CHECK(at::equal(all, attend_fused(made.view, q, position, rope, *one.kernels)->output));
      for (const auto& [first, count] :
           std::vector<std::pair<int64_t, int64_t>>{{0, 1}, {149, 1}, {64, 2}, {3, 5}, {60, 17}, {100, 50}}) {
        const at::Tensor some =
            attend_fused(made.view, q.narrow(1, first, count), position + first, rope, *one.kernels)->output;
        CHECK(at::equal(some, all.narrow(0, first, count)));
      }
    }
  }
  at::set_num_threads(threads);
}

TEST_CASE("tokens that no cache has had are attended as an exact run of them is, bit for bit") {
  Rng rng(derive_seed(8, "fused/exact"));
  const int64_t dim = GENERATE(64, 128), groups = GENERATE(1, 3);
  const auto [queries, tokens] = GENERATE(table<int64_t, int64_t>({{1, 1}, {40, 40}, {1100, 1100}, {30, 700}}));
  // As projections lie in memory: [T, H, D].
  const auto rows = [&](int64_t heads, int64_t count) { return random_rows(count, heads, dim, rng).transpose(0, 1); };
  const at::Tensor q = rows(2 * groups, queries), k = rows(2, tokens), v = rows(2, tokens);
  const KvView view = body_of(kExact, kExact, k, v);
  INFO(fmt::format("D {} G {} T {} S {}", dim, groups, queries, tokens));
  for (const NamedKernels& one : kernels_of_this_cpu()) {
    INFO(one.name);
    CHECK(at::equal(attend_fused_exact(q, k, v, *one.kernels).value(),
                    attend_fused(view, q, tokens - queries, rope_of(dim), *one.kernels)->output));
  }
}

TEST_CASE("what lies behind a run's last token is never used") {
  Rng rng(derive_seed(9, "fused/behind"));
  const int64_t dim = GENERATE(64, 128, 80), bits = GENERATE(2, 3, 4, 5, 8), tokens = GENERATE(1, 33, 95, 640);
  const AffineCodec codec({bits, dim / 2}, dim);
  const Rope rope = rope_of(dim);
  const KvView view = body_of(codec, codec, random_rows(2, tokens, dim, rng), random_rows(2, tokens, dim, rng));
  KvView within = view;
  for (auto* runs : {&within.keys, &within.values})
    for (at::Tensor& part : (*runs)[0].parts) {
      std::vector<int64_t> sizes = part.sizes().vec();
      sizes[1] += 100;
      const at::Tensor larger = part.scalar_type() == at::kByte ? at::full(sizes, 0xff, part.options())
                                                                : at::full(sizes, NAN, part.options());
      larger.narrow(1, 0, tokens).copy_(part);
      part = larger.narrow(1, 0, tokens);
    }
  const at::Tensor q = random_rows(6, 1, dim, rng);
  for (const NamedKernels& one : kernels_of_this_cpu()) {
    INFO(fmt::format("{} D {} bits {} tokens {}", one.name, dim, bits, tokens));
    const auto plain = attend_fused(view, q, tokens, rope, *one.kernels);
    if (!plain) continue;  // a head dim that is not theirs
    CHECK(at::equal(plain->output, attend_fused(within, q, tokens, rope, *one.kernels)->output));
  }
}

TEST_CASE("weights of the softmax are exact to a few units in the last place") {
  // Scores are the keys' first channel, values are unit vectors: the output is the weights.
  const int64_t dim = 64;
  const at::Tensor k = at::zeros({1, dim, dim}), v = at::eye(dim).unsqueeze(0), q = at::zeros({1, 1, dim});
  const int64_t round = GENERATE(range(0, 40));
  Rng rng(derive_seed(static_cast<uint64_t>(round), "fused/exp"));
  std::vector<double> scores;
  for (int64_t t = 0; t < dim; ++t) {
    k[0][t][0] = t == 5 ? 0.0 : -rng.uniform() * (round % 2 == 0 ? 80 : 2);
    scores.push_back(k[0][t][0].item<double>());
  }
  q[0][0][0] = std::sqrt(static_cast<double>(dim));
  double total = 0;
  for (const double score : scores) total += std::exp(score);
  const KvView view = body_of(kExact, kExact, k, v);
  for (const NamedKernels& one : kernels_of_this_cpu()) {
    const at::Tensor got = attend_fused(view, q, dim, rope_of(dim), *one.kernels)->output;
    for (int64_t t = 0; t < dim; ++t) {
      INFO(fmt::format("{} score {}", one.name, scores[size_t(t)]));
      // 2 ulp of the exponential, half for the product with one, 1 for sum and quotient together.
      CHECK(std::abs(got[0][0][t].item<double>() / (std::exp(scores[size_t(t)]) / total) - 1) < 4 * 0x1p-23);
    }
  }
}

TEST_CASE("attention says by which path it went and counts what it read") {
  Rng rng(derive_seed(13, "fused/path"));
  const int64_t dim = 64;
  const AffineCodec codec({4, 32}, dim);
  const Rope rope = rope_of(dim);
  const at::Tensor k = random_rows(2, 50, dim, rng), v = random_rows(2, 50, dim, rng);
  const at::Tensor q = random_rows(4, 2, dim, rng);
  const auto check = [&](const KvView& view, const at::Tensor& queries, AttentionPath path) {
    const AttentionResult got = attend(view, queries, 48, rope), want = attend_reference(view, queries, 48, rope);
    CHECK(got.path == path);
    CHECK(got.output.scalar_type() == queries.scalar_type());
    CHECK(off(got.output, want.output) < 1e-4);
  };
  check(body_of(codec, codec, k, v), q, AttentionPath::kFused);
  check(body_of(kExact, kExact, k, v), q, AttentionPath::kFused);
  check(body_of(codec, kHalved, k, v), q, AttentionPath::kReference);
  check(body_of(codec, codec, k, v), q.to(at::kBFloat16), AttentionPath::kReference);
  KvView turned = body_of(codec, codec, k, v);
  turned.keys[0].basis = random_basis(2, dim, rng);
  check(turned, q, AttentionPath::kFused);
  turned.keys[0].rotation = KeyRotation::kPending;
  check(turned, q, AttentionPath::kReference);
  turned.keys[0].basis = at::Tensor();
  check(turned, q, AttentionPath::kFused);
  CHECK_THROWS(attend(KvView{}, q, 0, rope));
  KvView uneven = body_of(codec, codec, k, v);
  uneven.values[0].tokens = 49;
  uneven.values[0].parts = codec.encode(v.narrow(1, 0, 49));
  CHECK_THROWS(attend(uneven, q, 0, rope));
  turned.position = 3990;  // beyond the table of rotations
  CHECK_THROWS(attend(turned, q, 4050, rope));
}

TEST_CASE("a query that sees nothing gives NaN, as the reference does") {
  Rng rng(derive_seed(15, "fused/nothing"));
  const AffineCodec codec({4, 32}, 64);
  KvView view = body_of(codec, codec, random_rows(1, 20, 64, rng), random_rows(1, 20, 64, rng));
  view.position = 10;
  const at::Tensor q = random_rows(1, 4, 64, rng);  // at 8, 9, 10, 11
  const at::Tensor want = attend_reference(view, q, 8, rope_of(64)).output;
  for (const NamedKernels& one : kernels_of_this_cpu()) {
    const at::Tensor got = attend_fused(view, q, 8, rope_of(64), *one.kernels)->output;
    CHECK(at::equal(got.isnan(), want.isnan()));
    CHECK(off(got.narrow(0, 2, 2), want.narrow(0, 2, 2)) < 1e-4);
  }
}

}  // namespace kvsweep
