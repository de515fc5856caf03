// contract: an artifact comes back as it was written, and one of another scheme, model or kind names both sides.
#include "harness/files/artifact.h"

#include <ATen/ATen.h>

#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <catch2/matchers/catch_matchers_exception.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>

#include "harness/core/error.h"
#include "tests/support/golden.h"

namespace kvsweep::testing {
namespace {

using Catch::Matchers::ContainsSubstring;
using Catch::Matchers::MessageMatches;

ArtifactHeader header() {
  return {.scheme = "clustered",
          .params = {{"k_bits", "{default: 4, layers: {0: 8}}"}, {"note", "\"quoted\", [a]\nand é"}, {"empty", ""}},
          .model = "tiny",
          .weights_sha256 = "feed",
          .layers = 2,
          .kv_heads = 3,
          .head_dim = 64,
          .text = "books/war.txt",
          .text_sha256 = "ab12",
          .sequences = 64,
          .tokens = 512,
          .program = "0.1.0 (commit abc)"};
}

TensorMap tensors() {
  return {{"layers.0.order", at::arange(192, at::kShort)},
          {"layers.1.order", at::arange(192, at::kShort).flip(0)},
          {"grid", at::rand({16, 2})}};
}

CacheContext context() {
  CacheContext context;
  context.layers = 2;
  context.kv_heads = 3;
  context.head_dim = 64;
  context.weights_sha256 = "feed";
  return context;
}

struct Stored {
  TemporaryDirectory directory;
  std::filesystem::path path = directory.path() / "a.safetensors";
};

// Header texts as write_artifact() writes them, for tests that spoil one.
std::map<std::string, std::string> header_texts() {
  const Stored stored;
  write_artifact(stored.path, header(), {});
  return SafetensorsFile(stored.path).metadata();
}

}  // namespace

TEST_CASE("an artifact comes back with header and tensors") {
  const Stored stored;
  write_artifact(stored.path, header(), tensors());
  const Artifact artifact = read_artifact(stored.path, "clustered");
  const ArtifactHeader expected = header();
  CHECK(artifact.path == stored.path);
  CHECK(artifact.header.scheme == expected.scheme);
  CHECK(artifact.header.params == expected.params);
  CHECK(artifact.header.model == expected.model);
  CHECK(artifact.header.weights_sha256 == expected.weights_sha256);
  CHECK(artifact.header.layers == expected.layers);
  CHECK(artifact.header.kv_heads == expected.kv_heads);
  CHECK(artifact.header.head_dim == expected.head_dim);
  CHECK(artifact.header.text == expected.text);
  CHECK(artifact.header.text_sha256 == expected.text_sha256);
  CHECK(artifact.header.sequences == expected.sequences);
  CHECK(artifact.header.tokens == expected.tokens);
  CHECK(artifact.header.program == expected.program);
  CHECK(at::equal(artifact.tensor(1, "order"), at::arange(192, at::kShort).flip(0)));
  CHECK(artifact.tensor("grid").sizes() == at::IntArrayRef({16, 2}));
  CHECK(read_artifact_header(stored.path).params == expected.params);
}

TEST_CASE("a tensor that an artifact lacks is named") {
  const Stored stored;
  write_artifact(stored.path, header(), tensors());
  const Artifact artifact = read_artifact(stored.path, "clustered");
  CHECK_THROWS_MATCHES(
      artifact.tensor(2, "order"), DataError,
      MessageMatches(ContainsSubstring("a.safetensors") && ContainsSubstring("no tensor 'layers.2.order'")));
}

TEST_CASE("an artifact of another scheme names both") {
  const Stored stored;
  write_artifact(stored.path, header(), tensors());
  CHECK_THROWS_MATCHES(read_artifact(stored.path, "predictors"), ConfigError,
                       MessageMatches(ContainsSubstring("a.safetensors") &&
                                      ContainsSubstring("made for the scheme clustered, not for predictors")));
}

TEST_CASE("an artifact of another model names both shapes or both weights") {
  const Stored stored;
  write_artifact(stored.path, header(), tensors());
  const Artifact artifact = read_artifact(stored.path, "clustered");
  CHECK_NOTHROW(artifact.check_model(context()));
  const auto check = [&](const auto& change, const std::string& message) {
    CacheContext other = context();
    change(other);
    CHECK_THROWS_MATCHES(artifact.check_model(other), ConfigError,
                         MessageMatches(ContainsSubstring("a.safetensors") && ContainsSubstring(message)));
  };
  check([](CacheContext& other) { other.layers = 3; },
        "made for tiny (2 layers of 3 kv-heads x 64 dims), the model has 3 layers of 3 kv-heads x 64 dims");
  check([](CacheContext& other) { other.kv_heads = 4; }, "the model has 2 layers of 4 kv-heads x 64 dims");
  check([](CacheContext& other) { other.head_dim = 32; }, "the model has 2 layers of 3 kv-heads x 32 dims");
  check([](CacheContext& other) { other.weights_sha256 = "food"; },
        "made for tiny with weights feed, the model's are food");
  CacheContext unknown = context();
  unknown.weights_sha256.clear();
  CHECK_NOTHROW(artifact.check_model(unknown));
}

TEST_CASE("a header that is no artifact's or is damaged names file and key") {
  const auto [key, value, message] = GENERATE(table<const char*, const char*, const char*>({
      {"format", nullptr, "is no artifact of `kvsweep calibrate`"},
      {"format", "pt", "is no artifact of `kvsweep calibrate`"},
      {"format", "kvsweep artifact 2", "does not say 'kvsweep artifact 1'"},
      {"scheme", nullptr, "header lacks 'scheme'"},
      {"weights_sha256", nullptr, "header lacks 'weights_sha256'"},
      {"layers", nullptr, "header lacks 'layers'"},
      {"layers", "two", "header has layers = 'two', not an integer"},
      {"head_dim", "64.5", "header has head_dim = '64.5', not an integer"},
      {"tokens", "99999999999999999999", "header has tokens = '99999999999999999999', not an integer"},
      {"params", nullptr, "header lacks 'params'"},
      {"params", "{}", "header has no list 'params'"},
      {"params", "[", "header has no list 'params'"},
      {"params", "[[\"a\"]]", "header has a parameter [\"a\"], not a pair of texts"},
      {"params", "[[\"a\",1]]", "header has a parameter [\"a\",1], not a pair of texts"},
  }));
  std::map<std::string, std::string> texts = header_texts();
  texts.erase(key);
  if (value != nullptr) texts[key] = value;
  const Stored stored;
  write_tensors(stored.path, tensors(), texts);
  INFO(key << " = " << (value == nullptr ? "(none)" : value));
  CHECK_THROWS_MATCHES(read_artifact(stored.path, "clustered"), DataError,
                       MessageMatches(ContainsSubstring("a.safetensors") && ContainsSubstring(message)));
  CHECK_THROWS_MATCHES(read_artifact_header(stored.path), DataError, MessageMatches(ContainsSubstring(message)));
}

TEST_CASE("a file that is missing or cut off is an error that names it") {
  const Stored stored;
  CHECK_THROWS_MATCHES(read_artifact(stored.path, "clustered"), DataError,
                       MessageMatches(ContainsSubstring("a.safetensors")));
  write_artifact(stored.path, header(), tensors());
  const std::string whole = read_text(stored.path);
  write_text(stored.path, whole.substr(0, whole.size() - 1));
  CHECK_THROWS_MATCHES(read_artifact(stored.path, "clustered"), DataError,
                       MessageMatches(ContainsSubstring("a.safetensors") && ContainsSubstring("truncated")));
}

}  // namespace kvsweep::testing
