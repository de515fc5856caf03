// contract: what holds for metrics of every text, on texts drawn at random and on long ones.
#include <catch2/catch_test_macros.hpp>
#include <ctime>
#include <string>

#include "harness/core/random.h"
#include "tests/support/metric_properties.h"

namespace kvsweep {
namespace {

constexpr const char* kPieces[] = {"#### ",
                                   "The answer is ",
                                   "The final answer is ",
                                   "Paragraph ",
                                   "18",
                                   "1,800",
                                   "-",
                                   "$",
                                   ".",
                                   ",",
                                   "%",
                                   "=",
                                   " + ",
                                   " x ",
                                   "(",
                                   ")",
                                   "\n",
                                   "\n\n",
                                   " ",
                                   "\t",
                                   "the",
                                   "A",
                                   "`",
                                   "//",
                                   "#",
                                   "caf\xc3\xa9",
                                   "\xe6\xae\xb5\xe8\x90\xbd"
                                   "12",
                                   "\xc4\xb0",
                                   "\xff",
                                   "\xe6\xae",
                                   "skies",
                                   "relational",
                                   "a b a b ",
                                   "12",
                                   "x",
                                   "<<",
                                   ">>",
                                   "\xe3\x80\x80"};

std::string random_text(Rng& rng, int64_t pieces) {
  std::string text;
  for (int64_t i = 0; i < pieces; ++i) text += kPieces[rng.below(std::size(kPieces))];
  return text;
}

// CPU time, so that other work on the machine is not measured.
double seconds(const std::string& output, const std::string& answer) {
  const std::clock_t start = std::clock();
  testing::check_extraction(output);
  testing::check_metrics(output, answer);
  return static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC;
}

}  // namespace

TEST_CASE("metrics keep to their range on random texts") {
  Rng rng(11);
  for (int round = 0; round < 1500; ++round) {
    const std::string output = random_text(rng, rng.between(0, 40)), answer = random_text(rng, rng.between(0, 12));
    INFO(output << "\n---\n" << answer);
    CHECK_NOTHROW(testing::check_extraction(output));
    CHECK_NOTHROW(testing::check_metrics(output, answer));
  }
}

TEST_CASE("an output of a megabyte takes time in proportion") {
  Rng rng(12);
  const std::string answer = random_text(rng, 60);
  const auto repeated = [](const std::string& unit, size_t bytes) {
    std::string text;
    while (text.size() < bytes) text += unit;
    return text;
  };
  const std::string words = random_text(rng, 4000);
  for (const std::string& unit :
       {std::string("a"), std::string("the same words. "), std::string("1+1=2\n"), std::string("-"),
        std::string("The answer is "), std::string("(((("), std::string("12,"), words}) {
    INFO(unit.substr(0, 20));
    const double small = seconds(repeated(unit, 1 << 18), answer), large = seconds(repeated(unit, 1 << 20), answer);
    INFO(small << " s, " << large << " s");
    CHECK(large < 10 * small + 0.5);  // four times in proportion, sixteen times were quadratic
    CHECK(large < 30);
  }
}

}  // namespace kvsweep
