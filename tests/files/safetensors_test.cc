// contract: SafetensorsFile converts exactly, and says what is wrong with a damaged file.
#include "harness/files/safetensors.h"

#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_exception.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include <cmath>
#include <functional>
#include <numeric>

#include "harness/core/error.h"
#include "harness/core/random.h"
#include "tests/support/gguf_builder.h"
#include "tests/support/golden.h"

namespace kvsweep {
using Catch::Matchers::ContainsSubstring;
using Catch::Matchers::MessageMatches;
using testing::bytes_of;

namespace {

std::string file_of(const std::string& header, const std::string& data) {
  return bytes_of(uint64_t{header.size()}) + header + data;
}

// A file of one tensor "t".
std::string one_tensor(const std::string& entry, const std::string& data) {
  return file_of("{\"t\":" + entry + "}", data);
}

template <class Use>
void with_file(const std::string& bytes, const Use& use) {
  const testing::TemporaryDirectory directory;
  testing::write_text(directory.path() / "x.safetensors", bytes);
  use(directory.path() / "x.safetensors");
}

void check_refused(const std::string& bytes, const std::string& message) {
  with_file(bytes, [&](const auto& path) {
    CHECK_THROWS_MATCHES(SafetensorsFile(path), DataError,
                         MessageMatches(ContainsSubstring("x.safetensors") && ContainsSubstring(message)));
  });
}

bool readable(const std::filesystem::path& path) {
  try {
    const SafetensorsFile file(path);
    for (const auto& [name, tensor] : file.tensors()) {
      std::vector<float> values(static_cast<size_t>(tensor.bytes));  // no dtype has less than a byte a value
      file.read(name, values.data());
    }
    return true;
  } catch (const DataError&) {
    return false;
  }
}

}  // namespace

TEST_CASE("float32, float16 and bfloat16 widen exactly") {
  const std::string header = R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"__metadata__":{"format":"pt"},)"
                             R"("b":{"dtype":"F16","shape":[1,3],"data_offsets":[8,14]},)"
                             R"("c":{"dtype":"BF16","shape":[2,1],"data_offsets":[14,18]},)"
                             R"("d":{"dtype":"F32","shape":[],"data_offsets":[18,22]},)"
                             R"("e":{"dtype":"F32","shape":[0,7],"data_offsets":[22,22]}} )";
  const std::string data = bytes_of(0.1f) + bytes_of(-3e-39f) +  // one is denormal
                           bytes_of(uint16_t{0x3c01}) + bytes_of(uint16_t{0x8001}) + bytes_of(uint16_t{0xfc00}) +
                           bytes_of(uint16_t{0x3f81}) + bytes_of(uint16_t{0xff80}) + bytes_of(7.5f);
  with_file(file_of(header, data), [](const auto& path) {
    const SafetensorsFile file(path);
    CHECK(file.tensors().size() == 5);
    CHECK(file.tensor("b").shape == std::vector<int64_t>{1, 3});
    CHECK(file.tensor("c").dtype == "BF16");
    float v[3];
    file.read("a", v);
    CHECK((v[0] == 0.1f && v[1] == -3e-39f));
    file.read("b", v);
    CHECK((v[0] == 1 + 0x1p-10f && v[1] == -0x1p-24f && v[2] == -INFINITY));
    file.read("c", v);
    CHECK((v[0] == 1 + 0x1p-7f && v[1] == -INFINITY));
    file.read("d", v);
    CHECK(v[0] == 7.5f);
    file.read("e", v);
    CHECK_THROWS_MATCHES(file.tensor("f"), DataError,
                         MessageMatches(ContainsSubstring("x.safetensors") && ContainsSubstring("no tensor 'f'")));
  });
}

TEST_CASE("a dtype that is no weight dtype can be listed but not read") {
  const std::string header = R"({"t":{"dtype":"I64","shape":[2],"data_offsets":[0,16]},)"
                             R"("u":{"dtype":"F6_E3M2","shape":[4],"data_offsets":[16,19]}})";
  with_file(file_of(header, std::string(19, 'x')), [](const auto& path) {
    const SafetensorsFile file(path);
    float v[4];
    CHECK_THROWS_MATCHES(file.read("t", v), DataError,
                         MessageMatches(ContainsSubstring("x.safetensors: tensor 't' has dtype I64") &&
                                        ContainsSubstring("F32, F16 and BF16")));
    CHECK_THROWS_MATCHES(file.read("u", v), DataError, MessageMatches(ContainsSubstring("tensor 'u' has dtype F6")));
  });
}

TEST_CASE("a wrong safetensors header is refused with the tensor's name") {
  const std::string eight(8, 'x');
  check_refused("", "it has 0 bytes");
  check_refused("1234567", "it has 7 bytes");
  check_refused(bytes_of(uint64_t{100}) + "{}", "a header of 100 bytes");
  check_refused(bytes_of(~uint64_t{0}) + "{}", "is truncated or no safetensors file");
  check_refused(file_of("{\"t\":", ""), "the header is not a JSON object");
  check_refused(file_of("[]", ""), "the header is not a JSON object");
  check_refused(file_of("{\"t\":1e999}", ""), "the header is not a JSON object");
  check_refused(one_tensor("7", ""), "tensor 't': its entry is not an object");
  check_refused(one_tensor(R"({"shape":[2],"data_offsets":[0,8]})", eight),
                "tensor 't': its entry has no text 'dtype'");
  check_refused(one_tensor(R"({"dtype":"F32","shape":[-2],"data_offsets":[0,8]})", eight), "tensor 't': its 'shape'");
  check_refused(one_tensor(R"({"dtype":"F32","shape":[2.0],"data_offsets":[0,8]})", eight), "tensor 't': its 'shape'");
  check_refused(one_tensor(R"({"dtype":"F32","shape":2,"data_offsets":[0,8]})", eight), "tensor 't': its 'shape'");
  check_refused(one_tensor(R"({"dtype":"F32","shape":[2],"data_offsets":[8,0]})", eight), "'data_offsets' are not");
  check_refused(one_tensor(R"({"dtype":"F32","shape":[2],"data_offsets":[0]})", eight), "'data_offsets' are not");
  check_refused(one_tensor(R"({"dtype":"F32","shape":[3],"data_offsets":[0,8]})", eight),
                "tensor 't': shape [3] of F32 needs 12 bytes, data_offsets give 8");
  check_refused(one_tensor(R"({"dtype":"F32","shape":[4294967296,4294967296,4],"data_offsets":[0,8]})", eight),
                "tensor 't': its shape overflows");
  check_refused(one_tensor(R"({"dtype":"F32","shape":[3],"data_offsets":[0,12]})", eight),
                "tensor 't' ends at byte 12");
  check_refused(one_tensor(R"({"dtype":"F32","shape":[1],"data_offsets":[4,8]})", eight), "4 bytes that belong to no");
  check_refused(one_tensor(R"({"dtype":"F32","shape":[1],"data_offsets":[0,4]})", eight), "4 bytes after the last");
  const std::string overlap = R"({"t":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},)"
                              R"("u":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}})";
  check_refused(file_of(overlap, eight), "tensors 't' and 'u' overlap");
}

TEST_CASE("a written file holds bytes, shapes and texts as they were given") {
  const testing::TemporaryDirectory directory;
  const auto path = directory.path() / "x.safetensors";
  const std::vector<uint8_t> one = {1, 2, 3, 4, 5, 6, 7, 8}, two = {9, 10, 11};
  const std::map<std::string, std::string> texts = {{"format", "x 1"}, {"note", "\"a\"\n\u00e9"}, {"empty", ""}};
  write_safetensors(path, {{"z", "F32", {2, 1}, one}, {"a", "U8", {3}, two}, {"none", "F16", {0, 5}, {}}}, texts);
  const SafetensorsFile file(path);
  CHECK(file.metadata() == texts);
  CHECK(file.tensors().size() == 3);
  const auto bytes = [&](const std::string& name) {
    const auto span = file.bytes(name);
    return std::vector<uint8_t>(span.begin(), span.end());
  };
  CHECK(bytes("z") == one);
  CHECK(bytes("a") == two);
  CHECK(bytes("none").empty());
  CHECK(file.tensor("z").dtype == "F32");
  CHECK(file.tensor("z").shape == std::vector<int64_t>{2, 1});
  CHECK(file.tensor("none").shape == std::vector<int64_t>{0, 5});
  CHECK(file.tensor("z").offset % 8 == 0);
  CHECK_FALSE(std::filesystem::exists(path.string() + ".new"));
  CHECK_THROWS_MATCHES(file.bytes("y"), DataError, MessageMatches(ContainsSubstring("has no tensor 'y'")));
}

TEST_CASE("a file without tensors and texts can be written and read") {
  const testing::TemporaryDirectory directory;
  write_safetensors(directory.path() / "x", {}, {});
  const SafetensorsFile file(directory.path() / "x");
  CHECK(file.tensors().empty());
  CHECK(file.metadata().empty());
}

TEST_CASE("metadata that is no map of texts is refused") {
  check_refused(file_of(R"({"__metadata__":["a"]})", ""), "its __metadata__ is not an object");
  check_refused(file_of(R"({"__metadata__":{"a":1}})", ""), "__metadata__ 'a' is not a text");
}

TEST_CASE("a file is replaced whole, and one that cannot be written names the file and leaves the old one") {
  const testing::TemporaryDirectory directory;
  const auto path = directory.path() / "x.safetensors";
  const std::vector<uint8_t> one = {1, 2}, two = {3, 4, 5};
  write_safetensors(path, {{"a", "U8", {2}, one}}, {});
  write_safetensors(path, {{"b", "U8", {3}, two}}, {});
  CHECK(SafetensorsFile(path).tensors().size() == 1);
  CHECK(SafetensorsFile(path).tensor("b").bytes == 3);
  std::filesystem::create_directory(path.string() + ".new");  // the place of the unfinished file is taken
  CHECK_THROWS_MATCHES(write_safetensors(path, {{"a", "U8", {2}, one}}, {}), DataError,
                       MessageMatches(ContainsSubstring("x.safetensors: cannot be written: ")));
  CHECK(SafetensorsFile(path).tensor("b").bytes == 3);
  CHECK_THROWS_MATCHES(write_safetensors(directory.path() / "none/x", {}, {}), DataError,
                       MessageMatches(ContainsSubstring("none/x: cannot be written: ")));
}

TEST_CASE("a truncated safetensors file is an error at every length") {
  for (const auto& source : testing::golden_files("models/tiny_hf/a_[^/]*/[^/]*[.]safetensors")) {
    const std::string whole = testing::read_text(source);
    std::vector<int64_t> lengths = {0, 1, 7, 8, 9};
    for (const SafetensorsFile file(source); const auto& [name, tensor] : file.tensors())
      for (int64_t near : {-1, 0, 1}) lengths.push_back(tensor.offset + near);
    lengths.push_back(static_cast<int64_t>(whole.size()) - 1);
    Rng rng(derive_seed(1, "safetensors/truncate"));
    for (int i = 0; i < 50; ++i) lengths.push_back(rng.between(0, static_cast<int64_t>(whole.size()) - 1));
    const testing::TemporaryDirectory directory;
    for (int64_t length : lengths) {
      INFO(source << " cut to " << length);
      testing::write_text(directory.path() / "x.safetensors", whole.substr(0, static_cast<size_t>(length)));
      CHECK_FALSE(readable(directory.path() / "x.safetensors"));
    }
    CHECK(readable(source));
  }
}

TEST_CASE("a damaged safetensors header is read or refused, never a crash") {
  for (const auto& source : testing::golden_files("models/tiny_hf/a_[^/]*/[^/]*[.]safetensors")) {
    const std::string whole = testing::read_text(source);
    int64_t header = static_cast<int64_t>(whole.size());
    for (const SafetensorsFile file(source); const auto& [name, tensor] : file.tensors())
      header = std::min(header, tensor.offset);
    Rng rng(derive_seed(1, "safetensors/flip"));
    const testing::TemporaryDirectory directory;
    int refused = 0;
    for (int i = 0; i < 200; ++i) {
      std::string damaged = whole;
      const auto at = static_cast<size_t>(rng.between(0, header - 1));
      damaged[at] = static_cast<char>(damaged[at] ^ static_cast<char>(rng.between(1, 255)));
      INFO(source << " byte " << at);
      testing::write_text(directory.path() / "x.safetensors", damaged);
      refused += readable(directory.path() / "x.safetensors") ? 0 : 1;
    }
    CHECK(refused > 50);
  }
}

}  // namespace kvsweep
