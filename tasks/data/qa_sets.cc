#include "tasks/data/qa_sets.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <unordered_map>

#include "harness/core/error.h"
#include "tasks/data/locate.h"

namespace kvsweep {
namespace {

using nlohmann::json;

json parsed(const std::filesystem::path& file) {
  try {
    return json::parse(read_utf8(file));
  } catch (const json::exception& error) {
    throw DataError(fmt::format("{}: not JSON: {}", file.string(), error.what()));
  }
}

// Runs `read`, which walks the JSON; whatever it misses is reported with the form that was expected.
template <class Read>
QaSet read_form(const std::filesystem::path& file, const char* form, const Read& read) {
  const json root = parsed(file);
  QaSet set;
  try {
    read(root, set);
  } catch (const json::exception& error) {
    throw DataError(fmt::format("{}: not the form {}: {}", file.string(), form, error.what()));
  }
  if (set.questions.empty()) throw DataError(fmt::format("{}: no question that has an answer", file.string()));
  return set;
}

class Index {
 public:
  Index(QaSet& set, std::vector<std::string> documents) {
    std::sort(documents.begin(), documents.end());
    documents.erase(std::unique(documents.begin(), documents.end()), documents.end());
    set.documents = std::move(documents);
    for (const std::string& one : set.documents) at_.emplace(one, std::ssize(at_));
  }
  int64_t operator()(const std::string& document) const { return at_.at(document); }

 private:
  std::unordered_map<std::string, int64_t> at_;
};

}  // namespace

QaSet read_squad(const std::filesystem::path& file) {
  return read_form(file, "{data: [{paragraphs: [{context, qas: [{question, is_impossible, answers: [{text}]}]}]}]}",
                   [](const json& root, QaSet& set) {
                     std::vector<std::string> documents;
                     for (const json& article : root.at("data"))
                       for (const json& paragraph : article.at("paragraphs"))
                         documents.push_back(paragraph.at("context"));
                     const Index index(set, std::move(documents));
                     for (const json& article : root.at("data")) {
                       std::vector<int64_t> all;
                       for (const json& paragraph : article.at("paragraphs"))
                         all.push_back(index(paragraph.at("context")));
                       for (const json& paragraph : article.at("paragraphs")) {
                         const int64_t own = index(paragraph.at("context"));
                         for (const json& qa : paragraph.at("qas")) {
                           if (qa.value("is_impossible", false)) continue;
                           QaQuestion question{qa.at("question"), {}, {own}, {}};
                           for (const json& answer : qa.at("answers")) question.answers.push_back(answer.at("text"));
                           if (question.answers.empty()) continue;
                           for (const int64_t one : all)
                             if (one != own) question.related.push_back(one);
                           set.questions.push_back(std::move(question));
                         }
                       }
                     }
                   });
}

QaSet read_hotpotqa(const std::filesystem::path& file) {
  const auto document = [](const json& paragraph) {
    std::string text = paragraph.at(0).get<std::string>() + "\n";
    for (const json& sentence : paragraph.at(1)) text += sentence.get<std::string>();
    return text;
  };
  return read_form(file, "[{question, answer, context: [[title, [sentence]]]}]", [&](const json& root, QaSet& set) {
    std::vector<std::string> documents;
    for (const json& record : root)
      for (const json& paragraph : record.at("context")) documents.push_back(document(paragraph));
    const Index index(set, std::move(documents));
    for (const json& record : root) {
      QaQuestion question{record.at("question"), {record.at("answer")}, {}, {}};
      for (const json& paragraph : record.at("context")) question.documents.push_back(index(document(paragraph)));
      set.questions.push_back(std::move(question));
    }
  });
}

}  // namespace kvsweep
