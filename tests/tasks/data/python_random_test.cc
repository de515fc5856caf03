// golden: random.Random(1234).sample of CPython 3.11, as lm-evaluation-harness' GSM8K draws; oracle: numbers from
// there.
#include "tasks/data/python_random.h"

#include <catch2/catch_test_macros.hpp>
#include <nlohmann/json.hpp>

#include "tests/support/golden.h"

namespace kvsweep {

TEST_CASE("Python's sample of a large population, call after call", "[golden]") {
  const auto files = testing::golden_files("(.*/)?gsm8k_lmeval_fewshot[^/]*[.]json");
  if (files.empty()) SKIP("no gsm8k_lmeval_fewshot.json in a golden root");
  for (const auto& file : files) {
    PythonRandom random(1234);
    const nlohmann::json docs = nlohmann::json::parse(testing::read_text(file))["docs"];
    for (const auto& doc : docs) CHECK(random.sample(7473, 5) == doc["fewshot_idx"].get<std::vector<int64_t>>());
  }
}

TEST_CASE("Python's sample of small populations and of many numbers") {
  CHECK(PythonRandom(1).sample(21, 5) == std::vector<int64_t>{4, 18, 2, 8, 3});
  CHECK(PythonRandom(1).sample(22, 5) == std::vector<int64_t>{4, 18, 2, 8, 3});
  CHECK(PythonRandom(7).sample(10, 10) == std::vector<int64_t>{5, 2, 6, 9, 0, 7, 4, 1, 3, 8});
  CHECK(PythonRandom(42).sample(200, 25) == std::vector<int64_t>{163, 28,  6,   189, 70,  62,  57, 35, 188,
                                                                 26,  173, 139, 22,  151, 108, 8,  7,  23,
                                                                 55,  59,  129, 154, 197, 143, 50});
  CHECK(PythonRandom(0).sample(80, 6) == std::vector<int64_t>{49, 53, 5, 33, 65, 62});
  CHECK(PythonRandom(0).sample(100, 6) == std::vector<int64_t>{49, 97, 53, 5, 33, 65});
  PythonRandom random(5);
  std::vector<int64_t> last;
  for (int i = 0; i < 200; ++i) last = random.sample(1000, 5);  // beyond the first 624 words
  CHECK(last == std::vector<int64_t>{509, 406, 800, 61, 49});
  CHECK(PythonRandom(3).sample(4000000000, 3) ==
        std::vector<int64_t>{1022050301, 2545373330, 2337446730});  // all 32 bits
  CHECK_THROWS_AS(PythonRandom(1).sample(3, 4), std::invalid_argument);
}

}  // namespace kvsweep
