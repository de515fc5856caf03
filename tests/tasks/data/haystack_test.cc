// golden: depth grids as numpy rounds them. contract: haystacks, sentences and words.
#include "tasks/data/haystack.h"

#include <algorithm>
#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <nlohmann/json.hpp>
#include <regex>
#include <set>

#include "harness/core/error.h"
#include "tasks/data/sentences.h"
#include "tasks/data/words.h"
#include "tests/support/golden.h"

namespace kvsweep {

TEST_CASE("grids of depths and lengths are the protocols' grids", "[golden]") {
  const auto files = testing::golden_files("(.*/)?niah_grid[.]json");
  if (files.empty()) SKIP("no niah_grid.json in a golden root");
  for (const auto& file : files) {
    INFO(file.string());
    const auto grids = nlohmann::json::parse(testing::read_text(file));
    int found = 0;
    for (const auto& [name, values] : grids.items()) {
      INFO(name);
      std::smatch of;
      if (std::regex_match(name, of, std::regex("[a-z]+_depths_([0-9]+)")))
        CHECK(depth_grid(std::stoll(of[1])) == values.get<std::vector<int64_t>>());
      else if (std::regex_match(name, of, std::regex("[a-z]+_lengths_([0-9]+)_([0-9]+)_([0-9]+)")))
        CHECK(even_grid(std::stoll(of[1]), std::stoll(of[2]), std::stoll(of[3])) == values.get<std::vector<int64_t>>());
      else  // grids and placements of protocols that are not offered
        continue;
      ++found;
    }
    CHECK(found > 0);
  }
}

TEST_CASE("depth grids end at both ends and round halves to even") {
  CHECK(depth_grid(1) == std::vector<int64_t>{50});
  CHECK(depth_grid(2) == std::vector<int64_t>{0, 100});
  CHECK(depth_grid(9) == std::vector<int64_t>{0, 12, 25, 38, 50, 62, 75, 88, 100});  // 12.5, 37.5, 62.5, 87.5
  for (int64_t count = 2; count <= 101; ++count) {
    const std::vector<int64_t> grid = depth_grid(count);
    INFO(count);
    CHECK(std::set<int64_t>(grid.begin(), grid.end()).size() == static_cast<size_t>(count));
    CHECK((grid.front() == 0 && grid.back() == 100));
  }
}

TEST_CASE("every beginning of the spread order is spread evenly") {
  CHECK(spread_order(10) == std::vector<int64_t>{0, 5, 2, 7, 1, 6, 3, 8, 4, 9});
  for (int64_t count = 1; count <= 101; ++count) {
    std::vector<int64_t> order = spread_order(count);
    INFO(count);
    if (count >= 4) CHECK((order[0] < count / 2 && order[1] >= count / 2));
    std::sort(order.begin(), order.end());
    for (int64_t i = 0; i < count; ++i) CHECK(order[static_cast<size_t>(i)] == i);
  }
}

TEST_CASE("generated sentences never repeat and hold nothing that looks like a needle") {
  Haystack haystack = generated_haystack(11);
  std::set<std::string> seen;
  std::set<std::string> openings;
  for (int i = 0; i < 20000; ++i) {
    const std::string sentence = haystack.next();
    INFO(sentence);
    REQUIRE(seen.insert(sentence).second);
    REQUIRE(sentence.find_first_of("0123456789-\n") == std::string::npos);
    REQUIRE(sentence.find("magic") == std::string::npos);
    REQUIRE(sentence.find("pecial") == std::string::npos);
    REQUIRE(sentence.find("  ") == std::string::npos);
    REQUIRE((sentence.front() >= 'A' && sentence.front() <= 'Z' && sentence.back() == '.'));
    REQUIRE(split_sentences(sentence).size() == 1);
    openings.insert(sentence.substr(0, 20));
  }
  CHECK(openings.size() > 1000);
}

TEST_CASE("a generated haystack is a function of its seed") {
  Haystack a = generated_haystack(1), again = generated_haystack(1), b = generated_haystack(2);
  for (int i = 0; i < 100; ++i) {
    const std::string sentence = a.next();
    CHECK(sentence == again.next());
    CHECK(sentence != b.next());
  }
}

TEST_CASE("a text haystack goes round") {
  const std::vector<std::string> sentences = {"One.", "Two."};
  Haystack haystack = text_haystack(sentences);
  CHECK((haystack.next() == "One." && haystack.next() == "Two." && haystack.next() == "One."));
}

TEST_CASE("sentences end at a stop before a space that no lower-case letter follows") {
  using Sentences = std::vector<std::string>;
  CHECK(split_sentences("One. Two!  Three?\nFour") == Sentences{"One.", "Two!", "Three?", "Four"});
  CHECK(split_sentences("About 3.5 e.g. this, i.e. that. Yes.") ==
        Sentences{"About 3.5 e.g. this, i.e. that.", "Yes."});
  CHECK(split_sentences("He said \"no.\" Then (he left.) \u201cGone.\u201d \u201cReally?\u201d") ==
        Sentences{"He said \"no.\"", "Then (he left.)", "\u201cGone.\u201d", "\u201cReally?\u201d"});
  CHECK(split_sentences("Wait... What?! \r\n\t ") == Sentences{"Wait...", "What?!"});
  CHECK(split_sentences(" \n ").empty());
  CHECK(split_sentences("End.") == Sentences{"End."});
}

TEST_CASE("sentences joined by spaces are the text with its white space collapsed") {
  const std::string text = "A b.  C d e.g. f? \"G.\" H\n\ni. J";
  CHECK(join(split_sentences(text), " ") == "A b. C d e.g. f? \"G.\" H i. J");
}

TEST_CASE("word lists are large, plain and without doubles") {
  CHECK(own_adjectives().size() >= 200);
  CHECK(own_nouns().size() >= 300);
  for (const auto& list : {own_adjectives(), own_nouns(), own_verbs(), own_motions(), own_adverbs()}) {
    CHECK(std::set<std::string>(list.begin(), list.end()).size() == list.size());
    for (const std::string& word : list) {
      INFO(word);
      CHECK(word.find_first_not_of("abcdefghijklmnopqrstuvwxyz") == std::string::npos);
      CHECK(word.find("magic") == std::string::npos);
    }
  }
}

TEST_CASE("a folder of texts is read in the order of names, without notes and other files") {
  testing::TemporaryDirectory root;
  std::filesystem::create_directories(root.path() / "texts/more");
  testing::write_text(root.path() / "texts/b.txt", "Second. Third.");
  testing::write_text(root.path() / "texts/a.txt", "First\r\none.");
  testing::write_text(root.path() / "texts/more/c.txt", "Last.");
  testing::write_text(root.path() / "texts/SOURCE.txt", "A note.");
  testing::write_text(root.path() / "texts/d.json", "{}");
  const DataLocator data({root.path()});
  CHECK(haystack_sentences(data, "texts") == std::vector<std::string>{"First one.", "Second.", "Third.", "Last."});
  CHECK(haystack_sentences(data, "texts/b.txt") == std::vector<std::string>{"Second.", "Third."});
  testing::write_text(root.path() / "empty.txt", " \n");
  CHECK_THROWS_AS(haystack_sentences(data, "empty.txt"), DataError);
}

}  // namespace kvsweep
