// oracle: CNN/DailyMail's prompt, cut and scores written out by hand; contract: what its data may not be.
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

struct SmallCnn {
  SmallCnn() {
    std::filesystem::create_directories(root.path() / "cnn_dailymail_100");
    write("documents.txt",
          "The cat sat on the mat . It slept . \xe2\x82\xac\xe2\x82\xac\xe2\x82\xac\xe2\x82\xac\nOther news .\n");
    write("references.txt", "<t> The cat sat . </t> <t> It slept . </t>\n<t> News . </t>\n");
  }
  void write(const std::string& name, const std::string& text) const {
    testing::write_text(root.path() / "cnn_dailymail_100" / name, text);
  }
  std::vector<Sample> samples(const std::string& tokens) const {
    const DataLocator data({root.path()});
    return testing::make_task("cnn_dailymail", {{"tokens", tokens}, {"samples", "2"}})
        ->samples({tokenizer, data, nullptr, 17});
  }
  std::string text(const Sample& s) const {
    return tokenizer.decode(s.context, true) + tokenizer.decode(s.query, true);
  }
  testing::TemporaryDirectory root;
  testing::ByteTokenizer tokenizer{false};
};

}  // namespace

TEST_CASE("a summary is asked for behind the article, which loses its end when it is too long") {
  const SmallCnn cnn;
  const Sample whole = cnn.samples("500")[0];
  CHECK(cnn.text(whole) ==
        "Summarize the following article:\n\nThe cat sat on the mat . It slept . "
        "\xe2\x82\xac\xe2\x82\xac\xe2\x82\xac\xe2\x82\xac\n\nSummary:");
  CHECK(cnn.tokenizer.decode(whole.query, true) == "\n\nSummary:");
  CHECK(!whole.tags.contains("truncated_from"));
  const auto length = std::ssize(whole.context) + std::ssize(whole.query);
  for (int64_t less = 1; less < 20; ++less) {
    INFO(less);
    const Sample cut = cnn.samples(std::to_string(length - less))[0];
    CHECK(std::ssize(cut.context) + std::ssize(cut.query) <= length - less);
    CHECK(cut.tags.at("truncated_from") == std::to_string(length));
    CHECK(cnn.text(cut).ends_with("\n\nSummary:"));
    const std::string context = cnn.tokenizer.decode(cut.context, true);
    CHECK(cnn.tokenizer.decode(whole.context, true).starts_with(context));
    CHECK(context.size() + 3 > static_cast<size_t>(std::ssize(whole.context) - less));  // a character of three bytes
  }
}

TEST_CASE("summaries are scored by ROUGE, by what they repeat and by what they copy") {
  const SmallCnn cnn;
  const auto task = testing::make_task("cnn_dailymail", {{"tokens", "500"}, {"max_new_tokens", "9"}});
  Sample sample = cnn.samples("500")[0];
  sample.max_new_tokens = 9;
  CHECK(sample.answers[0] == "The cat sat .\nIt slept .");
  Output output;
  output.text = "It slept. The cat sat.";
  output.tokens = {1, 2, 3, 4, 5};
  const auto scores = task->score(sample, output);
  CHECK(scores.at("rouge_1") == 1);
  CHECK(scores.at("rouge_lsum") == 1);  // sentence by sentence, in any order
  CHECK(scores.at("rouge_l") == 3.0 / 5);
  CHECK(scores.at("coverage") == 1);
  CHECK(scores.at("density") == (2.0 * 2 + 3 * 3) / 5);
  CHECK(scores.at("rep_4") == 0);
  CHECK(scores.at("unfinished") == 0);
  output.text.clear();
  output.tokens.assign(9, 7);
  const auto looped = task->score(sample, output);
  CHECK(looped.at("rouge_lsum") == 0);
  CHECK(looped.at("longest_loop") == 9);
  CHECK(looped.at("unfinished") == 1);
}

TEST_CASE("CNN/DailyMail data that cannot be right names file and line") {
  const SmallCnn cnn;
  const auto check = [&](const std::string& references, const std::string& message) {
    cnn.write("references.txt", references);
    CHECK_THROWS_MATCHES(cnn.samples("500"), DataError, MessageMatches(ContainsSubstring(message)));
  };
  check("<t> a </t>\n", "has 1");
  check("<t> a </t>\nplain\n", "references.txt:2: no sentence between <t> and </t>");
  check("<t> a\n<t> b </t>\n", "references.txt:1: <t> without </t>");
  check("<t> a </t>\n  \n", "references.txt:2: the line is empty");
  check("<t> a </t>\n<t> \xff </t>\n", "is not UTF-8");
}

}  // namespace kvsweep
