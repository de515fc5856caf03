// contract: GgufFile reads what a right file says, and says what is wrong with every other.
#include "models/gguf.h"

#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_exception.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include <fstream>
#include <functional>
#include <numeric>

#include "harness/core/error.h"
#include "harness/core/random.h"
#include "models/weight_source.h"
#include "tests/support/gguf_builder.h"
#include "tests/support/golden.h"

namespace kvsweep {
using Catch::Matchers::ContainsSubstring;
using Catch::Matchers::MessageMatches;
using testing::bytes_of;
using testing::gguf_text;
using testing::GgufBuilder;

namespace {

// Opens `bytes` as a file and hands it to `use`.
template <class Use>
void with_file(const std::string& bytes, const Use& use) {
  const testing::TemporaryDirectory directory;
  testing::write_text(directory.path() / "x.gguf", bytes);
  use(directory.path() / "x.gguf");
}

void check_refused(const std::string& bytes, const std::string& message) {
  with_file(bytes, [&](const auto& path) {
    CHECK_THROWS_MATCHES(GgufFile(path), DataError,
                         MessageMatches(ContainsSubstring("x.gguf") && ContainsSubstring(message)));
  });
}

// Uses everything that a file has. True: all of it could be read; false: a DataError said why not.
bool readable(const std::filesystem::path& path) {
  try {
    const auto weights = open_weights(path);
    for (const std::string& name : weights->names()) {
      const auto shape = weights->shape(name);
      std::vector<float> values(
          static_cast<size_t>(std::accumulate(shape.begin(), shape.end(), int64_t{1}, std::multiplies<>())));
      weights->read(name, values.data());
    }
    read_config(path);
    return true;
  } catch (const DataError&) {
    return false;
  }
}

int64_t resident_kilobytes(const std::filesystem::path& file) {
  std::ifstream maps("/proc/self/smaps");
  std::string line;
  bool inside = false;
  int64_t total = 0;
  while (std::getline(maps, line)) {
    if (line.find(':') == line.find(' ') - 1) {
      if (inside && line.starts_with("Rss:")) total += std::stoll(line.substr(4));
    } else {
      inside = line.ends_with(file.string());
    }
  }
  return total;
}

}  // namespace

TEST_CASE("metadata comes back typed, with fallbacks for what is missing") {
  GgufBuilder builder;
  builder.integer("i", 7).number("f", 0.5f).flag("yes", true).text("s", "caf\u00e9").texts("words", {"a", "", "b"});
  builder.raw("i8", 1, bytes_of(int8_t{-3})).raw("u64", 10, bytes_of(uint64_t{1} << 40));
  builder.raw("f64", 12, bytes_of(0.1)).raw("i16", 3, bytes_of(int16_t{-300}));
  builder.raw("floats", 9, bytes_of(uint32_t{6}) + bytes_of(uint64_t{2}) + bytes_of(1.5f) + bytes_of(-2.0f));
  builder.raw("ints", 9, bytes_of(uint32_t{5}) + bytes_of(uint64_t{2}) + bytes_of(int32_t{-1}) + bytes_of(int32_t{9}));
  builder.raw("flags", 9, bytes_of(uint32_t{7}) + bytes_of(uint64_t{2}) + std::string("\1\0", 2));
  with_file(builder.bytes(), [](const auto& path) {
    const GgufFile file(path);
    CHECK(file.version() == 3);
    CHECK(file.integer("i") == 7);
    CHECK(file.integer("i8") == -3);
    CHECK(file.integer("i16") == -300);
    CHECK(file.integer("u64") == int64_t{1} << 40);
    CHECK(file.number("f") == 0.5);
    CHECK(file.number("f64") == 0.1);
    CHECK(file.number("i") == 7);
    CHECK(file.flag("yes"));
    CHECK(file.text("s") == "caf\u00e9");
    CHECK(file.texts("words") == std::vector<std::string>{"a", "", "b"});
    CHECK(file.numbers("floats") == std::vector<double>{1.5, -2});
    CHECK(file.integers("ints") == std::vector<int64_t>{-1, 9});
    CHECK(file.integers("flags") == std::vector<int64_t>{1, 0});
    CHECK_FALSE(file.has("missing"));
    CHECK(file.integer("missing", 5) == 5);
    CHECK(file.number("missing", 2.5) == 2.5);
    CHECK(file.flag("missing", true));
    CHECK(file.text("missing", "none") == "none");
    CHECK(file.integers("missing", std::vector<int64_t>{1}) == std::vector<int64_t>{1});
    CHECK(file.numbers("missing", std::vector<double>{}).empty());
    CHECK(file.texts("missing", std::vector<std::string>{}).empty());
    CHECK_THROWS_MATCHES(file.integer("missing"), DataError,
                         MessageMatches(ContainsSubstring("x.gguf") && ContainsSubstring("no metadata key 'missing'")));
    CHECK_THROWS_MATCHES(file.integer("s", 5), DataError,
                         MessageMatches(ContainsSubstring("metadata key 's' is a text; needed is an integer")));
    CHECK_THROWS_MATCHES(file.texts("ints"), DataError, MessageMatches(ContainsSubstring("is an array of integers")));
    CHECK_THROWS_AS(file.integer("f"), DataError);
  });
}

TEST_CASE("tensors have row-major shapes and their own bytes, at any alignment") {
  for (uint32_t alignment : {8u, 32u, 4096u}) {
    GgufBuilder builder;
    builder.version = alignment == 8 ? 2 : 3;
    builder.alignment = alignment;
    builder.tensor_f32("a", {2, 3}, {1, 2, 3, 4, 5, 6}).tensor_f32("b", {1}, {-7});
    with_file(builder.bytes(), [&](const auto& path) {
      const GgufFile file(path);
      CHECK(file.alignment() == alignment);
      CHECK(file.data_offset() % alignment == 0);
      REQUIRE(file.tensors().size() == 2);
      CHECK(file.tensor("a").shape == std::vector<int64_t>{2, 3});
      CHECK(file.tensor("a").bytes == 6 * 4);
      float values[6];
      file.read(file.tensor("a"), values);
      CHECK(std::vector<float>(values, values + 6) == std::vector<float>{1, 2, 3, 4, 5, 6});
      file.read(file.tensor("b"), values);
      CHECK(values[0] == -7);
      CHECK(file.find("c") == nullptr);
      CHECK_THROWS_MATCHES(file.tensor("c"), DataError, MessageMatches(ContainsSubstring("has no tensor 'c'")));
    });
  }
}

TEST_CASE("what is not a GGUF file of version 2 or 3 is refused by name") {
  check_refused("", "truncated");
  check_refused("GGML....", "is not a GGUF file");
  GgufBuilder builder;
  for (uint32_t version : {0u, 4u}) {
    builder.version = version;
    check_refused(builder.bytes(), "has GGUF version " + std::to_string(version));
  }
  builder.version = 1;
  check_refused(builder.bytes(), "is a GGUF version 1 file");
  builder.version = 0x03000000;
  check_refused(builder.bytes(), "is a big-endian GGUF file");
  const testing::TemporaryDirectory directory;
  CHECK_THROWS_MATCHES(GgufFile(directory.path() / "none.gguf"), DataError,
                       MessageMatches(ContainsSubstring("none.gguf: cannot be read")));
  CHECK_THROWS_MATCHES(GgufFile(directory.path()), DataError, MessageMatches(ContainsSubstring("not a regular file")));
}

TEST_CASE("wrong metadata is refused with its key") {
  check_refused(GgufBuilder().integer("k", 1).integer("k", 2).bytes(), "metadata key 'k': is there twice");
  check_refused(GgufBuilder().raw("k", 13, "").bytes(), "metadata key 'k': has value type 13");
  check_refused(GgufBuilder().raw("k", 7, "\2").bytes(), "metadata key 'k': a flag is 2");
  check_refused(GgufBuilder().raw("k", 8, bytes_of(uint64_t{1} << 62)).bytes(), "metadata key 'k'");
  check_refused(GgufBuilder().raw("k", 9, bytes_of(uint32_t{4}) + bytes_of(~uint64_t{0})).bytes(), "array items");
  check_refused(GgufBuilder().raw("k", 9, bytes_of(uint32_t{9}) + bytes_of(uint64_t{1})).bytes(), "array of arrays");
  check_refused(GgufBuilder().raw("k", 10, bytes_of(~uint64_t{0})).bytes(), "larger than 2^63 - 1");
  check_refused(GgufBuilder().integer("", 1).bytes(), "a key of 0 bytes");
  check_refused(GgufBuilder().integer("general.alignment", 48).bytes(), "general.alignment = 48");
  check_refused(GgufBuilder().integer("general.alignment", 0).bytes(), "general.alignment = 0");
}

TEST_CASE("wrong tensors are refused with their name") {
  const std::string four(16, 'x');
  check_refused(GgufBuilder().tensor("t", {4}, 0, four).tensor("t", {4}, 0, four).bytes(), "is there twice");
  check_refused(GgufBuilder().tensor("t", {4}, 0, four, 16).bytes(), "tensor 't' starts at");
  check_refused(GgufBuilder().tensor("t", {40}, 0, four).bytes(), "tensor 't' needs bytes");
  check_refused(GgufBuilder().tensor("t", {4}, 0, four, 1 << 20).bytes(), "tensor 't': starts");
  check_refused(GgufBuilder().tensor("t", {4}, 0, four, 64).bytes(), "tensor 't' needs bytes");
  check_refused(GgufBuilder().tensor("t", {4}, 0, four).tensor("u", {4}, 0, four, 0).bytes(), "overlap");
  check_refused(GgufBuilder().tensor("t", {0}, 0, "").bytes(), "tensor 't': dimension 0 has size 0");
  check_refused(GgufBuilder().tensor("t", {-4}, 0, four).bytes(), "dimension 0 has size -4");
  check_refused(GgufBuilder().tensor("t", {int64_t{1} << 40, int64_t{1} << 40}, 0, four).bytes(), "impossible");
  check_refused(GgufBuilder().tensor("t", {int64_t{1} << 40}, 99, four).bytes(), "impossible");
  check_refused(GgufBuilder().tensor("t", {}, 0, four).bytes(), "has 0 dimensions");
  check_refused(GgufBuilder().tensor("t", {1, 1, 1, 1, 4}, 0, four).bytes(), "has 5 dimensions");
  check_refused(GgufBuilder().tensor("t", {2, 16}, 2, std::string(18, 'x')).bytes(), "no multiple of 32");
}

TEST_CASE("a type that is no weight type can be listed but not read") {
  const auto file = GgufBuilder().tensor("t", {256}, 16, std::string(66, 'x')).tensor("u", {4}, 77, "xxxx").bytes();
  with_file(file, [](const auto& path) {
    const GgufFile opened(path);
    CHECK(opened.tensor("t").bytes == 66);
    float values[256];
    CHECK_THROWS_MATCHES(opened.read(opened.tensor("t"), values), DataError,
                         MessageMatches(ContainsSubstring("x.gguf: tensor 't' has type 16 (IQ2_XXS)") &&
                                        ContainsSubstring("F32, F16, BF16, Q8_0, Q4_0")));
    CHECK_THROWS_MATCHES(opened.read(opened.tensor("u"), values), DataError,
                         MessageMatches(ContainsSubstring("tensor 'u' has type 77;")));
  });
}

TEST_CASE("a tensor that was read does not stay resident") {
  const std::vector<float> values(1 << 20, 1);
  with_file(GgufBuilder().tensor_f32("t", {1024, 1024}, values).bytes(), [&](const auto& path) {
    const GgufFile file(path);
    std::vector<float> out(values.size());
    for (uint8_t byte : file.packed(file.tensor("t"))) out[0] += byte;
    CHECK(resident_kilobytes(path) >= 4096);
    file.read(file.tensor("t"), out.data());
    CHECK(out == values);
    CHECK(resident_kilobytes(path) < 256);
  });
}

TEST_CASE("a truncated GGUF file is an error at every length") {
  for (const auto& source : testing::golden_files("models/tiny_[^/]*[.]gguf")) {
    const std::string whole = testing::read_text(source);
    std::vector<int64_t> lengths;
    int64_t end = 0;
    {
      const GgufFile file(source);
      lengths = {0, 3, 4, 7, 8, 15, 16, 23, 24, file.data_offset() - 1, file.data_offset()};
      for (const GgufTensor& tensor : file.tensors()) {
        for (int64_t near : {-1, 0, 1}) lengths.push_back(tensor.offset + near);
        end = std::max(end, tensor.offset + tensor.bytes);
      }
      lengths.push_back(end - 1);
    }
    Rng rng(derive_seed(1, "gguf/truncate"));
    for (int i = 0; i < 50; ++i) lengths.push_back(rng.between(0, i < 25 ? lengths[10] : end - 1));
    const testing::TemporaryDirectory directory;
    for (int64_t length : lengths) {
      INFO(source << " cut to " << length);
      testing::write_text(directory.path() / "x.gguf", whole.substr(0, static_cast<size_t>(length)));
      CHECK_FALSE(readable(directory.path() / "x.gguf"));
    }
    testing::write_text(directory.path() / "x.gguf", whole);
    CHECK(readable(directory.path() / "x.gguf"));
  }
}

TEST_CASE("a damaged GGUF header is read or refused, never a crash") {
  for (const auto& source : testing::golden_files("models/tiny_[^/]*[.]gguf")) {
    const std::string whole = testing::read_text(source);
    const int64_t header = GgufFile(source).data_offset();
    Rng rng(derive_seed(1, "gguf/flip"));
    const testing::TemporaryDirectory directory;
    int refused = 0;
    for (int i = 0; i < 200; ++i) {
      std::string damaged = whole;
      const auto at = static_cast<size_t>(rng.between(0, header - 1));
      damaged[at] = static_cast<char>(damaged[at] ^ static_cast<char>(rng.between(1, 255)));
      INFO(source << " byte " << at);
      testing::write_text(directory.path() / "x.gguf", damaged);
      refused += readable(directory.path() / "x.gguf") ? 0 : 1;
    }
    CHECK(refused > 50);  // a flip in a name's or token's text is still a file
  }
}

}  // namespace kvsweep
