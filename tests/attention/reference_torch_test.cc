// oracle: the reference attention against plain loops in double over random views.
#include <ATen/ATen.h>
#include <fmt/format.h>

#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <catch2/generators/catch_generators_range.hpp>
#include <cmath>

#include "harness/attention/attention.h"
#include "harness/attention/reads.h"
#include "harness/core/random.h"
#include "tests/support/torch/exact_cache.h"

namespace kvsweep {
namespace {

// Stores half of every value: decode must really be called, and reads of it count.
class HalvedCodec : public Codec {
 public:
  std::string name() const override { return "halved"; }
  double nominal_bits() const override { return 8; }
  std::vector<PartSpec> parts() const override { return {{"half", ByteRole::kCodes}}; }
  std::vector<at::Tensor> encode(const at::Tensor& x) const override { return {x * 0.5}; }
  at::Tensor decode(const std::vector<at::Tensor>& parts) const override { return parts[0] * 2; }
};

const testing::PlainCodec kPlain;
const HalvedCodec kHalved;

using Cube = std::vector<std::vector<std::vector<double>>>;  // [H][S][D]

Cube zeros(int64_t a, int64_t b, int64_t c) {
  return Cube(size_t(a), std::vector<std::vector<double>>(size_t(b), std::vector<double>(size_t(c))));
}

// A view together with what it means: keys after RoPE and values, without bases, in double.
struct Case {
  KvView view;
  Cube keys, values;
  std::vector<int64_t> positions;
  std::vector<std::vector<bool>> keep;  // [H][S]
  std::vector<bool> lossy;              // [S]
};

constexpr int64_t kDim = 8;
const std::vector<float> kFrequencies = {1.0f, 0.25f, 0.1f, 0.01f};

std::vector<double> rotate(const std::vector<double>& x, int64_t position) {
  std::vector<double> out(x.size());
  const size_t half = x.size() / 2;
  for (size_t i = 0; i < half; ++i) {
    const double angle = static_cast<double>(position) * static_cast<double>(kFrequencies[i]);
    out[i] = x[i] * std::cos(angle) - x[i + half] * std::sin(angle);
    out[i + half] = x[i + half] * std::cos(angle) + x[i] * std::sin(angle);
  }
  return out;
}

// Orthonormal [H, D, D] or [D, D]: Q of a QR decomposition.
at::Tensor random_basis(int64_t heads, Rng& rng) {
  std::vector<int64_t> sizes = {kDim, kDim};
  if (rng.below(2) == 0) sizes.insert(sizes.begin(), heads);
  at::Tensor x = at::empty(sizes, at::kDouble);
  for (int64_t i = 0; i < x.numel(); ++i) x.mutable_data_ptr<double>()[i] = rng.normal();
  return std::get<0>(at::linalg_qr(x)).contiguous();
}

double basis_at(const at::Tensor& basis, int64_t head, int64_t i, int64_t j) {
  return basis.dim() == 3 ? basis[head][i][j].item<double>() : basis[i][j].item<double>();
}

struct CaseOptions {
  bool dropped = false, keep = false;
};

// Cuts `tokens` into up to four runs, some of them empty, each stored in a random way.
void fill_runs(Case& made, bool keys, int64_t heads, int64_t tokens, Rng& rng) {
  const Cube& meant = keys ? made.keys : made.values;
  auto& runs = keys ? made.view.keys : made.view.values;
  int64_t first = 0;
  while (first < tokens || runs.empty()) {
    const int64_t count = runs.size() >= 3 ? tokens - first : rng.between(0, tokens - first);
    KvRun run;
    run.codec = rng.below(2) == 0 ? static_cast<const Codec*>(&kPlain) : &kHalved;
    run.tokens = count;
    run.rotation = keys && rng.below(2) == 0 ? KeyRotation::kPending : KeyRotation::kApplied;
    if (rng.below(2) == 0) run.basis = random_basis(heads, rng);
    const at::Tensor stored = at::zeros({heads, count, kDim}, at::kDouble);
    for (int64_t head = 0; head < heads; ++head)
      for (int64_t token = 0; token < count; ++token) {
        std::vector<double> x = meant[size_t(head)][size_t(first + token)];
        if (run.rotation == KeyRotation::kPending) x = rotate(x, -made.positions[size_t(first + token)]);
        for (int64_t j = 0; j < kDim; ++j) {
          double sum = run.basis.defined() ? 0 : x[size_t(j)];
          if (run.basis.defined())
            for (int64_t i = 0; i < kDim; ++i) sum += x[size_t(i)] * basis_at(run.basis, head, i, j);
          stored[head][token][j] = sum;
        }
      }
    if (run.basis.defined()) run.basis = run.basis.to(at::kFloat);
    run.parts = run.codec->encode(stored.to(at::kFloat));
    if (!run.codec->exact())
      for (int64_t token = first; token < first + count; ++token) made.lossy[size_t(token)] = true;
    runs.push_back(std::move(run));
    first += count;
  }
}

Case random_case(int64_t heads, int64_t tokens, CaseOptions options, Rng& rng) {
  Case made;
  made.keys = zeros(heads, tokens, kDim);
  made.values = zeros(heads, tokens, kDim);
  for (Cube* cube : {&made.keys, &made.values})
    for (auto& head : *cube)
      for (auto& token : head)
        for (double& value : token) value = rng.normal();
  made.view.position = rng.between(0, 20);
  int64_t position = made.view.position;
  for (int64_t token = 0; token < tokens; ++token) {
    made.positions.push_back(position);
    position += options.dropped ? rng.between(1, 4) : 1;
  }
  if (options.dropped) made.view.positions = at::tensor(made.positions, at::kLong);
  made.keep.assign(size_t(heads), std::vector<bool>(size_t(tokens), true));
  if (options.keep) {
    made.view.keep = at::ones({heads, tokens}, at::kBool);
    for (int64_t head = 0; head < heads; ++head)
      for (int64_t token = 1; token < tokens; ++token)  // the first token stays, so that no query sees nothing
        if (rng.below(3) == 0) {
          made.keep[size_t(head)][size_t(token)] = false;
          made.view.keep[head][token] = false;
        }
  }
  made.lossy.assign(size_t(tokens), false);
  fill_runs(made, true, heads, tokens, rng);
  fill_runs(made, false, heads, tokens, rng);
  return made;
}

// softmax(q k^T / sqrt(D)) v over visible tokens, [T][Hq][D].
Cube attend_in_double(const Case& made, const Cube& q, int64_t position) {
  const size_t query_heads = q.size(), queries = q[0].size(), groups = query_heads / made.keys.size();
  Cube out = zeros(int64_t(queries), int64_t(query_heads), kDim);
  for (size_t head = 0; head < query_heads; ++head)
    for (size_t query = 0; query < queries; ++query) {
      const size_t kv = head / groups;
      double total = 0;
      for (size_t token = 0; token < made.positions.size(); ++token) {
        if (!made.keep[kv][token] || made.positions[token] > position + int64_t(query)) continue;
        double dot = 0;
        for (size_t i = 0; i < size_t(kDim); ++i) dot += q[head][query][i] * made.keys[kv][token][i];
        const double weight = std::exp(dot / std::sqrt(double(kDim)));
        total += weight;
        for (size_t i = 0; i < size_t(kDim); ++i) out[query][head][i] += weight * made.values[kv][token][i];
      }
      for (double& value : out[query][head]) value /= total;
    }
  return out;
}

int64_t reads_by_counting(const Case& made, int64_t queries, int64_t position) {
  int64_t reads = 0;
  for (int64_t query = 0; query < queries; ++query)
    for (size_t token = 0; token < made.positions.size(); ++token) {
      bool kept = false;
      for (const auto& head : made.keep) kept = kept || head[token];
      if (kept && made.lossy[token] && made.positions[token] <= position + query) ++reads;
    }
  return reads;
}

at::Tensor to_tensor(const Cube& cube) {
  const at::Tensor out = at::empty({int64_t(cube.size()), int64_t(cube[0].size()), int64_t(cube[0][0].size())});
  float* at = out.mutable_data_ptr<float>();
  for (const auto& plane : cube)
    for (const auto& line : plane)
      for (const double value : line) *at++ = static_cast<float>(value);
  return out;
}

void check_case(int64_t heads, int64_t groups, int64_t queries, CaseOptions options, Rng& rng) {
  const Rope rope(kFrequencies, 1.0f, at::kCPU, 1000);
  const int64_t tokens = rng.between(queries, 40);
  const Case made = random_case(heads, tokens, options, rng);
  // Queries sit on the last tokens, as in a step; sometimes earlier, so that whole runs lie in the future.
  const int64_t position = rng.below(4) == 0 ? made.positions[0] : made.positions[size_t(tokens - queries)];
  Cube q = zeros(heads * groups, queries, kDim);
  for (auto& head : q)
    for (auto& query : head)
      for (double& value : query) value = rng.normal();
  const AttentionResult result = attend_reference(made.view, to_tensor(q), position, rope);
  REQUIRE(result.output.sizes() == at::IntArrayRef({queries, heads * groups, kDim}));
  CHECK((result.output - to_tensor(attend_in_double(made, q, position))).abs().max().item<double>() < 2e-5);
  int64_t reads = 0;
  for (int64_t query = 0; query < queries; ++query) reads += compressed_reads(made.view, position + query);
  CHECK(reads == reads_by_counting(made, queries, position));
}

}  // namespace

TEST_CASE("random views give what plain loops give") {
  Rng rng(derive_seed(11, "attention"));
  const auto [dropped, keep] =
      GENERATE(std::pair{false, false}, std::pair{true, false}, std::pair{false, true}, std::pair{true, true});
  for (int round = 0; round < 60; ++round) {
    const int64_t heads = rng.between(1, 3), groups = rng.between(1, 4), queries = rng.between(1, 5);
    INFO(fmt::format("round {} heads {} groups {} queries {} dropped {} keep {}", round, heads, groups, queries,
                     dropped, keep));
    check_case(heads, groups, queries, {dropped, keep}, rng);
  }
}

TEST_CASE("many queries over a long view are the queries one by one") {
  // 6 heads x 2500 queries x 2500 tokens are more scores than one block holds.
  const Rope rope(kFrequencies, 1.0f, at::kCPU, 4000);
  at::manual_seed(3);
  const at::Tensor k = at::randn({2, 2500, kDim}), v = at::randn({2, 2500, kDim}), q = at::randn({6, 2500, kDim});
  KvView view;
  view.keys.push_back({&kPlain, {k}, 2500, KeyRotation::kApplied, {}});
  view.values.push_back({&kHalved, kHalved.encode(v), 2500, KeyRotation::kApplied, {}});
  const AttentionResult all = attend_reference(view, q, 0, rope);
  for (const int64_t query : {0, 1, 1023, 1700, 2499}) {
    const AttentionResult one = attend_reference(view, q.narrow(1, query, 1), query, rope);
    CHECK((one.output - all.output.narrow(0, query, 1)).abs().max().item<double>() < 1e-5);
    CHECK(compressed_reads(view, query) == query + 1);
  }
}

TEST_CASE("the output has the dtype of the queries") {
  const Rope rope(kFrequencies, 1.0f, at::kCPU, 100);
  KvView view;
  const at::Tensor x = at::ones({1, 3, kDim}, at::kBFloat16);
  view.keys.push_back({&kPlain, {x}, 3, KeyRotation::kPending, {}});
  view.values.push_back({&kPlain, {x}, 3, KeyRotation::kApplied, {}});
  const AttentionResult result = attend_reference(view, x.narrow(1, 0, 1), 2, rope);
  CHECK(result.output.scalar_type() == at::kBFloat16);
  CHECK(at::equal(result.output, at::ones({1, 1, kDim}, at::kBFloat16)));
}

TEST_CASE("attention over tokens of no cache is the reference's, by kernels and by the library") {
  const auto dtype = GENERATE(at::kFloat, at::kBFloat16);
  const auto [queries, tokens] = GENERATE(table<int64_t, int64_t>({{1, 1}, {90, 90}, {600, 900}}));
  Rng rng(derive_seed(5, "reference/exact"));
  const auto rows = [&](int64_t heads, int64_t count) {
    const at::Tensor x = at::empty({count, heads, 64});
    for (int64_t i = 0; i < x.numel(); ++i) x.mutable_data_ptr<float>()[i] = static_cast<float>(rng.normal());
    return x.transpose(0, 1).to(dtype);
  };
  const at::Tensor q = rows(6, queries), k = rows(2, tokens), v = rows(2, tokens);
  KvView view;
  view.keys.push_back({&kPlain, {k}, tokens, KeyRotation::kApplied, {}});
  view.values.push_back({&kPlain, {v}, tokens, KeyRotation::kApplied, {}});
  const at::Tensor got = attend_exact(q, k, v);
  const at::Tensor want = attend_reference(view, q, tokens - queries, Rope(kFrequencies, 1.0f, at::kCPU, 100)).output;
  CHECK(got.scalar_type() == dtype);
  CHECK(got.sizes() == want.sizes());
  const double gap = (got.to(at::kFloat) - want.to(at::kFloat)).abs().max().item<double>();
  CHECK(gap < (dtype == at::kFloat ? 1e-5 : 3e-2));
  CHECK_THROWS(attend_exact(q, k.narrow(1, 0, queries - 1), v.narrow(1, 0, queries - 1)));
  CHECK_THROWS(attend_exact(rows(5, queries), k, v));
}

TEST_CASE("views whose keys and values disagree are refused") {
  const Rope rope(kFrequencies, 1.0f, at::kCPU, 100);
  KvView view;
  const at::Tensor q = at::ones({1, 1, kDim});
  CHECK_THROWS(attend_reference(view, q, 0, rope));
  view.keys.push_back({&kPlain, {at::ones({1, 3, kDim})}, 3, KeyRotation::kApplied, {}});
  view.values.push_back({&kPlain, {at::ones({1, 2, kDim})}, 2, KeyRotation::kApplied, {}});
  CHECK_THROWS(attend_reference(view, q, 2, rope));
  view.values[0].tokens = 3;
  CHECK_THROWS(attend_reference(view, q, 2, rope));
}

}  // namespace kvsweep
