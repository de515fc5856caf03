// contract: every task of the table, as a person runs it: three samples on a real model under a few schemes, and a
// record for each point.
#include <algorithm>
#include <catch2/catch_test_macros.hpp>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>

#include "harness/core/task.h"
#include "tests/support/golden.h"
#include "tests/support/process.h"

namespace kvsweep::testing {
namespace {

namespace fs = std::filesystem;

constexpr const char* kSweep = R"(model: {model}
attention_layers: [0, 29]
tasks:
  - {name: needle, tokens: 512, samples: 3, depths: 3}
  - {name: perplexity, tokens: 256, samples: 3, text: wikitext2}
  - {name: mmlu, tokens: 1024, subjects: abstract_algebra, per_subject: 3}
  - {name: gsm8k, tokens: 1024, samples: 3, max_new_tokens: 24}
  - {name: triviaqa, tokens: 512, samples: 3}
  - {name: cnn_dailymail, tokens: 512, samples: 3, max_new_tokens: 24}
  - {name: longbench, set: [trec, lcc, qasper], source: minilongbench, tokens: 1024, samples: 3}
  - {name: ruler, task: [niah_single_2, vt, fwe], tokens: 700, samples: 3}
  - {name: code, source: {source}, tokens: 700, samples: 3}
  - {name: kv_retrieval, tokens: 512, samples: 3}
  - {name: passage_copy, tokens: 512, samples: 3}
  - {name: arithmetic_chain, tokens: 512, samples: 3}
  - {name: multiple_choice, data: own/items.jsonl, template: {root}/choice.yaml, tokens: 256, samples: 3}
  - {name: generate, data: own/items.jsonl, template: {root}/generate.yaml, tokens: 256, samples: 3}
  - {name: refusal, data: own/items.jsonl, field: question, tokens: 256, samples: 3, max_new_tokens: 16}
schemes:
  - {name: full}
  - {name: kivi, k_bits: 2, v_bits: 2, residual: 32}
  - {name: uniform, k_bits: 4, v_bits: 4}
)";

std::string filled(std::string text, const std::string& name, const std::string& value) {
  for (size_t at; (at = text.find("{" + name + "}")) != std::string::npos;) text.replace(at, name.size() + 2, value);
  return text;
}

}  // namespace

TEST_CASE("every task runs on a real model, three samples each", "[slow]") {
  const fs::path model = smollm2_or_skip();
  const std::vector<fs::path> roots = data_roots();
  for (const char* data : {"mmlu", "gsm8k", "triviaqa_1k", "cnn_dailymail_100", "minilongbench", "longbench_config",
                           "wikitext2_raw", "paul_graham_essays", "wonderwords"})
    if (std::none_of(roots.begin(), roots.end(), [&](const fs::path& root) { return fs::exists(root / data); }))
      SKIP("no " << data << " in a data root");
  const TemporaryDirectory place;
  fs::create_directories(place.path() / "own");
  std::string items;
  for (int i = 0; i < 5; ++i)
    items += R"({"question": "What is )" + std::to_string(i) + R"( and 1?", "choices": [")" + std::to_string(i + 1) +
             R"(", "none"], "answer": 0})" + "\n";
  write_text(place.path() / "own/items.jsonl", items);
  const std::string prompt = "description: \"Add. \"\nprompt: \"Q: {{question}}{{|}}\\nA:\"\n";
  write_text(place.path() / "choice.yaml", prompt + "choices: \"{{choices}}\"\nanswer: {index: \"{{answer}}\"}\n");
  write_text(place.path() / "generate.yaml",
             prompt + "answer: \"{{choices.0}}\"\nmetric: exact_match\nmax_new_tokens: 8\n");
  std::string sweep = filled(filled(kSweep, "model", model.string()), "root", place.path().string());
  sweep = filled(sweep, "source", std::string(KVSWEEP_SOURCE_DIR) + "/tasks");
  write_text(place.path() / "sweep.yaml", sweep);
  for (const TaskEntry& entry : task_table()) CHECK(sweep.find("name: " + entry.name + ",") != std::string::npos);
  // The user's files beside the data sets: a root of links.
  for (const fs::path& root : roots)
    for (const fs::directory_entry& entry : fs::directory_iterator(root))
      if (!fs::exists(place.path() / entry.path().filename()))
        fs::create_symlink(entry.path(), place.path() / entry.path().filename());
  const ProcessResult result =
      run_program(place.path(), {"run", "sweep.yaml", "--out", "out", "--data", place.path().string()}, {});
  INFO(result.err);
  CHECK(result.status == 0);
  std::istringstream in(read_text(place.path() / "out/records.jsonl"));
  std::set<std::string> tasks;
  for (std::string line; std::getline(in, line);) {
    const auto record = nlohmann::json::parse(line);
    INFO(line);
    CHECK(record["status"] != "failed");
    CHECK(record["n"] == 3);
    CHECK(record["attention"].is_object());
    tasks.insert(record["point"]["task"].get<std::string>());
  }
  CHECK(tasks.size() == task_table().size());
}

}  // namespace kvsweep::testing
