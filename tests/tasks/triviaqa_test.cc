// oracle: TriviaQA's prompt and score written out by hand; contract: what its data may not be.
#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_exception.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>

#include "harness/core/error.h"
#include "tests/support/golden.h"
#include "tests/support/tasks.h"
#include "tests/support/toy_tokenizer.h"

namespace kvsweep {
using Catch::Matchers::ContainsSubstring;
using Catch::Matchers::MessageMatches;

namespace {

struct SmallTriviaQa {
  SmallTriviaQa() {
    std::filesystem::create_directories(root.path() / "triviaqa_1k");
    std::string lines;
    for (int i = 0; i < 20; ++i)
      lines += line("Shot " + std::to_string(i) + "?", "[\"S" + std::to_string(i) + "\", \"x\"]");
    lines += line(R"(\"Who wrote \"\"It\"\"?\")", R"(["Stephen King", "S. King"])") + line("Say \\\"a\\\"?", "[\"a\"]");
    write(lines);
  }
  static std::string line(const std::string& question, const std::string& answers) {
    return R"({"id": "i", "question": ")" + question + R"(", "golden_answers": )" + answers + "}\n";
  }
  void write(const std::string& text) const { testing::write_text(root.path() / "triviaqa_1k/test.jsonl", text); }
  std::vector<Sample> samples(std::map<std::string, std::string> more = {}) const {
    more.insert({{"tokens", "2000"}, {"samples", "2"}, {"shots", "1"}});
    const DataLocator data({root.path()});
    return testing::make_task("triviaqa", more)->samples({tokenizer, data, nullptr, 17});
  }
  testing::TemporaryDirectory root;
  testing::ByteTokenizer tokenizer{false};
};

}  // namespace

TEST_CASE("TriviaQA's prompt is examples and question, and does not move what is asked") {
  const SmallTriviaQa trivia;
  const std::vector<Sample> samples = trivia.samples();
  const auto text = [&](const Sample& s) {
    return trivia.tokenizer.decode(s.context, true) + trivia.tokenizer.decode(s.query, true);
  };
  CHECK(text(samples[0]) == "Question: Shot 0??\nAnswer: S0\n\nQuestion: Who wrote \"It\"??\nAnswer:");
  CHECK(text(samples[1]).ends_with("\n\nQuestion: Say \"a\"??\nAnswer:"));
  CHECK(samples[0].answers == std::vector<std::string>{"Stephen King", "S. King"});
  CHECK(samples[0].stop == std::vector<std::string>{"\n", ".", ","});
  const std::vector<Sample> bare = trivia.samples({{"shots", "0"}});
  CHECK(text(bare[0]) == "Question: Who wrote \"It\"??\nAnswer:");
  CHECK(bare[0].id == samples[0].id);
}

TEST_CASE("TriviaQA's score is the exact match of any alias") {
  const SmallTriviaQa trivia;
  const auto task = testing::make_task("triviaqa", {{"tokens", "512"}});
  const Sample sample = trivia.samples()[0];
  const auto match = [&](const std::string& text) {
    Output output;
    output.text = text;
    return task->score(sample, output).at("exact_match");
  };
  CHECK(match(" stephen king") == 1);
  CHECK(match(" s king") == 1);
  CHECK(match(" the Stephen King") == 0);
  CHECK(match("") == 0);
}

TEST_CASE("TriviaQA data that cannot be right names file and line") {
  const SmallTriviaQa trivia;
  CHECK_THROWS_MATCHES(trivia.samples({{"samples", "3"}}), ConfigError,
                       MessageMatches(ContainsSubstring("has 22 questions, and the first 20 are for examples")));
  trivia.write(SmallTriviaQa::line("a?", "[\"\"]"));
  CHECK_THROWS_MATCHES(trivia.samples(), DataError,
                       MessageMatches(ContainsSubstring("test.jsonl:1: 'golden_answers'")));
  trivia.write(SmallTriviaQa::line("a?", "[]"));
  CHECK_THROWS_MATCHES(trivia.samples(), DataError, MessageMatches(ContainsSubstring("must not be empty")));
}

}  // namespace kvsweep
