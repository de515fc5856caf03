// golden: stored predictions scored as LongBench's eval.py does. contract: prompts, truncation and bad data.
#include <algorithm>
#include <catch2/catch_approx.hpp>
#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <catch2/matchers/catch_matchers_exception.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include <cmath>
#include <memory>
#include <nlohmann/json.hpp>
#include <sstream>

#include "harness/core/error.h"
#include "harness/core/task.h"
#include "tests/support/golden.h"
#include "tests/support/toy_tokenizer.h"

namespace kvsweep {
using Catch::Matchers::ContainsSubstring;
using Catch::Matchers::MessageMatches;
using nlohmann::json;
namespace fs = std::filesystem;

namespace {

using Values = std::map<std::string, std::string>;

std::unique_ptr<Task> longbench(const Values& values) {
  std::map<std::string, ParamValue> given;
  int line = 1;
  for (const auto& [key, value] : values) given[key] = {value, line++};
  Params params("longbench", "sweep.yaml", std::move(given));
  const auto& table = task_table();
  return std::find_if(table.begin(), table.end(), [](const auto& one) { return one.name == "longbench"; })
      ->make(params);
}

// A data root with one set of the test's own.
class Root {
 public:
  explicit Root(const std::string& set, int max_new_tokens, const std::string& form) : set_(set) {
    fs::create_directories(path() / "longbench_config");
    fs::create_directories(path() / "longbench_full");
    testing::write_text(path() / "longbench_config/dataset2prompt.json", json{{set, form}}.dump());
    testing::write_text(path() / "longbench_config/dataset2maxlen.json", json{{set, max_new_tokens}}.dump());
  }
  const fs::path& path() const { return directory_.path(); }
  json record(const std::string& input, const std::string& context) const {
    return {{"input", input},  {"context", context}, {"answers", {"yes"}},     {"length", 4000},
            {"dataset", set_}, {"language", "en"},   {"all_classes", nullptr}, {"_id", "id-" + input}};
  }
  void write(const std::vector<json>& records) const {
    std::string lines;
    for (const json& one : records) lines += one.dump() + "\n";
    testing::write_text(path() / "longbench_full" / (set_ + ".jsonl"), lines);
  }
  std::vector<Sample> samples(const std::string& tokens, const std::string& count, const Tokenizer& tokenizer) const {
    const DataLocator data({path()});
    return longbench({{"set", set_}, {"tokens", tokens}, {"samples", count}})->samples({tokenizer, data, nullptr, 17});
  }
  std::vector<Sample> samples(const std::string& tokens, const std::string& count = "1") const {
    return samples(tokens, count, testing::ByteTokenizer(false));
  }

 private:
  std::string set_;
  testing::TemporaryDirectory directory_;
};

std::string text_of(const std::vector<int32_t>& ids) {
  return testing::ByteTokenizer(false).decode(ids, false);
}

// The stored predictions of one set, or nothing where no data root has them.
std::vector<json> stored_records(const std::string& set, fs::path& root) {
  for (const fs::path& one : testing::data_roots()) {
    const fs::path file = one / "minilongbench" / ("MiniLongBench_" + set + ".json");
    if (!fs::exists(file)) continue;
    root = one;
    std::vector<json> records;
    const auto stored = nlohmann::ordered_json::parse(testing::read_text(file));
    for (const auto& [key, value] : stored.items()) records.push_back(json::parse(value.dump()));
    return records;
  }
  return {};
}

}  // namespace

TEST_CASE("stored predictions on MiniLongBench score as with the authors' code", "[golden]") {
  const auto files = testing::golden_files("(.*/)?minilongbench_scores[^/]*[.]jsonl");
  if (files.empty()) SKIP("no minilongbench_scores*.jsonl in a golden root");
  int64_t compared = 0;
  for (const fs::path& file : files) {
    INFO(file.string());
    const bool levenshtein = file.filename().string().find("levenshtein") != std::string::npos;
    std::map<std::string, std::map<std::string, double>> expected;  // set -> record -> score
    json averages;
    std::istringstream in(testing::read_text(file));
    for (std::string line; std::getline(in, line);) {
      const json row = json::parse(line);
      if (row.contains("averages"))
        averages = row["averages"];
      else
        expected[row.at("dataset")][row.at("idx")] = row.at("score");
    }
    REQUIRE(!expected.empty());
    for (const auto& [set, scores] : expected) {
      INFO(set);
      fs::path root;
      const std::vector<json> records = stored_records(set, root);
      if (records.empty()) SKIP("no minilongbench/MiniLongBench_" + set + ".json in a data root");
      const testing::ByteTokenizer tokenizer(false);
      const DataLocator data({root});
      const auto task = longbench({{"set", set}, {"tokens", "64"}, {"source", "minilongbench"}});
      const std::vector<Sample> samples = task->samples({tokenizer, data, nullptr, 17});
      REQUIRE(samples.size() == records.size());
      std::string name = task->metrics().front().name;
      if (levenshtein && name == "code_sim") name = "code_sim_levenshtein";
      double sum = 0;
      for (const auto& [index, score] : scores) {
        INFO(index);
        const auto at = static_cast<size_t>(std::stoll(index));
        REQUIRE(at < records.size());
        Output output;
        output.text = records[at].at("prediction");
        const double ours = task->score(samples[at], output).at(name);
        CHECK(std::abs(ours - score) < 1e-9);
        sum += ours;
        ++compared;
      }
      if (averages.contains(set))
        CHECK(std::abs(100 * sum / static_cast<double>(scores.size()) - averages[set].get<double>()) < 0.005 + 1e-9);
    }
  }
  CHECK(compared > 0);
}

TEST_CASE("prompts that an issue of the sets is told by hold its query, and no more than 512 tokens of it",
          "[golden]") {
  const std::string set =
      GENERATE("narrativeqa", "qasper", "multifieldqa_en", "multifieldqa_zh", "hotpotqa", "2wikimqa", "musique",
               "dureader", "gov_report", "qmsum", "multi_news", "vcsum", "trec", "triviaqa", "samsum", "lsht",
               "passage_count", "passage_retrieval_en", "passage_retrieval_zh", "lcc", "repobench-p");
  INFO(set);
  fs::path root;
  const std::vector<json> records = stored_records(set, root);
  if (records.empty()) SKIP("no minilongbench in a data root");
  const testing::ByteTokenizer tokenizer(true);
  const DataLocator data({root});
  const auto task = longbench({{"set", set}, {"tokens", "1000000"}, {"source", "minilongbench"}});
  const std::vector<Sample> samples = task->samples({tokenizer, data, nullptr, 17});
  CHECK(std::ssize(samples) == task->sample_count());
  for (size_t i = 0; i < samples.size(); ++i) {
    const std::string prompt = records[i].at("origin_prompt");
    CHECK(tokenizer.decode(samples[i].context, true) + text_of(samples[i].query) == prompt);
    CHECK(!samples[i].tags.contains("truncated_from"));
    CHECK(std::ssize(samples[i].query) <= task->query_tokens());
    CHECK(samples[i].query.size() < prompt.size() / 2);
  }
}

TEST_CASE("a prompt is the set's form with the record's fields, and the query what stands behind the context") {
  const Root root("hotpotqa", 32, "Read {{this}}.\n{context}\n\nQuestion: {input}\nAnswer:");
  root.write({root.record("Is it {context}?", "Some text with {input} in it.")});
  const Sample sample = root.samples("1000").front();
  CHECK(text_of(sample.context) == "Read {this}.\nSome text with {input} in it.");
  CHECK(text_of(sample.query) == "\n\nQuestion: Is it {context}?\nAnswer:");
  CHECK(sample.max_new_tokens == 32);
  CHECK(sample.stop.empty());
  CHECK(sample.answers == std::vector<std::string>{"yes"});
  CHECK(sample.id == "r000");
  std::map<std::string, std::string> tags = sample.tags;
  CHECK(tags.extract("document").mapped().size() == 16);
  CHECK(tags == std::map<std::string, std::string>{{"length", "4-8k"}, {"record", "id-Is it {context}?"}});
}

TEST_CASE("questions about one text have one document") {
  const Root root("hotpotqa", 32, "{context}\n\nQuestion: {input}\nAnswer:");
  root.write({root.record("Who?", "One text."), root.record("Where?", "One text."), root.record("Who?", "Another.")});
  const std::vector<Sample> samples = root.samples("1000", "3");
  CHECK(samples[0].tags.at("document") == samples[1].tags.at("document"));
  CHECK(samples[0].tags.at("document") != samples[2].tags.at("document"));
}

TEST_CASE("the line that asks for code is the query, the code before it is not") {
  const Root root("repobench-p", 64, "Complete.\n{context}{input}Next line of code:\n");
  root.write({root.record("int b;\n", "int a;\n")});
  const Sample sample = root.samples("1000").front();
  CHECK(text_of(sample.context) == "Complete.\nint a;\nint b;\n");
  CHECK(text_of(sample.query) == "Next line of code:\n");
}

TEST_CASE("the middle is cut out of a prompt that is too long, as the authors do") {
  const Root root("hotpotqa", 32, "{context} Q: {input}");
  const std::string context = std::string(60, 'a') + std::string(100, '-') + std::string(60, 'z');
  root.write({root.record("what?", context)});
  const auto sample_at = [&](const char* tokens) { return root.samples(tokens).front(); };
  const Sample even = sample_at("100");
  CHECK(text_of(even.context) + text_of(even.query) == std::string(50, 'a') + std::string(41, 'z') + " Q: what?");
  CHECK(text_of(even.query) == " Q: what?");
  CHECK(even.tags.at("truncated_from") == "229");
  CHECK(!even.tags.contains("tokens_over"));
  const Sample odd = sample_at("101");  // int(101 / 2) from each end
  CHECK(odd.context == even.context);
  CHECK(!sample_at("229").tags.contains("truncated_from"));
  CHECK(sample_at("228").tags.contains("truncated_from"));
}

TEST_CASE("the model's chat format stands around what is left of a prompt, but not around few-shot and code sets") {
  const testing::ByteTokenizer tokenizer(true);
  const ChatPrompt chat = [](const std::string& message) {  // one that drops white space at the ends
    return "<user>" + message.substr(0, message.find_last_not_of(" \n") + 1) + "<assistant>";
  };
  const auto first = [&](const std::string& set, int max_new_tokens, const Values& more) {
    const Root root(set, max_new_tokens, "{context} Q: {input} ");
    root.write({root.record("what?", std::string(60, 'a') + std::string(60, 'z'))});
    const DataLocator data({root.path()});
    Values values = {{"set", set}, {"tokens", "100"}, {"samples", "1"}};
    values.insert(more.begin(), more.end());
    return longbench(values)->samples({tokenizer, data, nullptr, 17, chat}).front();
  };
  const Sample in_format = first("hotpotqa", 32, {});
  CHECK(text_of(in_format.context) == "<user>" + std::string(49, 'a') + std::string(40, 'z'));  // BOS was one of 50
  CHECK(text_of(in_format.query) == " Q: what?<assistant>");
  CHECK(in_format.tags.at("tokens_over") == "15");  // 6 + 11 characters more, BOS and a space less
  CHECK(text_of(first("triviaqa", 32, {}).query) == " Q: what? ");
  CHECK(text_of(first("hotpotqa", 32, {{"chat", "false"}}).query) == " Q: what? ");
}

TEST_CASE("halves are cut as texts: a character that is cut in two is lost, BOS is not doubled") {
  const Root root("hotpotqa", 32, "{context} Q: {input}");
  std::string context;
  for (int i = 0; i < 50; ++i) context += "é";  // two bytes, two tokens
  root.write({root.record("?", context)});
  const testing::ByteTokenizer tokenizer(true);
  const Sample sample = root.samples("64", "1", tokenizer).front();
  // The first 32 ids are BOS and 15.5 characters, the last 32 are 13.5 and five of the question.
  std::string expected;
  for (int i = 0; i < 15; ++i) expected += "é";
  expected += "\uFFFD\uFFFD";
  for (int i = 0; i < 13; ++i) expected += "é";
  CHECK(tokenizer.decode(sample.context, true) == expected);
  CHECK(std::count(sample.context.begin(), sample.context.end(), *tokenizer.bos()) == 1);
  CHECK(sample.tags.at("tokens_over") == "4");  // U+FFFD has three bytes, twice, where one was
}

TEST_CASE("a query that is longer than half of what fits begins with the second half") {
  const Root root("hotpotqa", 32, "{context}{input}");
  root.write({root.record(std::string(100, 'q'), std::string(50, 'c'))});
  const Sample sample = root.samples("80").front();
  CHECK(text_of(sample.context) == std::string(40, 'c'));
  CHECK(text_of(sample.query) == std::string(40, 'q'));
}

TEST_CASE("length buckets are LongBench-E's") {
  const Root root("hotpotqa", 32, "{context}{input}");
  std::vector<json> records;
  for (const int length : {0, 3999, 4000, 7999, 8000, 90000}) {
    records.push_back(root.record("?", "text"));
    records.back()["length"] = length;
  }
  root.write(records);
  std::vector<std::string> buckets;
  for (const Sample& sample : root.samples("1000", "6")) buckets.push_back(sample.tags.at("length"));
  CHECK(buckets == std::vector<std::string>{"0-4k", "0-4k", "4-8k", "4-8k", "8k+", "8k+"});
}

TEST_CASE("the first line alone is scored where the authors do so, all of the output elsewhere") {
  const std::string form = "{context}{input}";
  const Root first("triviaqa", 32, form), whole("hotpotqa", 32, form);
  first.write({first.record("?", "text")});
  whole.write({whole.record("?", "text")});
  const testing::ByteTokenizer tokenizer(false);
  const auto score = [&](const Root& root, const std::string& set, const std::string& text) {
    const auto task = longbench({{"set", set}, {"tokens", "100"}, {"samples", "1"}});
    const DataLocator data({root.path()});
    Output output;
    output.text = text;
    return task->score(task->samples({tokenizer, data, nullptr, 17}).front(), output).at("qa_f1");
  };
  CHECK(score(first, "triviaqa", "\n\nyes\nno") == 1);
  CHECK(score(first, "triviaqa", "\n\n") == 0);
  CHECK(score(whole, "hotpotqa", "\n\nyes\nno") == Catch::Approx(2.0 / 3));
}

TEST_CASE("the best of several answers counts, and repetition is a column of its own") {
  const Root root("gov_report", 512, "{context}");
  json record = root.record("", "text");
  record["answers"] = {"no such words", "the cat sat on the mat"};
  root.write({record});
  const auto task = longbench({{"set", "gov_report"}, {"tokens", "100"}, {"samples", "1"}});
  const testing::ByteTokenizer tokenizer(false);
  const DataLocator data({root.path()});
  Output output;
  output.text = "the cat sat on the mat the cat sat on the mat the cat sat on the mat";
  output.tokens = {1, 2, 3, 4, 1, 2, 3, 4, 1, 2, 3, 4};
  const auto scores = task->score(task->samples({tokenizer, data, nullptr, 17}).front(), output);
  CHECK(scores.at("rouge_l") > 0.999);  // LongBench's sees no loop
  CHECK(scores.at("rouge_l_standard") == Catch::Approx(2 * (1.0 / 3) / (1 + 1.0 / 3)));
  CHECK(scores.at("repetition") == Catch::Approx(5.0 / 9));  // 9 4-grams, 4 of them distinct
}

TEST_CASE("bad data is refused with file and line") {
  const std::string form = "{context}{input}";
  const Root root("hotpotqa", 32, form);
  json bad = root.record("?", "text");
  const auto refused = [&](const std::string& part) {
    root.write({root.record("?", "text"), bad});
    CHECK_THROWS_MATCHES(root.samples("100", "2"), DataError,
                         MessageMatches(ContainsSubstring("hotpotqa.jsonl:2") && ContainsSubstring(part)));
  };
  bad["answers"] = json::array();
  refused("answers");
  bad["answers"] = {" "};
  refused("answers");
  bad = root.record("?", "text");
  bad.erase("context");
  refused("context");
  bad = root.record("?", "text");
  bad["length"] = "long";
  refused("length");
  root.write({root.record("?", "text")});
  CHECK_THROWS_MATCHES(root.samples("100", "2"), ConfigError,
                       MessageMatches(ContainsSubstring("longbench.samples = 2") && ContainsSubstring("1 records")));
}

TEST_CASE("configuration files that are not the protocol's are refused") {
  const Root lengths("hotpotqa", 33, "{context}");
  lengths.write({lengths.record("?", "text")});
  CHECK_THROWS_MATCHES(
      lengths.samples("100"), DataError,
      MessageMatches(ContainsSubstring("dataset2maxlen.json") && ContainsSubstring("the protocol generates 32")));
  const Root brace("hotpotqa", 32, "{context} }");
  brace.write({brace.record("?", "text")});
  CHECK_THROWS_MATCHES(brace.samples("100"), DataError,
                       MessageMatches(ContainsSubstring("dataset2prompt.json: hotpotqa: single '}' at byte 10")));
  const Root field("hotpotqa", 32, "{context}{question}");
  field.write({field.record("?", "text")});
  CHECK_THROWS_MATCHES(field.samples("100"), DataError, MessageMatches(ContainsSubstring("question")));
  CHECK_THROWS_MATCHES(longbench({{"set", "hotpot"}, {"tokens", "100"}}), ConfigError,
                       MessageMatches(ContainsSubstring("hotpotqa")));
}

TEST_CASE("missing sets say where they were looked for and how to get them") {
  const testing::ByteTokenizer tokenizer(false);
  const DataLocator data({"/nowhere"});
  CHECK_THROWS_MATCHES(
      longbench({{"set", "qasper"}, {"tokens", "100"}})->samples({tokenizer, data, nullptr, 17}), DataError,
      MessageMatches(ContainsSubstring("/nowhere/longbench_") && ContainsSubstring("THUDM/LongBench")));
}

}  // namespace kvsweep
