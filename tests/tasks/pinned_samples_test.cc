// contract: sample lists of a version stay what they are. A change here needs a new version of the task.
#include <fmt/format.h>

#include <algorithm>
#include <catch2/catch_test_macros.hpp>
#include <memory>

#include "harness/core/hash.h"
#include "harness/core/task.h"
#include "tests/support/golden.h"
#include "tests/support/toy_tokenizer.h"

namespace kvsweep {
namespace {

std::string listed(const std::vector<Sample>& samples) {
  std::string text;
  for (const Sample& one : samples) {
    text += fmt::format("{}\n{}\n{}\n{}\n", one.id, fmt::join(one.context, ","), fmt::join(one.query, ","),
                        one.max_new_tokens);
    for (const std::string& stop : one.stop) text += "stop " + stop + "\n";
    for (const std::string& answer : one.answers) text += "answer " + answer + "\n";
    for (const auto& [key, value] : one.tags) text += key + "=" + value + "\n";
  }
  return text;
}

struct Pinned {
  std::string task;
  std::map<std::string, std::string> values;
  int version;
  std::string sha256;  // its beginning
};

std::string essay() {
  std::string text;
  for (int i = 0; i < 50; ++i) text += fmt::format("Line {} of the essay. ", i);
  return text;
}

std::string source() {
  std::string text;
  for (int i = 0; i < 50; ++i) text += fmt::format("int f{}(int x) {{\n  return x;\n}}\n\n", i);
  return text;
}

const std::vector<Pinned>& pinned() {
  static const std::vector<Pinned> list = {
      {"needle", {{"tokens", "900"}}, 1, "285f97e6b466e70f"},
      {"needle",
       {{"tokens", "2000"},
        {"haystack", "needles"},
        {"needle", "uuid"},
        {"key", "uuid"},
        {"keys", "3"},
        {"max_new_tokens", "64"}},
       1,
       "1f9daf361a0a54a7"},
      {"ruler", {{"task", "niah_single_1"}}, 1, "662bcde36e19f945"},
      {"ruler", {{"task", "niah_multikey_1"}}, 1, "08346a50bdd87ee4"},
      {"ruler", {{"task", "niah_multikey_3"}}, 1, "773315679e0427c9"},
      {"ruler", {{"task", "niah_multiquery"}}, 1, "50f49281b7efa1be"},
      {"ruler", {{"task", "vt"}}, 1, "0558fafe84a05859"},
      {"ruler", {{"task", "cwe"}}, 1, "ba46e754da64f141"},
      {"ruler", {{"task", "fwe"}}, 1, "e89261246361ce2a"},
      {"code", {{"tokens", "2000"}}, 1, "09af7066d4afc79c"},
      {"code", {{"tokens", "2000"}, {"ask", "signature"}}, 1, "a527221c786d51a2"},
  };
  return list;
}

}  // namespace

TEST_CASE("sample lists are those of the task's version") {
  testing::TemporaryDirectory root;
  testing::write_text(root.path() / "essay.txt", essay());
  testing::write_text(root.path() / "source.cc", source());
  const testing::ByteTokenizer tokenizer(true);
  const DataLocator data({root.path()});
  for (const Pinned& one : pinned()) {
    std::map<std::string, std::string> values = {{"samples", "6"}};
    if (one.task == "ruler") values.insert({{"tokens", "3000"}, {"words", "generated"}, {"essays", "essay.txt"}});
    if (one.task == "code") values.insert({"source", "source.cc"});
    std::map<std::string, ParamValue> given;
    for (const auto& [key, value] : values) given[key] = {value, 1};
    for (const auto& [key, value] : one.values) given[key] = {value, 1};
    INFO(one.task << " " << fmt::format("{}", one.values.begin()->second));
    const auto& table = task_table();
    const auto entry = std::find_if(table.begin(), table.end(), [&](const auto& of) { return of.name == one.task; });
    REQUIRE(entry != table.end());
    CHECK(entry->version == one.version);
    Params params(one.task, "sweep.yaml", std::move(given));
    const std::vector<Sample> samples = entry->make(params)->samples({tokenizer, data, nullptr, 17});
    CHECK(sha256_hex(listed(samples)).substr(0, 16) == one.sha256);
  }
}

}  // namespace kvsweep
