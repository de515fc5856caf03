#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <stdexcept>

#include "harness/core/error.h"
#include "harness/core/task.h"
#include "tasks/data/csv.h"
#include "tasks/data/few_shot.h"
#include "tasks/metrics/python_text.h"

namespace kvsweep {
namespace {

// Questions of the split test, and the categories of lm-evaluation-harness (lm_eval/tasks/mmlu) and of the authors
// (hendrycks/test, categories.py). They differ in anatomy alone.
struct Subject {
  const char *name, *category, *original_category;
  int64_t questions;
};
constexpr const char *kStem = "stem", *kHumanities = "humanities", *kSocial = "social_sciences", *kOther = "other";
constexpr std::array<Subject, 57> kSubjects = {{
    {"abstract_algebra", kStem, kStem, 100},
    {"anatomy", kStem, kOther, 135},
    {"astronomy", kStem, kStem, 152},
    {"business_ethics", kOther, kOther, 100},
    {"clinical_knowledge", kOther, kOther, 265},
    {"college_biology", kStem, kStem, 144},
    {"college_chemistry", kStem, kStem, 100},
    {"college_computer_science", kStem, kStem, 100},
    {"college_mathematics", kStem, kStem, 100},
    {"college_medicine", kOther, kOther, 173},
    {"college_physics", kStem, kStem, 102},
    {"computer_security", kStem, kStem, 100},
    {"conceptual_physics", kStem, kStem, 235},
    {"econometrics", kSocial, kSocial, 114},
    {"electrical_engineering", kStem, kStem, 145},
    {"elementary_mathematics", kStem, kStem, 378},
    {"formal_logic", kHumanities, kHumanities, 126},
    {"global_facts", kOther, kOther, 100},
    {"high_school_biology", kStem, kStem, 310},
    {"high_school_chemistry", kStem, kStem, 203},
    {"high_school_computer_science", kStem, kStem, 100},
    {"high_school_european_history", kHumanities, kHumanities, 165},
    {"high_school_geography", kSocial, kSocial, 198},
    {"high_school_government_and_politics", kSocial, kSocial, 193},
    {"high_school_macroeconomics", kSocial, kSocial, 390},
    {"high_school_mathematics", kStem, kStem, 270},
    {"high_school_microeconomics", kSocial, kSocial, 238},
    {"high_school_physics", kStem, kStem, 151},
    {"high_school_psychology", kSocial, kSocial, 545},
    {"high_school_statistics", kStem, kStem, 216},
    {"high_school_us_history", kHumanities, kHumanities, 204},
    {"high_school_world_history", kHumanities, kHumanities, 237},
    {"human_aging", kOther, kOther, 223},
    {"human_sexuality", kSocial, kSocial, 131},
    {"international_law", kHumanities, kHumanities, 121},
    {"jurisprudence", kHumanities, kHumanities, 108},
    {"logical_fallacies", kHumanities, kHumanities, 163},
    {"machine_learning", kStem, kStem, 112},
    {"management", kOther, kOther, 103},
    {"marketing", kOther, kOther, 234},
    {"medical_genetics", kOther, kOther, 100},
    {"miscellaneous", kOther, kOther, 783},
    {"moral_disputes", kHumanities, kHumanities, 346},
    {"moral_scenarios", kHumanities, kHumanities, 895},
    {"nutrition", kOther, kOther, 306},
    {"philosophy", kHumanities, kHumanities, 311},
    {"prehistory", kHumanities, kHumanities, 324},
    {"professional_accounting", kOther, kOther, 282},
    {"professional_law", kHumanities, kHumanities, 1534},
    {"professional_medicine", kOther, kOther, 272},
    {"professional_psychology", kSocial, kSocial, 612},
    {"public_relations", kSocial, kSocial, 110},
    {"security_studies", kSocial, kSocial, 245},
    {"sociology", kSocial, kSocial, 201},
    {"us_foreign_policy", kSocial, kSocial, 100},
    {"virology", kOther, kOther, 166},
    {"world_religions", kHumanities, kHumanities, 171},
}};
constexpr int64_t kShotsAtMost = 5;  // rows of the split dev
constexpr std::string_view kLetters = "ABCD";

struct Question {
  std::string text;  // stripped
  std::array<std::string, 4> choices;
  size_t answer = 0;
};

std::string dev_file(const Subject& subject) {
  return fmt::format("mmlu/dev/{}_dev.csv", subject.name);
}
std::string test_file(const Subject& subject) {
  return fmt::format("mmlu/test/{}_test.csv", subject.name);
}

std::vector<Question> read_questions(const std::filesystem::path& file) {
  std::vector<Question> questions;
  for (const CsvRow& row : read_csv(file, 6)) {
    const auto fail = [&](const std::string& why) {
      throw DataError(fmt::format("{}:{}: {}", file.string(), row.line, why));
    };
    Question question;
    question.text = python_strip(row.fields[0]);
    if (question.text.empty()) fail("the question is empty");
    for (size_t i = 0; i < 4; ++i) question.choices[i] = row.fields[i + 1];
    const std::string& letter = row.fields[5];
    question.answer = letter.size() == 1 ? kLetters.find(letter) : std::string_view::npos;
    if (question.answer == std::string_view::npos) fail(fmt::format("the answer is '{}', not A, B, C or D", letter));
    questions.push_back(std::move(question));
  }
  return questions;
}

struct Settings {
  int64_t tokens = 0, per_subject = 0, shots = 0;
  bool chat = false;
  std::vector<const Subject*> subjects;
};

class MmluTask final : public Task {
 public:
  explicit MmluTask(Settings settings) : s_(std::move(settings)) {}

  std::vector<Sample> samples(const TaskContext& context) const override;
  std::string kind() const override { return "knowledge"; }
  std::vector<MetricSpec> metrics() const override { return {{"acc", Aggregate::kMean, true, "accuracy"}}; }
  std::map<std::string, double> score(const Sample& sample, const Output& output) const override;
  std::vector<std::string> breakdown() const override { return {"subject", "category", "original_category"}; }
  int64_t tokens() const override { return s_.tokens; }
  int64_t sample_count() const override {
    int64_t count = 0;
    for (const Subject* subject : s_.subjects) count += count_of(*subject);
    return count;
  }
  int64_t query_tokens() const override { return std::min<int64_t>(s_.tokens - 1, s_.chat ? 64 : 16); }
  std::vector<std::string> data() const override;

 private:
  int64_t count_of(const Subject& subject) const {
    return s_.per_subject == 0 ? subject.questions : std::min(s_.per_subject, subject.questions);
  }
  std::string header(const Subject& subject, const std::vector<Question>& dev) const;
  PromptParts prompt(const TaskContext& context, const std::string& shared, const Question& question) const;
  Sample sample(const TaskContext& context, const std::string& shared, const Question& question) const;
  void add_subject(const TaskContext& context, const Subject& subject, std::vector<Sample>& samples) const;

  Settings s_;
};

std::vector<std::string> MmluTask::data() const {
  std::vector<std::string> files;
  for (const Subject* subject : s_.subjects) {
    if (s_.shots > 0) files.push_back(dev_file(*subject));
    files.push_back(test_file(*subject));
  }
  return files;
}

// The prompt of lm-evaluation-harness, lm_eval/tasks/mmlu/default, byte for byte.
std::string question_text(const Question& question) {
  std::string text = question.text + "\n";
  for (size_t i = 0; i < 4; ++i) text += fmt::format("{}. {}\n", kLetters[i], question.choices[i]);
  return text + "Answer:";
}

std::string MmluTask::header(const Subject& subject, const std::vector<Question>& dev) const {
  std::string name = subject.name;
  std::replace(name.begin(), name.end(), '_', ' ');
  std::string text = fmt::format("The following are multiple choice questions (with answers) about {}.\n\n", name);
  for (int64_t i = 0; i < s_.shots; ++i) {
    const Question& shot = dev[static_cast<size_t>(i)];
    text += fmt::format("{} {}\n\n", question_text(shot), kLetters[shot.answer]);
  }
  return text;
}

PromptParts MmluTask::prompt(const TaskContext& context, const std::string& shared, const Question& question) const {
  if (!s_.chat) return last_line_parts(shared + question_text(question));
  return chat_parts(context, shared + question_text(question), "mmlu.format = chat");
}

Sample MmluTask::sample(const TaskContext& context, const std::string& shared, const Question& question) const {
  const PromptParts parts = prompt(context, shared, question);
  Sample sample;
  std::vector<std::string> choices;
  for (const char letter : kLetters) choices.push_back((s_.chat ? "" : " ") + std::string(1, letter));
  sample.choices = continuation_ids(context.tokenizer, parts, choices);
  sample.answers = {std::string(1, kLetters[question.answer])};
  // The model reads a choice's tokens up to its last one.
  size_t longest = 1;
  for (const auto& choice : sample.choices) longest = std::max(longest, choice.size());
  set_prompt(sample, context.tokenizer, parts, s_.tokens + 1 - static_cast<int64_t>(longest), "mmlu.tokens");
  return sample;
}

void MmluTask::add_subject(const TaskContext& context, const Subject& subject, std::vector<Sample>& samples) const {
  const std::filesystem::path file = context.data.find(test_file(subject));
  const std::vector<Question> questions = read_questions(file);
  if (std::ssize(questions) < count_of(subject))
    throw DataError(
        fmt::format("{}: {} questions, the split test has {}", file.string(), questions.size(), subject.questions));
  std::vector<Question> dev;
  if (s_.shots > 0) {
    const std::filesystem::path shots = context.data.find(dev_file(subject));
    dev = read_questions(shots);
    if (std::ssize(dev) < s_.shots)
      throw DataError(fmt::format("{}: {} questions for shots = {}", shots.string(), dev.size(), s_.shots));
  }
  const std::string shared = header(subject, dev);
  for (int64_t i = 0; i < count_of(subject); ++i) {
    Sample one = sample(context, shared, questions[static_cast<size_t>(i)]);
    one.id = fmt::format("{}-{:04}", subject.name, i);
    one.tags["subject"] = subject.name;
    one.tags["category"] = subject.category;
    one.tags["original_category"] = subject.original_category;
    samples.push_back(std::move(one));
  }
}

std::vector<Sample> MmluTask::samples(const TaskContext& context) const {
  std::vector<Sample> samples;
  for (const Subject* subject : s_.subjects) add_subject(context, *subject, samples);
  return samples;
}

std::map<std::string, double> MmluTask::score(const Sample& sample, const Output& output) const {
  if (output.choices.size() != sample.choices.size())
    throw std::invalid_argument(fmt::format("mmlu: sample {} has {} scored choices, not {}", sample.id,
                                            output.choices.size(), sample.choices.size()));
  const auto best = std::max_element(output.choices.begin(), output.choices.end(), [](const auto& a, const auto& b) {
    return a.log_likelihood < b.log_likelihood;  // of equal ones the first
  });
  const char chosen = kLetters[static_cast<size_t>(best - output.choices.begin())];
  return {{"acc", sample.answers.front()[0] == chosen ? 1 : 0}};
}

std::vector<const Subject*> named_subjects(const Params& params, const std::string& text) {
  std::vector<const Subject*> subjects;
  if (text == "all") {
    for (const Subject& subject : kSubjects) subjects.push_back(&subject);
    return subjects;
  }
  std::vector<std::string> known;
  for (const Subject& subject : kSubjects) known.emplace_back(subject.name);
  for (const std::string& part : split_at(text, ',')) {
    const std::string name = python_strip(part);
    const auto at = std::find_if(kSubjects.begin(), kSubjects.end(), [&](const auto& one) { return one.name == name; });
    if (at == kSubjects.end()) {
      const std::string near = nearest_name(name, known);
      params.reject("subjects",
                    fmt::format("no subject '{}'{}; allowed: all, or some of {}", name,
                                near.empty() ? "" : fmt::format(", did you mean '{}'?", near), join(known)));
    }
    if (std::find(subjects.begin(), subjects.end(), &*at) != subjects.end())
      params.reject("subjects", fmt::format("'{}' stands twice", name));
    subjects.push_back(&*at);
  }
  return subjects;
}

std::unique_ptr<Task> make_mmlu(Params& params) {
  Settings s;
  s.tokens = params.integer("tokens", std::nullopt, 64, 1 << 20,
                            "tokens of a prompt at most; longer ones lose their beginning, and are tagged");
  const std::string subjects = params.text("subjects", "all", "all, or names of subjects with commas between");
  s.per_subject = params.integer("per_subject", 0, 0, 2000, "questions of each subject, from its first; 0: all");
  s.chat =
      params.choice("format", "plain", {"plain", "chat"}, "chat: the model's chat format around the prompt") == "chat";
  s.shots = params.integer("shots", s.chat ? 0 : kShotsAtMost, 0, kShotsAtMost,
                           "examples before the question; 5, with format chat 0, when left out");
  if (!params.describing()) s.subjects = named_subjects(params, subjects);
  params.finish();
  return std::make_unique<MmluTask>(std::move(s));
}

}  // namespace

TaskEntry mmlu_entry() {
  return {"mmlu", 1, "questions with four choices from 57 subjects (MMLU), by the choices' likelihood", make_mmlu};
}

}  // namespace kvsweep
