// golden: the model runner against transformers 5.2.0 in float32 (tests/golden/models, README there). Tolerances are
// those of the vectors: 2e-3 on logits (1e-3 for the tiny models), 1e-4 relative on norms, 1e-3 on a token's NLL; an
// argmax must be equal where the gap to the next logit is larger than that.
#include <ATen/ATen.h>
#include <c10/core/InferenceMode.h>
#include <fmt/format.h>

#include <catch2/catch_test_macros.hpp>
#include <cmath>
#include <cstring>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <sstream>

#include "models/llama.h"
#include "models/weight_source.h"
#include "tests/support/golden.h"
#include "tests/support/stories_weights.h"
#include "tests/support/torch/exact_cache.h"

namespace kvsweep {
namespace {

using Json = nlohmann::json;
using Tokens = std::vector<int32_t>;

constexpr double kGap = 1e-3;  // between the first and the second logit, below which either may win

std::vector<Json> read_lines(const std::filesystem::path& path) {
  std::vector<Json> lines;
  std::istringstream in(testing::read_text(path));
  for (std::string line; std::getline(in, line);) lines.push_back(Json::parse(line));
  return lines;
}

at::Tensor floats(const Json& values) {
  return at::tensor(values.get<std::vector<double>>(), at::kDouble);
}

// L2 norms of hidden states at `positions`: entry 0 the embedding, then after each block but the last, whose output
// only the final norm reads; `last` [T, hidden] is what that one gave.
std::vector<std::vector<double>> hidden_norms(const Llama& llama, const Tokens& tokens,
                                              const std::vector<int64_t>& positions, const at::Tensor& last) {
  std::vector<std::vector<double>> norms(positions.size());
  const auto note = [&](const at::Tensor& hidden) {
    for (size_t i = 0; i < positions.size(); ++i) norms[i].push_back(hidden[positions[i]].norm().item<double>());
  };
  at::Tensor hidden = llama.start_prefill(tokens);
  note(hidden);
  for (int64_t layer = 0; layer + 1 < llama.config().layers; ++layer) {
    llama.prefill_layer(layer, hidden, nullptr);
    note(hidden);
  }
  note(last);
  return norms;
}

double largest_difference(const at::Tensor& a, const at::Tensor& b) {
  REQUIRE(a.numel() == b.numel());
  return (a.flatten().to(at::kDouble) - b.flatten().to(at::kDouble)).abs().max().item<double>();
}

double largest_relative(const std::vector<double>& came, const Json& expected) {
  REQUIRE(came.size() == expected.size());
  double worst = 0;
  for (size_t i = 0; i < came.size(); ++i) worst = std::max(worst, std::abs(came[i] / expected[i].get<double>() - 1));
  return worst;
}

struct Model {
  Llama llama;
  explicit Model(const std::filesystem::path& path) : llama(read_config(path), *open_weights(path), {}) {}
};

const Llama& smollm2() {
  static const Model model(testing::smollm2_or_skip());
  return model.llama;
}

// Everything that one prefill gives, for all positions.
struct Pass {
  at::Tensor hidden;
  std::map<int64_t, KvSlab> slabs;
};

Pass run(const Llama& llama, const Tokens& tokens) {
  Pass pass;
  pass.hidden = llama.prefill(
      tokens,
      [&](int64_t layer, const KvSlab& slab) {
        pass.slabs[layer] = {slab.k.clone(), slab.v.clone(), slab.position};
      },
      static_cast<int64_t>(tokens.size()));
  return pass;
}

// Positions whose most likely token differs although its lead is clear.
int64_t wrong_argmax(const at::Tensor& logits, const Json& expected, int64_t first = 0) {
  const auto [values, ids] = logits.topk(2, -1);
  int64_t wrong = 0;
  for (int64_t i = 0; i < logits.size(0); ++i) {
    const double gap = (values[i][0] - values[i][1]).item<double>();
    if (gap > kGap && ids[i][0].item<int64_t>() != expected[size_t(first + i)].get<int64_t>()) ++wrong;
  }
  return wrong;
}

// Greedy continuation through prefill and step.
Tokens greedy(const Llama& llama, const Tokens& prompt, size_t count) {
  testing::ExactCache cache(llama.cache_context(static_cast<int64_t>(prompt.size() + count)));
  at::Tensor hidden = llama.prefill(
      prompt, [&](int64_t layer, const KvSlab& slab) { cache.append(layer, slab); }, 1);
  Tokens tokens;
  std::vector<Row> rows = {{.cache = &cache, .tokens = {0}, .position = 0, .slabs = {1}}};
  while (true) {
    tokens.push_back(static_cast<int32_t>(llama.logits(hidden).argmax().item<int64_t>()));
    if (tokens.size() == count) return tokens;
    rows[0].tokens = {tokens.back()};
    rows[0].position = static_cast<int64_t>(prompt.size() + tokens.size() - 1);
    hidden = llama.step(rows);
  }
}

void check_top(const at::Tensor& logits, const Json& expected, double tolerance) {
  const at::Tensor ids = at::tensor(expected["top_ids"].get<std::vector<int64_t>>(), at::kLong);
  CHECK(largest_difference(logits.flatten().index_select(0, ids), floats(expected["top_values"])) < tolerance);
}

// Logits, NLL and argmax of all positions, in blocks: the logits of a whole text are too large to hold.
void check_all_positions(const Llama& llama, const at::Tensor& hidden, const Json& golden) {
  constexpr int64_t kBlock = 128;
  int64_t wrong = 0;
  double worst_nll = 0;
  for (int64_t at = 0; at < hidden.size(0); at += kBlock) {
    const int64_t count = std::min(kBlock, hidden.size(0) - at);
    const at::Tensor logits = llama.logits(hidden.narrow(0, at, count));
    wrong += wrong_argmax(logits, golden["argmax_all"], at);
    if (!golden.contains("nll")) continue;
    const at::Tensor log_probabilities = logits.log_softmax(-1);
    for (int64_t i = 0; i < count && at + i + 1 < hidden.size(0); ++i) {
      const int64_t next = golden["ids"][size_t(at + i + 1)].get<int64_t>();
      const double nll = -log_probabilities[i][next].item<double>();
      worst_nll = std::max(worst_nll, std::abs(nll - golden["nll"][size_t(at + i)].get<double>()));
    }
  }
  CHECK(wrong == 0);
  CHECK(worst_nll < 1e-3);
}

void check_logits(const Llama& llama, const at::Tensor& hidden, const Json& golden) {
  for (const Json& expected : golden["logits"]) {
    INFO("position " << expected["pos"]);
    const at::Tensor logits = llama.logits(hidden.narrow(0, expected["pos"].get<int64_t>(), 1));
    check_top(logits, expected, 2e-3);
    CHECK(std::abs(logits.logsumexp(1).item<double>() - expected["logsumexp"].get<double>()) < 2e-3);
    CHECK(std::abs(logits.min().item<double>() - expected["min"].get<double>()) < 2e-3);
    // A sum over the vocabulary: its error is at most that many single ones.
    const double per_logit =
        (logits.sum(at::kDouble).item<double>() - expected["sum"].get<double>()) / static_cast<double>(logits.numel());
    CHECK(std::abs(per_logit) < 2e-3);
  }
}

// Eight raw values each; here [H, D].
void check_raw_values(const at::Tensor& here, const std::string& name, const Json& golden) {
  struct Place {
    std::string suffix;
    int64_t head, first;
  };
  for (const Place& place : {Place{"_head0_first8", 0, 0}, Place{"_head1_first8", 1, 0}, Place{"_head0_32_39", 0, 32},
                             Place{"_head2_last8", 2, here.size(1) - 8}}) {
    if (!golden.contains(name + place.suffix)) continue;
    const at::Tensor head = here[place.head];
    CHECK(largest_difference(head.narrow(0, place.first, 8), floats(golden[name + place.suffix])) <
          1e-4 * head.norm().item<double>());
  }
}

void check_kv(const Llama& llama, const Pass& pass, const Json& golden) {
  for (const auto& [layer, expected] : golden["kv"].items()) {
    const KvSlab& slab = pass.slabs.at(std::stoll(layer));
    const std::map<std::string, at::Tensor> tensors = {
        {"k_pre", slab.k}, {"k_rope", llama.rope().apply(slab.k, 0)}, {"v", slab.v}};
    for (const auto& [name, tensor] : tensors) {
      INFO("layer " << layer << " " << name);
      CHECK(largest_relative({tensor.norm().item<double>()}, Json::array({expected[name + "_l2_total"]})) < 1e-4);
      for (const auto& [row, values] : expected["rows"].items()) {
        INFO("position " << row);
        const at::Tensor here = tensor.select(1, std::stoll(row));  // [H, D]
        std::vector<double> norms;
        for (int64_t head = 0; head < here.size(0); ++head) norms.push_back(here[head].norm().item<double>());
        CHECK(largest_relative(norms, values[name + "_l2"]) < 1e-4);
        check_raw_values(here, name, values);
      }
    }
  }
}

void check_hidden_norms(const Llama& llama, const Tokens& tokens, const Pass& pass, const Json& golden) {
  std::vector<int64_t> positions;
  for (const auto& [position, norms] : golden.items()) positions.push_back(std::stoll(position));
  const auto norms = hidden_norms(llama, tokens, positions, pass.hidden);
  for (size_t i = 0; i < positions.size(); ++i) {
    INFO("position " << positions[i]);
    CHECK(largest_relative(norms[i], golden[std::to_string(positions[i])]) < 1e-4);
  }
}

void check_greedy(const Llama& llama, const Json& golden) {
  const Tokens expected = golden["ids"].get<Tokens>();
  const Tokens came = greedy(llama, golden["prompt_ids"].get<Tokens>(), expected.size());
  for (size_t i = 0; i < expected.size(); ++i) {
    if (golden["top2_margin"][i].get<double>() < kGap) return;  // from here on another program may go another way
    INFO("token " << i);
    REQUIRE(came[i] == expected[i]);
  }
}

void check_left_padded(const Llama& llama, const Json& golden) {
  for (size_t row = 0; row < golden["ids"].size(); ++row) {
    INFO("row " << row);
    Tokens tokens;
    for (size_t i = 0; i < golden["ids"][row].size(); ++i)
      if (golden["attention_mask"][row][i].get<int>() == 1) tokens.push_back(golden["ids"][row][i].get<int32_t>());
    check_top(llama.logits(llama.prefill(tokens, nullptr, 1)), golden["last"][row], 2e-3);
  }
}

std::optional<at::Tensor> whole_logits(const std::filesystem::path& path) {
  if (!std::filesystem::exists(path)) return std::nullopt;
  const std::string bytes = testing::read_text(path);
  const at::Tensor values = at::empty({static_cast<int64_t>(bytes.size() / sizeof(float))}, at::kFloat);
  std::memcpy(values.mutable_data_ptr<float>(), bytes.data(), bytes.size());
  return values;
}

void check_prompt(const Llama& llama, const Json& golden, const std::filesystem::path& folder) {
  const Tokens tokens = golden["ids"].get<Tokens>();
  const Pass pass = run(llama, tokens);
  check_logits(llama, pass.hidden, golden);
  check_kv(llama, pass, golden);
  check_all_positions(llama, pass.hidden, golden);
  check_hidden_norms(llama, tokens, pass, golden["hidden_l2"]);
  const std::string name = golden["name"].get<std::string>();
  if (const auto expected = whole_logits(folder / fmt::format("logits_{}_last.f32", name)))
    CHECK(largest_difference(llama.logits(pass.hidden.narrow(0, pass.hidden.size(0) - 1, 1)), *expected) < 2e-3);
}

// Every prompt of a length in [shortest, longest].
void check_prompts(size_t shortest, size_t longest) {
  const c10::InferenceMode guard;
  int64_t prompts = 0;
  for (const auto& file : testing::golden_files("models/logits_[^/]*[.]jsonl"))
    for (const Json& golden : read_lines(file)) {
      if (!golden.contains("hidden_l2") || golden["ids"].size() < shortest || golden["ids"].size() > longest) continue;
      INFO(file.string() << " " << golden["name"].get<std::string>());
      check_prompt(smollm2(), golden, file.parent_path());
      ++prompts;
    }
  CHECK(prompts > 0);
}

}  // namespace

TEST_CASE("SmolLM2 gives the logits, hidden norms, keys and values of transformers", "[golden]") {
  check_prompts(1, 1000);
}

TEST_CASE("SmolLM2 gives what transformers gives for long texts", "[golden][slow]") {
  check_prompts(1001, 8192);
}

TEST_CASE("SmolLM2 writes the greedy texts of transformers and needs no padding", "[golden]") {
  const c10::InferenceMode guard;
  int64_t texts = 0, batches = 0;
  for (const auto& file : testing::golden_files("models/logits_[^/]*[.]jsonl"))
    for (const Json& golden : read_lines(file)) {
      INFO(file.string() << " " << golden["name"].get<std::string>());
      if (golden.contains("top2_margin")) {
        check_greedy(smollm2(), golden);
        ++texts;
      } else if (golden.contains("attention_mask")) {
        check_left_padded(smollm2(), golden);
        ++batches;
      }
    }
  CHECK(texts > 0);
  CHECK(batches > 0);
}

TEST_CASE("tiny checkpoints of every flavour give what transformers gives", "[golden]") {
  const c10::InferenceMode guard;
  const auto files = testing::golden_files("models/tiny_hf/[^/]*/expected[.]json");
  REQUIRE_FALSE(files.empty());
  for (const auto& file : files) {
    INFO(file.string());
    const Json golden = Json::parse(testing::read_text(file));
    const Model model(file.parent_path());
    const Tokens tokens = golden["ids"].get<Tokens>();
    const Pass pass = run(model.llama, tokens);
    const at::Tensor logits = model.llama.logits(pass.hidden);
    for (const auto& [position, expected] : golden["logits"].items())
      CHECK(largest_difference(logits[std::stoll(position)], floats(expected)) < 1e-3);
    CHECK(wrong_argmax(logits, golden["argmax_all"]) == 0);
    const auto norms = hidden_norms(model.llama, tokens, {static_cast<int64_t>(tokens.size()) - 1}, pass.hidden);
    CHECK(largest_relative(norms[0], golden["hidden_l2_last"]) < 1e-4);
    const at::Tensor rotated = model.llama.rope().apply(pass.slabs.at(0).k, 0);
    CHECK(largest_difference(rotated.select(1, 99), floats(golden["k_rope_layer0_row99"])) < 1e-4);
    CHECK(largest_difference(pass.slabs.at(1).v.select(1, 50), floats(golden["v_layer1_row50"])) < 1e-4);
    CHECK(greedy(model.llama, Tokens(tokens.begin(), tokens.begin() + 20), 20) ==
          golden["greedy20_from_first20"].get<Tokens>());
  }
}

TEST_CASE("a GGUF of mixed types gives the logits that transformers gives for the file", "[golden]") {
  const c10::InferenceMode guard;
  const auto files = testing::golden_files("models/[^/]*[.]gguf[.]json");
  REQUIRE_FALSE(files.empty());
  for (const auto& file : files) {
    INFO(file.string());
    const Json golden = Json::parse(testing::read_text(file));
    const Model model(file.parent_path() / file.stem());
    const at::Tensor logits = model.llama.logits(run(model.llama, golden["prompt"].get<Tokens>()).hidden);
    CHECK(largest_difference(logits[-1], floats(golden["logits_last_f32_weights"])) < 1e-3);
    CHECK(wrong_argmax(logits, golden["argmax_all"]) == 0);
    const at::Tensor sums = logits.sum({-1}, false, at::kDouble);
    CHECK(largest_difference(sums, floats(golden["logit_sums"])) < 1e-3);
  }
}

TEST_CASE("a llama2.c checkpoint tells its stories", "[golden]") {
  const c10::InferenceMode guard;
  const auto files = testing::golden_files("models/stories[^/]*[.]jsonl");
  REQUIRE_FALSE(files.empty());
  std::optional<testing::StoriesWeights> weights;
  for (const auto& root : testing::data_roots())
    if (const auto path = root / "stories260K/stories260K.bin"; !weights && std::filesystem::exists(path))
      weights.emplace(path);
  if (!weights) SKIP("no stories260K/stories260K.bin below $KVSWEEP_DATA");
  const Llama llama(weights->config(), *weights, {});
  for (const auto& file : files)
    for (const Json& golden : read_lines(file)) {
      INFO(file.string() << ": '" << golden["text"].get<std::string>() << "'");
      const Tokens tokens = golden["ids_with_bos"].get<Tokens>();
      const at::Tensor logits = llama.logits(run(llama, tokens).hidden);
      CHECK(largest_difference(logits[-1], floats(golden["logits_last"])) < 1e-3);
      CHECK(wrong_argmax(logits, golden["argmax_all"]) == 0);
      CHECK(greedy(llama, tokens, golden["greedy64"].size()) == golden["greedy64"].get<Tokens>());
    }
}

}  // namespace kvsweep
