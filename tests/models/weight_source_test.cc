// contract, golden: weights come under one set of names and in one row order, whatever file they lie in.
#include "models/weight_source.h"

#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_exception.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include <cmath>
#include <cstring>
#include <fstream>
#include <functional>
#include <map>
#include <nlohmann/json.hpp>
#include <numeric>
#include <set>

#include "harness/core/error.h"
#include "harness/core/hash.h"
#include "tests/support/gguf_builder.h"
#include "tests/support/golden.h"

namespace kvsweep {
namespace fs = std::filesystem;
using Catch::Matchers::ContainsSubstring;
using Catch::Matchers::MessageMatches;
using nlohmann::json;
using testing::bytes_of;

namespace {

std::vector<float> read_all(const WeightSource& weights, const std::string& name) {
  const auto shape = weights.shape(name);
  std::vector<float> values(
      static_cast<size_t>(std::accumulate(shape.begin(), shape.end(), int64_t{1}, std::multiplies<>())));
  weights.read(name, values.data());
  return values;
}

std::string sha256_of(const std::vector<float>& values) {
  return sha256_hex({reinterpret_cast<const char*>(values.data()), values.size() * sizeof(float)});
}

// Every tensor of a Llama without biases: Hugging Face name -> GGUF name.
std::map<std::string, std::string> llama_names(const LlamaConfig& config) {
  std::map<std::string, std::string> names = {{"model.embed_tokens.weight", "token_embd.weight"},
                                              {"model.norm.weight", "output_norm.weight"}};
  if (!config.tied_head) names["lm_head.weight"] = "output.weight";
  for (int64_t i = 0; i < config.layers; ++i) {
    const std::string hf = "model.layers." + std::to_string(i) + ".";
    const std::string gguf = "blk." + std::to_string(i) + ".";
    names[hf + "input_layernorm.weight"] = gguf + "attn_norm.weight";
    names[hf + "self_attn.q_proj.weight"] = gguf + "attn_q.weight";
    names[hf + "self_attn.k_proj.weight"] = gguf + "attn_k.weight";
    names[hf + "self_attn.v_proj.weight"] = gguf + "attn_v.weight";
    names[hf + "self_attn.o_proj.weight"] = gguf + "attn_output.weight";
    names[hf + "post_attention_layernorm.weight"] = gguf + "ffn_norm.weight";
    names[hf + "mlp.gate_proj.weight"] = gguf + "ffn_gate.weight";
    names[hf + "mlp.up_proj.weight"] = gguf + "ffn_up.weight";
    names[hf + "mlp.down_proj.weight"] = gguf + "ffn_down.weight";
  }
  return names;
}

std::vector<std::string> keys_of(const std::map<std::string, std::string>& map) {
  std::vector<std::string> keys;
  for (const auto& [key, value] : map) keys.push_back(key);
  return keys;
}

// A value of a safetensors file, the slow way.
double raw_value(const std::string& dtype, const char* bytes) {
  if (dtype == "F32") {
    float value;
    std::memcpy(&value, bytes, sizeof value);
    return static_cast<double>(value);
  }
  uint16_t bits;
  std::memcpy(&bits, bytes, sizeof bits);
  const double sign = bits & 0x8000 ? -1 : 1;
  const int mantissa_bits = dtype == "BF16" ? 7 : 10;
  const int bias = dtype == "BF16" ? 127 : 15;
  const int exponent = (bits & 0x7fff) >> mantissa_bits;
  const int mantissa = bits & ((1 << mantissa_bits) - 1);
  const int whole = exponent == 0 ? mantissa : mantissa + (1 << mantissa_bits);
  return sign * std::ldexp(whole, std::max(exponent, 1) - bias - mantissa_bits);
}

// Compares every tensor of one shard with its bytes; returns their names.
std::set<std::string> check_shard(const WeightSource& weights, const fs::path& path) {
  const std::string file = testing::read_text(path);
  uint64_t length;
  std::memcpy(&length, file.data(), sizeof length);
  const json header = json::parse(file.substr(8, length));
  std::set<std::string> names;
  for (const auto& [name, entry] : header.items()) {
    if (name == "__metadata__") continue;
    INFO(path.string() << " " << name);
    names.insert(name);
    const auto dtype = entry["dtype"].get<std::string>();
    const char* bytes = file.data() + 8 + length + entry["data_offsets"][0].get<size_t>();
    CHECK(weights.shape(name) == entry["shape"].get<std::vector<int64_t>>());
    const std::vector<float> values = read_all(weights, name);
    const size_t value_bytes = dtype == "F32" ? 4 : 2;
    size_t different = 0;
    for (size_t i = 0; i < values.size(); ++i)
      different += static_cast<double>(values[i]) != raw_value(dtype, bytes + i * value_bytes);
    CHECK(different == 0);
    CHECK(weights.place(name) == path.string() + ": " + name);
  }
  return names;
}

std::string safetensors(const std::string& name, float value) {
  const std::string header = "{\"" + name + R"(":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})";
  return bytes_of(uint64_t{header.size()}) + header + bytes_of(value);
}

void check_refused(const fs::path& path, const std::string& message) {
  CHECK_THROWS_MATCHES(open_weights(path), DataError, MessageMatches(ContainsSubstring(message)));
}

}  // namespace

TEST_CASE("a Hugging Face directory gives every value of its shards", "[golden]") {
  const auto configs = testing::golden_files("models/tiny_hf/[^/]*/config[.]json");
  REQUIRE_FALSE(configs.empty());
  for (const fs::path& config : configs) {
    const auto weights = open_weights(config.parent_path());
    std::set<std::string> names;
    std::map<std::string, std::string> lines;
    for (const auto& entry : fs::directory_iterator(config.parent_path())) {
      if (entry.path().extension() != ".safetensors") continue;
      names.merge(check_shard(*weights, entry.path()));
      const std::string file = entry.path().filename().string();
      lines[file] = file + " " + sha256_hex(testing::read_text(entry.path())) + "\n";
    }
    const auto listed = weights->names();
    CHECK(std::set<std::string>(listed.begin(), listed.end()) == names);
    CHECK(listed.size() == names.size());
    const LlamaConfig facts = read_config(config.parent_path());
    for (const auto& [hf, gguf] : llama_names(facts)) CHECK(weights->has(hf));
    CHECK(weights->has("model.layers.0.self_attn.q_proj.bias") == facts.attention_bias);
    CHECK(weights->has("model.layers.0.mlp.up_proj.bias") == facts.mlp_bias);
    std::string text;
    for (const auto& [file, line] : lines) text += line;
    CHECK(weights->sha256() == sha256_hex(text));
  }
}

TEST_CASE("a GGUF file has Hugging Face names", "[golden]") {
  for (const auto& path : testing::golden_files("models/tiny_[^/]*[.]gguf")) {
    const auto weights = open_weights(path);
    const auto names = llama_names(read_config(path));
    CHECK(weights->names() == keys_of(names));
    for (const auto& [hf, gguf] : names) CHECK(weights->place(hf) == path.string() + ": " + gguf);
  }
}

TEST_CASE("SmolLM2's weights have the golden bits of transformers' state dict", "[golden]") {
  const auto model = testing::smollm2_or_skip();
  const auto files = testing::golden_files("models/gguf_tensors_smollm2[.]jsonl");
  REQUIRE_FALSE(files.empty());
  const auto weights = open_weights(model);
  const auto names = llama_names(read_config(model));
  CHECK(weights->names() == keys_of(names));
  for (const auto& path : files) {
    INFO(path.string());
    std::ifstream in(path);
    std::string line;
    std::map<std::string, json> by_name;
    REQUIRE(std::getline(in, line));
    CHECK(weights->sha256() == json::parse(line)["file_sha256"].get<std::string>());
    while (std::getline(in, line)) {
      const json facts = json::parse(line);
      by_name[facts["name"].get<std::string>()] = facts;
    }
    REQUIRE(by_name.size() == names.size());
    int permuted = 0;
    for (const auto& [hf, gguf] : names) {
      INFO(hf);
      const json& facts = by_name.at(gguf);
      const bool moved = facts.value("permuted", false);
      permuted += moved;
      CHECK(weights->shape(hf) == facts["shape"].get<std::vector<int64_t>>());
      const std::vector<float> values = read_all(*weights, hf);
      const auto first16 = facts[moved ? "first16_half_split" : "first16"].get<std::vector<float>>();
      CHECK(std::equal(first16.begin(), first16.end(), values.begin()));
      CHECK(sha256_of(values) == facts[moved ? "sha256_f32_half_split" : "sha256_f32"].get<std::string>());
    }
    CHECK(permuted == 30 * 2);  // layers x (q, k)
  }
}

TEST_CASE("rows and biases of q and k go from interleaved to half-split pairs") {
  // 2 heads and 1 key-value head of 4: file rows 0 1 2 3 of a head are rows 0 2 1 3 of half-split order.
  std::vector<float> q(8 * 8), k(4 * 8), q_bias(8), k_bias(4);
  for (size_t i = 0; i < q.size(); ++i) q[i] = static_cast<float>(i / 8);
  for (size_t i = 0; i < k.size(); ++i) k[i] = static_cast<float>(i / 8);
  std::iota(q_bias.begin(), q_bias.end(), 0.0f);
  std::iota(k_bias.begin(), k_bias.end(), 0.0f);
  const auto file = testing::tiny_llama_gguf()
                        .tensor_f32("blk.0.attn_q.weight", {8, 8}, q)
                        .tensor_f32("blk.0.attn_k.weight", {4, 8}, k)
                        .tensor_f32("blk.0.attn_v.weight", {4, 8}, k)
                        .tensor_f32("blk.0.attn_q.bias", {8}, q_bias)
                        .tensor_f32("blk.0.attn_k.bias", {4}, k_bias)
                        .tensor_f32("rope_freqs.weight", {2}, {1, 1})
                        .tensor_f32("something.else", {1}, {1});
  const testing::TemporaryDirectory directory;
  testing::write_text(directory.path() / "x.gguf", file.bytes());
  const auto weights = open_weights(directory.path() / "x.gguf");
  const std::string layer = "model.layers.0.self_attn.";
  CHECK(weights->names() == std::vector<std::string>{"model.embed_tokens.weight", layer + "k_proj.bias",
                                                     layer + "k_proj.weight", layer + "q_proj.bias",
                                                     layer + "q_proj.weight", layer + "v_proj.weight",
                                                     "something.else"});
  const std::vector<float> expected = {0, 2, 1, 3, 4, 6, 5, 7};
  CHECK(read_all(*weights, layer + "q_proj.bias") == expected);
  CHECK(read_all(*weights, layer + "k_proj.bias") == std::vector<float>{0, 2, 1, 3});
  const std::vector<float> rows = read_all(*weights, layer + "q_proj.weight");
  for (size_t i = 0; i < rows.size(); ++i) CHECK(rows[i] == expected[i / 8]);
  CHECK(read_all(*weights, layer + "k_proj.weight")[8] == 2);
  CHECK(read_all(*weights, layer + "v_proj.weight") == k);
  CHECK_FALSE(weights->has("blk.0.attn_q.weight"));
  CHECK_THROWS_MATCHES(weights->shape("lm_head.weight"), DataError,
                       MessageMatches(ContainsSubstring("x.gguf: has no tensor for 'lm_head.weight'")));
}

TEST_CASE("q rows that are not whole heads are refused") {
  const testing::TemporaryDirectory directory;
  const auto file = testing::tiny_llama_gguf().tensor_f32("blk.0.attn_q.weight", {4, 8}, std::vector<float>(32));
  testing::write_text(directory.path() / "x.gguf", file.bytes());
  const auto weights = open_weights(directory.path() / "x.gguf");
  CHECK_THROWS_MATCHES(
      read_all(*weights, "model.layers.0.self_attn.q_proj.weight"), DataError,
      MessageMatches(ContainsSubstring("x.gguf: blk.0.attn_q.weight: has 4 rows; needed are 2 heads")));
}

TEST_CASE("a path that is no model is refused with what a model is") {
  const testing::TemporaryDirectory directory;
  check_refused(directory.path() / "none", "none: does not exist; a model is a .gguf file or a Hugging Face directory");
  testing::write_text(directory.path() / "model.bin", "x");
  check_refused(directory.path() / "model.bin", "model.bin: is neither");
  check_refused(directory.path(), "holds neither model.safetensors nor model.safetensors.index.json");
  CHECK_THROWS_AS(read_config(directory.path() / "none"), DataError);
}

TEST_CASE("a wrong index is refused with the tensor's name") {
  const testing::TemporaryDirectory directory;
  const fs::path index = directory.path() / "model.safetensors.index.json";
  testing::write_text(directory.path() / "one.safetensors", safetensors("a", 1));
  testing::write_text(directory.path() / "two.safetensors", safetensors("b", 2));
  testing::write_text(directory.path() / "again.safetensors", safetensors("a", 3));
  testing::write_text(index, R"({"weight_map":{"a":"one.safetensors","b":"two.safetensors"}})");
  const auto weights = open_weights(directory.path());
  CHECK(read_all(*weights, "b") == std::vector<float>{2});
  CHECK_THROWS_MATCHES(weights->shape("c"), DataError, MessageMatches(ContainsSubstring("has no tensor 'c'")));
  const std::map<std::string, std::string> wrong = {
      {"{", "index.json: is not a JSON object"},
      {R"({"weights":{}})", "an object 'weight_map'"},
      {R"({"weight_map":{"a":7}})", "no plain file for tensor 'a'"},
      {R"({"weight_map":{"a":"../one.safetensors"}})", "no plain file for tensor 'a'"},
      {R"({"weight_map":{"a":".."}})", "no plain file for tensor 'a'"},
      {R"({"weight_map":{"a":"three.safetensors"}})", "three.safetensors: cannot be read"},
      {R"({"weight_map":{"a":"one.safetensors","c":"two.safetensors"}})", "tensor 'c' is not in two.safetensors"},
      {R"({"weight_map":{"a":"two.safetensors","b":"one.safetensors"}})", "tensor 'a' is not in two.safetensors"},
      {R"({"weight_map":{"a":"one.safetensors","b":"again.safetensors"}})", "tensor 'a' is also in"}};
  for (const auto& [text, message] : wrong) {
    INFO(text);
    testing::write_text(index, text);
    check_refused(directory.path(), message);
  }
}

}  // namespace kvsweep
