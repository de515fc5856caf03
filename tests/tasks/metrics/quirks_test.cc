// oracle: corners of the originals that their published vectors do not reach; numbers of the originals' own code.
#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_floating_point.hpp>
#include <stdexcept>
#include <string>

#include "tasks/metrics/code_similarity.h"
#include "tasks/metrics/python_text.h"
#include "tasks/metrics/qa_f1.h"
#include "tasks/metrics/retrieval.h"
#include "tasks/metrics/rouge_longbench.h"

namespace kvsweep {
namespace {

std::string repeated(const std::string& unit, size_t bytes) {
  std::string text;
  while (text.size() < bytes) text += unit;
  return text.substr(0, bytes);
}

}  // namespace

TEST_CASE("difflib takes frequent characters of long lines for junk") {
  const std::string answer = repeated("if (x == 0) { return y; } else { z += 1; } ", 240);
  const std::string output = repeated("if (y == 0) { return x; } else { w += 2; } ", 200);
  CHECK(code_similarity(output, answer, CodeSimilarity::kDifflib) == 0.02);
  CHECK(code_similarity(output, answer, CodeSimilarity::kLevenshtein) > 0.8);
}

TEST_CASE("difflib's junk begins where a character makes up more than a hundredth and one") {
  // 200 different characters, every fiftieth of them 'q': three may start a match, of four none may.
  const auto answer = [](size_t times) {
    std::u32string text;
    for (size_t i = 0; i < 200; ++i) text += i % 50 == 0 && i < 50 * times ? U'q' : static_cast<char32_t>(0x4e00 + i);
    return encode_utf8(text);
  };
  CHECK(code_similarity("qqqqqqqq", answer(3), CodeSimilarity::kDifflib) == 0.03);
  CHECK(code_similarity("qqqqqqqq", answer(4), CodeSimilarity::kDifflib) == 0.01);
}

TEST_CASE("LongBench's ROUGE-L is 0 where Python's recursion ends") {
  const auto same = [](size_t words) {
    const std::string text = repeated("w ", 2 * words);
    return rouge_l_longbench(text, text);
  };
  CHECK_THAT(same(990), Catch::Matchers::WithinAbs(0.999999995, 1e-9));
  CHECK(same(991) == 0);
}

TEST_CASE("letters, digits and spaces are Unicode's") {
  CHECK(python_lower("\xc4\xb0") == "i\xcc\x87");                                 // dotted capital I
  CHECK(python_lower("\xce\xa3\xce\x99\xce\xa3") == "\xcf\x83\xce\xb9\xcf\x82");  // a sigma at the end is another one
  CHECK(python_strip("\xe3\x80\x80 a\xc2\x85") == "a");
  CHECK(python_split("a\x1c"
                     "b\xe2\x80\x83"
                     "c") == std::vector<std::string>{"a", "b", "c"});
  CHECK(retrieval_score("\xef\xbc\x91\xef\xbc\x92 12", "Paragraph 12") == 0.5);  // full-width digits are a number
  CHECK(qa_f1("the\xe3\x80\x80"
              "a\x1f"
              "b_the",
              "b_the") == 1);
  CHECK_THROWS_AS(retrieval_score("12", "no number"), std::invalid_argument);
}

}  // namespace kvsweep
