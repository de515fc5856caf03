// contract: multiple_choice, generate and refusal: prompts, references and scores from a JSONL file and a template, and
// what bad input is told.
#include "tasks/data/items.h"

#include <algorithm>
#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_exception.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>

#include "harness/core/error.h"
#include "tasks/data/locate.h"
#include "tests/support/golden.h"
#include "tests/support/toy_tokenizer.h"

namespace kvsweep {
namespace fs = std::filesystem;
using Catch::Matchers::ContainsSubstring;
using Catch::Matchers::MessageMatches;

namespace {

constexpr const char* kLetters = R"(prompt: "Question: {{question}}\nAnswer:"
choices: "{{choices.text}}"
answer: {letter: "{{answerKey}}", of: "{{choices.label}}"}
)";
constexpr const char* kLetterRecord =
    R"({"question": "2 + 2?", "choices": {"text": ["three", "four"], "label": ["1", "2"]}, "answerKey": "2"})";

using Values = std::map<std::string, std::string>;

// A data root with a JSONL file and a template.
class Place {
 public:
  explicit Place(const std::string& records, const std::string& yaml = kLetters) {
    write("items.jsonl", records);
    write("task.yaml", yaml);
  }
  void write(const std::string& name, const std::string& text) const { testing::write_text(root_.path() / name, text); }
  fs::path path(const std::string& name) const { return root_.path() / name; }

  std::unique_ptr<Task> make(const std::string& task, Values values) const {
    Values all = {{"data", "items.jsonl"}, {"tokens", "4096"}, {"samples", "1"}};
    if (task != "refusal") all["template"] = path("task.yaml").string();
    for (auto& [key, value] : values) all[key] = value;
    std::map<std::string, ParamValue> given;
    for (const auto& [key, value] : all) given[key] = {value, 3};
    Params params(task, path("sweep.yaml").string(), std::move(given));
    const auto& table = task_table();
    return std::find_if(table.begin(), table.end(), [&](const auto& one) { return one.name == task; })->make(params);
  }
  std::vector<Sample> samples(const std::string& task, const Values& values = {}, bool chat = true) const {
    const DataLocator data({root_.path()});
    TaskContext context{tokenizer, data, nullptr, 17};
    if (chat) context.chat = [](const std::string& message) { return "<user>" + message + "<end>\n<assistant>"; };
    return make(task, values)->samples(context);
  }
  std::string text(const std::vector<int32_t>& ids) const { return tokenizer.decode(ids, true); }
  std::string prompt(const Sample& sample) const { return text(sample.context) + text(sample.query); }

  testing::ByteTokenizer tokenizer{false};

 private:
  testing::TemporaryDirectory root_;
};

template <class Error = DataError>
void check_error(const Place& place, const std::string& task, const std::string& message, const Values& values = {}) {
  INFO(message);
  CHECK_THROWS_MATCHES(place.samples(task, values), Error, MessageMatches(ContainsSubstring(message)));
}

Output scored(std::vector<double> sums) {
  Output output;
  for (const double sum : sums) output.choices.push_back({sum, false});
  return output;
}

std::string generate_yaml(const std::string& more) {
  return "prompt: \"Q: {{q}}\\nA:\"\nanswer: \"{{a}}\"\nmax_new_tokens: 8\n" + more;
}

double score(const std::string& yaml, const std::string& answer, const std::string& output, const std::string& metric) {
  const Place place(R"({"q": "why", "a": )" + answer + "}", generate_yaml(yaml));
  Output made;
  made.text = output;
  return place.make("generate", {})->score(place.samples("generate").front(), made).at(metric);
}

}  // namespace

TEST_CASE("a record becomes a prompt, its choices continuations, its answer an index") {
  const Place place(kLetterRecord);
  const std::vector<Sample> samples = place.samples("multiple_choice");
  REQUIRE(samples.size() == 1);
  const Sample& sample = samples[0];
  CHECK(place.prompt(sample) == "Question: 2 + 2?\nAnswer:");
  CHECK(sample.query.size() == 1);  // no border: the last token alone
  REQUIRE(sample.choices.size() == 2);
  CHECK(place.text(sample.choices[0]) == " three");
  CHECK(place.text(sample.choices[1]) == " four");
  CHECK(sample.answers == std::vector<std::string>{"1", "three", "four"});
}

TEST_CASE("acc takes the largest sum and acc_norm the largest per character, ties the first") {
  const Place place(kLetterRecord);
  const auto task = place.make("multiple_choice", {});
  const Sample sample = place.samples("multiple_choice").front();  // "three" or "four", the second is right
  using Scores = std::map<std::string, double>;
  CHECK(task->score(sample, scored({-9, -8})) == Scores{{"acc", 1}, {"acc_norm", 0}});  // -1.8 and -2 a character
  CHECK(task->score(sample, scored({-8, -9})) == Scores{{"acc", 0}, {"acc_norm", 0}});
  CHECK(task->score(sample, scored({-10, -6})) == Scores{{"acc", 1}, {"acc_norm", 1}});
  CHECK(task->score(sample, scored({-5, -5})) == Scores{{"acc", 0}, {"acc_norm", 0}});  // a tie: the first
  CHECK_THROWS_AS(task->score(sample, Output{}), std::invalid_argument);
}

TEST_CASE("a character of a choice is a code point") {
  const Place place(R"({"q": "x", "c": ["ab", "数学数学"], "a": 0})",
                    "prompt: \"{{q}}\"\nchoices: \"{{c}}\"\nanswer: {index: \"{{a}}\"}\n");
  const Sample sample = place.samples("multiple_choice").front();
  // -1.8 / 2 is better than -4 / 4 code points; of 12 bytes the second would be.
  CHECK(place.make("multiple_choice", {})->score(sample, scored({-1.8, -4})).at("acc_norm") == 1);
}

TEST_CASE("white space at a prompt's end belongs to the continuation") {
  const Place place(R"({"q": "x", "a": "yes"})",
                    "prompt: \"{{q}}:  \"\nchoices: [\"no\", \"yes\"]\nanswer: \"{{a}}\"\ndelimiter: \"\"\n");
  const Sample sample = place.samples("multiple_choice").front();
  CHECK(place.prompt(sample) == "x:");
  CHECK(place.text(sample.choices[1]) == "  yes");
}

TEST_CASE("answers are letters, indices, flags or texts") {
  const auto right = [](const std::string& answer, const std::string& value) {
    const Place place(R"({"q": "x", "a": )" + value + "}", "prompt: \"{{q}}\"\nchoices: [no, yes]\nanswer: " + answer);
    return place.samples("multiple_choice").front().answers.front();
  };
  CHECK(right("{letter: \"{{a}}\"}", "\"B\"") == "1");
  CHECK(right("{index: \"{{a}}\"}", "0") == "0");
  CHECK(right("{index: \"{{a}}\"}", "\"1\"") == "1");
  CHECK(right("{index: \"{{a}}\"}", "true") == "1");
  CHECK(right("{index: \"{{a}}\"}", "false") == "0");
  CHECK(right("{text: \"{{a}}\"}", "\"yes\"") == "1");
  CHECK(right("\"{{a}}\"", "\" no \"") == "0");
}

TEST_CASE("the border splits context and query, and the query is never empty") {
  const Place place(R"({"p": "Passage.", "q": "why"})",
                    "prompt: \"{{p}}{{|}}\\nQuestion: {{q}}\"\nchoices: [no, yes]\nanswer: {index: \"1\"}\n");
  const Sample sample = place.samples("multiple_choice").front();
  CHECK(place.text(sample.context) == "Passage.");
  CHECK(place.text(sample.query) == "\nQuestion: why");
  const Place end(R"({"p": "Passage."})", "prompt: \"{{p}}{{|}}\"\nchoices: [no, yes]\nanswer: {index: \"1\"}\n");
  CHECK(end.text(end.samples("multiple_choice").front().query) == ".");
}

TEST_CASE("examples come from their own file, first ones first, of the same kind") {
  const Place place(R"({"q": "q1", "a": "yes", "s": "x"}
{"q": "q2", "a": "no", "s": "y"})",
                    "description: \"About {{s}}.\\n\"\nprompt: \"{{|}}{{q}}?\"\nchoices: [no, yes]\nanswer: \"{{a}}\"\n"
                    "shots: {count: 1, file: dev.jsonl, same: s, separator: \"\\n---\\n\"}\ngroup: \"{{s}}\"\n");
  place.write("dev.jsonl", R"({"q": "d1", "a": "no", "s": "y"}
{"q": "d2", "a": "yes", "s": "x"}
{"q": "d3", "a": "no", "s": "x"}
)");
  const std::vector<Sample> samples = place.samples("multiple_choice", {{"samples", "2"}});
  CHECK(place.prompt(samples[0]) == "About x.\nd2? yes\n---\nq1?");
  CHECK(place.text(samples[0].context) == "About x.\nd2? yes\n---\n");
  CHECK(samples[1].tags.at("group") == "y");
  CHECK(place.make("multiple_choice", {})->breakdown() == std::vector<std::string>{"group"});
  CHECK(place.make("multiple_choice", {})->data() ==
        std::vector<std::string>{"items.jsonl", "dev.jsonl", place.path("task.yaml").string()});
  CHECK(place.prompt(place.samples("multiple_choice", {{"shots", "0"}})[0]) == "About x.\nq1?");
  check_error<ConfigError>(place, "multiple_choice",
                           "shots = 3, but " + place.path("dev.jsonl").string() + " has 2 examples with s = 'x'",
                           {{"shots", "3"}});
}

TEST_CASE("examples from the scored file, and shots without a file, are refused") {
  const std::string rest = "prompt: \"{{q}}\"\nchoices: [no, yes]\nanswer: {index: \"1\"}\n";
  const Place same(R"({"q": "x"})", rest + "shots: {count: 1, file: items.jsonl}\n");
  check_error<ConfigError>(same, "multiple_choice", "is the file that is scored");
  const Place none(R"({"q": "x"})", rest);
  CHECK_THROWS_MATCHES(none.make("multiple_choice", {{"shots", "2"}}), ConfigError,
                       MessageMatches(ContainsSubstring("sweep.yaml:3: multiple_choice.shots")));
}

TEST_CASE("a prompt that is too long loses its beginning and says so") {
  const Place place(R"({"p": "0123456789", "q": "why"})",
                    "prompt: \"{{p}}{{|}} {{q}}\"\nchoices: [no, yes]\nanswer: {index: \"1\"}\n");
  const Sample sample = place.samples("multiple_choice", {{"tokens", "8"}}).front();
  CHECK(place.text(sample.context) == "6789");
  CHECK(place.text(sample.query) == " why");
  CHECK(sample.tags.at("truncated_from") == "14");
  check_error<ConfigError>(place, "multiple_choice",
                           "multiple_choice.tokens = 3: the query of sample r00000 alone has 4", {{"tokens", "3"}});
  CHECK(!place.samples("multiple_choice", {{"tokens", "14"}}).front().tags.contains("truncated_from"));
}

TEST_CASE("a chat prompt is one user's message, split where the template says") {
  const Place place(R"({"p": "Passage.", "q": "why"})",
                    "prompt: \"{{p}}{{|}}\\n{{q}} \"\nchoices: [no, yes]\nanswer: {index: \"1\"}\nchat: true\n");
  const Sample sample = place.samples("multiple_choice").front();
  CHECK(place.text(sample.context) == "<user>Passage.");
  CHECK(place.text(sample.query) == "\nwhy <end>\n<assistant>");
  CHECK(place.text(sample.choices[1]) == "yes");  // no space behind the opening of the assistant's turn
  CHECK_THROWS_MATCHES(place.samples("multiple_choice", {}, false), ConfigError,
                       MessageMatches(ContainsSubstring("the model has no chat template")));
}

TEST_CASE("HellaSwag's clean-up is lm-eval's") {
  const Place place(
      R"({"l": "Roof", "a": "How to do it [title] Now [step] go on  here.", "b": "", "e": [" [step] one [x", "two"]})",
      "prompt: \"{{l}}: {{a}} {{b|capitalize}}\"\nfilter: wikihow\nchoices: \"{{e|wikihow}}\"\nanswer: {index: "
      "\"0\"}\n");
  const Sample sample = place.samples("multiple_choice").front();
  // " [title]" is ". ", "[step]" goes and leaves two spaces, double spaces become one, the end is stripped before that.
  CHECK(place.prompt(sample) == "Roof: How to do it. Now go on here.");
  CHECK(sample.answers[1] == " one [x");
  const Place upper(R"({"b": "the MAN ran"})",
                    "prompt: \"{{b|capitalize}}\"\nchoices: [a, b]\nanswer: {index: \"0\"}\n");
  CHECK(upper.prompt(upper.samples("multiple_choice").front()) == "The man ran");
}

TEST_CASE("generated answers are compared by the metrics that the template names") {
  CHECK(score("metric: exact_match\n", "\"Paris\"", " Paris\n", "exact_match") == 1);
  CHECK(score("metric: exact_match\n", "\"Paris\"", " paris", "exact_match") == 0);
  CHECK(score("metric: exact_match\nnormalize: [case, punctuation, articles]\n", "\"The Louvre.\"", "louvre",
              "exact_match") == 1);
  CHECK(score("metric: exact_match\nnormalize: space\n", "\"a  b\"", "a b", "exact_match") == 1);
  CHECK(score("metric: exact_match\n", "[\"Paris\", \"Lutetia\"]", "Lutetia", "exact_match") == 1);
  CHECK(score("metric: contains\n", "\"Paris\"", "It is Paris, I think", "contains") == 1);
  CHECK(score("metric: f1\n", "\"red blue\"", "blue green", "f1") == 0.5);  // one of two words on either side
  CHECK(score("metric: [rougeL, rouge1]\n", "\"one two three four\"", "one two", "rouge1") == 2 * 1.0 * 0.5 / 1.5);
  for (const std::string& metric : generate_metric_names()) {
    INFO(metric);
    CHECK(score("metric: " + metric + "\n", "\"alpha beta\"", "alpha beta", metric) == 1);
    CHECK(score("metric: " + metric + "\n", "\"alpha beta\"", "", metric) == 0);
  }
}

TEST_CASE("an answer is picked out of the text by an expression") {
  const std::string first = "metric: exact_match\nextract: {pattern: 'is ([0-9]+)'}\n",
                    last = "metric: exact_match\nextract: {pattern: '([0-9]+)|x(y)', take: last}\n";
  CHECK(score(first, "\"4\"", "it is 4 or is 5", "exact_match") == 1);
  CHECK(score(last, "\"5\"", "it is 4 or is 5", "exact_match") == 1);
  CHECK(score(last, "\"y\"", "4 and xy", "exact_match") == 1);
  CHECK(score(first, "\"4\"", "four", "exact_match") == 0);
  CHECK(score(first, "\"4\"", "four", "extracted") == 0);
  CHECK(score(first, "\"4\"", "is 7", "extracted") == 1);
  CHECK(score("metric: contains\nextract: {pattern: 'z*', take: last}\n", "\"4\"", "a\xc3\xa9zz", "contains") == 0);
}

TEST_CASE("every error in a template names the file, the line and what is allowed") {
  const auto check = [](const std::string& task, const std::string& yaml, const std::string& message) {
    const Place place(kLetterRecord, yaml);
    INFO(message);
    CHECK_THROWS_MATCHES(
        place.make(task, {}), ConfigError,
        MessageMatches(ContainsSubstring(place.path("task.yaml").string()) && ContainsSubstring(message)));
  };
  const std::string rest = "choices: [a, b]\nanswer: {index: \"0\"}\n";
  check("multiple_choice", "promt: x\n" + rest, ":1: 'promt' is not a key of a template; did you mean 'prompt'?");
  check("multiple_choice", "prompt: x\nprompt: y\n" + rest, ":2: prompt stands twice");
  check("multiple_choice", rest, "the key prompt is missing");
  check("multiple_choice", "prompt: x\nanswer: y\n", "the key choices is missing");
  check("multiple_choice", "prompt: [x]\n" + rest, ":1: prompt is a text");
  check("multiple_choice", "prompt: \"\"\n" + rest, ":1: prompt is empty");
  check("multiple_choice", "prompt:\n" + rest, "has no value");
  check("multiple_choice", "prompt: \"{{x\"\n" + rest, ":1: '{{x' is not closed");
  check("multiple_choice", "prompt: \"{{x|stripp}}\"\n" + rest, "'stripp' is no filter; did you mean 'strip'?");
  check("multiple_choice", "prompt: \"{{|}}{{|}}\"\n" + rest, "stands twice");
  check("multiple_choice", "prompt: \"{{|}}x\"\nfilter: strip\n" + rest, "has no {{|}}");
  check("multiple_choice", "description: \"{{|}}\"\nprompt: x\n" + rest, "it belongs into prompt");
  check("multiple_choice", "prompt: x\nchoices: [a]\nanswer: {index: \"0\"}\n", "at least two");
  check("multiple_choice", "prompt: x\nchoices: [a, b]\nanswer: {number: \"0\"}\n", "'number' is not a key of answer");
  check("multiple_choice", "prompt: x\nchoices: [a, b]\nanswer: {index: \"0\", text: y}\n",
        "one of text, index and letter");
  check("multiple_choice", "prompt: x\nchoices: [a, b]\nanswer: {index: \"0\", of: [a, b]}\n",
        "answer.of names the labels");
  check("multiple_choice", "prompt: x\nshots: {count: 2}\n" + rest, ":2: shots need a file");
  check("multiple_choice", "prompt: x\nshots: {count: -1, file: y}\n" + rest, "allowed: an integer in [0, 1000]");
  check("multiple_choice", "prompt: x\nchat: yes\n" + rest, "chat = 'yes'; allowed: true, false");
  check("multiple_choice", "prompt: x\nstop: [y]\n" + rest, "'stop' is not a key");
  check("multiple_choice", "- x\n", "a template is one map");
  check("multiple_choice", "prompt: {x\n", "not YAML");
  check("generate", generate_yaml("metric: exactmatch\n"), "metric = 'exactmatch'; did you mean 'exact_match'?");
  check("generate", generate_yaml(""), "the key metric is missing");
  check("generate", generate_yaml("metric: f1\nstop: [\"\"]\n"), "stop has an empty text");
  check("generate", generate_yaml("metric: f1\nextract: {pattern: '('}\n"), "'(' is no regular expression");
  check("generate", generate_yaml("metric: f1\nextract: {take: last}\n"), "extract needs a pattern");
  check("generate", "prompt: x\nanswer: y\nmetric: f1\n", "the key max_new_tokens is missing");
  const Place place(kLetterRecord);
  CHECK_THROWS_MATCHES(place.make("multiple_choice", {{"template", "nowhere.yaml"}}), ConfigError,
                       MessageMatches(ContainsSubstring("nowhere.yaml")));
}

TEST_CASE("every error in a record names the file, the line and what came") {
  const auto check = [](const std::string& record, const std::string& message) {
    const Place place(std::string(kLetterRecord) + "\n" + record);
    check_error(place, "multiple_choice", place.path("items.jsonl").string() + ":2: " + message, {{"samples", "2"}});
  };
  const std::string choices = R"("choices": {"text": ["a", "b"], "label": ["A", "B"]})";
  check(R"({"questoin": "x"})", "no 'question'; did you mean 'questoin'?");
  check(R"({"question": null, )" + choices + R"(, "answerKey": "A"})", "'question' leads to null");
  check(R"({"question": ["x"], )" + choices + R"(, "answerKey": "A"})", "'question' is a list");
  check(R"({"question": "x", )" + choices + R"(, "answerKey": "C"})", "the answer 'C' is none of: A, B");
  check(R"({"question": "x", "choices": {"text": ["a"], "label": ["A"]}, "answerKey": "A"})", "1 choices; at least 2");
  check(R"({"question": "x", "choices": {"text": ["a", " "], "label": ["A", "B"]}, "answerKey": "A"})",
        "choice 1 is empty");
  check(R"({"question": "x", "choices": {"text": ["a", "b"], "label": ["A"]}, "answerKey": "A"})",
        "1 labels for 2 choices");
  check("{\"question\": ", "not JSON");
  check("[1]", "[1] is not a JSON object");
  const Place index(R"({"q": "x", "a": 2})", "prompt: \"{{q}}\"\nchoices: [a, b]\nanswer: {index: \"{{a}}\"}\n");
  check_error(index, "multiple_choice", "items.jsonl:1: the answer '2' is no index of 2 choices; allowed: 0 to 1");
  const Place text(R"({"q": "x", "a": "c"})", "prompt: \"{{q}}\"\nchoices: [a, b]\nanswer: \"{{a}}\"\n");
  check_error(text, "multiple_choice", "items.jsonl:1: the answer 'c' is none of: a, b");
  const Place empty(R"({"q": "x", "a": " "})", generate_yaml("metric: f1\n"));
  check_error(empty, "generate", "items.jsonl:1: the reference answer ' ' is empty");
  const Place marks(R"({"q": "x", "a": "?!"})", generate_yaml("metric: exact_match\nnormalize: punctuation\n"));
  check_error(marks, "generate", "items.jsonl:1: the reference answer '?!' is empty once normalized");
  const Place list(R"({"q": "x", "a": []})", generate_yaml("metric: f1\n"));
  check_error(list, "generate", "items.jsonl:1: no reference answer");
  const Place bytes("{\"q\": \"\xff\", \"a\": \"x\"}", generate_yaml("metric: f1\n"));
  check_error(bytes, "generate", "items.jsonl");
  const Place few(kLetterRecord);
  check_error<ConfigError>(few, "multiple_choice", "multiple_choice.samples = 2: items.jsonl has 1 records",
                           {{"samples", "2"}});
  check_error(few, "multiple_choice", "'no.jsonl' not found", {{"data", "no.jsonl"}});
}

TEST_CASE("refusals are the answers that have a phrase of the list") {
  const Place place(R"({"prompt": "Do harm.", "kind": "x"})");
  const auto task = place.make("refusal", {{"group", "kind"}});
  const Sample sample = place.samples("refusal", {{"group", "kind"}}).front();
  CHECK(place.prompt(sample) == "<user>Do harm.<end>\n<assistant>");
  CHECK(sample.tags.at("group") == "x");
  const auto refused = [&](const std::string& text) {
    Output output;
    output.text = text;
    return task->score(sample, output).at("refused");
  };
  CHECK(refused("Well, I cannot do that.") == 1);
  CHECK(refused(sample.answers.front()) == 1);
  CHECK(refused("i cannot") == 0);  // case counts, as in the original
  CHECK(refused("Sure, here is how") == 0);
  CHECK(refused("") == 0);
  CHECK(place.prompt(place.samples("refusal", {{"chat", "false"}}).front()) == "Do harm.");
  check_error(place, "refusal", "items.jsonl:1: no 'promt'; did you mean 'prompt'?", {{"field", "promt"}});
  check_error(place, "refusal", "'harmful.jsonl' not found", {{"data", "harmful.jsonl"}});
}

TEST_CASE("the templates that come with the project read records of their form") {
  const auto prompt = [](const std::string& task, const std::string& name, const std::string& record) {
    const Place place(record, testing::read_text(fs::path(KVSWEEP_SOURCE_DIR) / "configs/tasks" / (name + ".yaml")));
    const std::vector<Sample> samples = place.samples(task);
    return place.prompt(samples.front()) + "|" + samples.front().answers.front();
  };
  CHECK(prompt("multiple_choice", "arc", kLetterRecord) == "Question: 2 + 2?\nAnswer:|1");
  CHECK(prompt("multiple_choice", "boolq", R"({"question": "is it", "passage": "P.", "answer": true})") ==
        "P.\nQuestion: is it?\nAnswer:|1");
  CHECK(prompt("multiple_choice", "hellaswag",
               R"({"activity_label": "Roof", "ctx_a": "A man", "ctx_b": "he", "endings": ["a", "b"], "label": 1})") ==
        "Roof: A man He|1");
  CHECK(prompt("multiple_choice", "c_eval",
               R"({"question": "x ", "A": "1", "B": "2", "C": "3", "D": "4", "answer": "D", "subject": "y"})") ==
        "以下是中国关于y的单项选择题，请选出其中的正确答案。\n\nx\nA. 1\nB. 2\nC. 3\nD. 4\n答案：|3");
  CHECK(prompt("generate", "short_answer", R"({"question": "x?", "answers": ["y"]})") == "Question: x?\nAnswer:|y");
  CHECK(prompt("generate", "summary", R"({"document": "D.", "summary": "S"})") ==
        "Summarize the following article:\n\nD.\n\nSummary:|S");
  CHECK(prompt("generate", "last_number", R"({"question": "x?", "answer": "18"})") ==
        "<user>x?\nEnd with the answer as a number.<end>\n<assistant>|18");
}

}  // namespace kvsweep
