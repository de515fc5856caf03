// contract: every prompt has one shard, whatever else is in the sweep; what shards say of a group reads back.
#include "harness/report/shard.h"

#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_exception.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>

#include "harness/core/error.h"
#include "tests/report/examples.h"
#include "tests/support/golden.h"

namespace kvsweep {
using Catch::Matchers::ContainsSubstring;
using Catch::Matchers::MessageMatches;

TEST_CASE("every prompt belongs to exactly one shard of each count, and shards are about equal") {
  for (const int64_t count : {1, 2, 3, 7}) {
    std::vector<int64_t> sizes(static_cast<size_t>(count));
    for (int64_t i = 0; i < 2000; ++i) {
      int64_t takers = 0;
      for (int64_t index = 1; index <= count; ++index)
        if (Shard{index, count}.takes("0123456789abcdef", "d030-s" + std::to_string(i))) {
          ++takers;
          ++sizes[static_cast<size_t>(index - 1)];
        }
      REQUIRE(takers == 1);
    }
    // 2,000 draws with probability 1/count: five standard deviations are under 112.
    for (const int64_t size : sizes) CHECK(std::abs(size - 2000 / count) <= 112);
  }
}

TEST_CASE("the shard of a prompt is a stable function of its group and id") {
  // SHA-256 of "group/a" begins with fdf166bbeeb847d, which is 4 mod 5; of "group/b" with e57c40cb99e1766, 2 mod 5.
  CHECK(Shard{5, 5}.takes("group", "a"));
  CHECK(Shard{3, 5}.takes("group", "b"));
  // Groups share prompts' ids, not their shards.
  int64_t moved = 0;
  for (int64_t i = 0; i < 100; ++i)
    moved += Shard{1, 2}.takes("group", std::to_string(i)) != Shard{1, 2}.takes("other", std::to_string(i));
  CHECK(moved > 25);
}

TEST_CASE("a shard is written i/n") {
  CHECK(Shard::parse("2/3") == Shard{2, 3});
  CHECK(Shard::parse("1/1").text() == "1/1");
  CHECK(Shard{2, 3}.file("samples") == "samples-2-of-3.jsonl");
  for (const char* bad : {"", "2", "/", "0/2", "3/2", "-1/2", "1/0", "1/2/3", "a/b", "1/2 ", "1.0/2", "1/999999999"})
    CHECK_THROWS_MATCHES(
        Shard::parse(bad), ConfigError,
        MessageMatches(ContainsSubstring("--shard '" + std::string(bad) + "'") && ContainsSubstring("as in 1/4")));
}

TEST_CASE("the shards of a directory are those whose files are there") {
  const testing::TemporaryDirectory root;
  CHECK(shards_in(root.path() / "none", "samples").empty());
  for (const char* name : {"samples-2-of-3.jsonl", "samples-1-of-3.jsonl", "samples-2-of-2.jsonl", "samples.jsonl",
                           "groups-3-of-3.jsonl", "samples-1-of-3.jsonl.tmp", "xsamples-1-of-9.jsonl"})
    testing::write_text(root.path() / name, "");
  CHECK(shards_in(root.path(), "samples") == std::vector<Shard>{{2, 2}, {1, 3}, {2, 3}});
}

TEST_CASE("a group reads back as it was written, parameters in their order") {
  ShardGroup group{"reference", 3, {"s1", "s0"}, {{7, true, testing::example_record()}}};
  group.points[0].record.point.scheme_params = {{"z", "1"}, {"a", "2"}};
  const std::string line = to_json_line(group);
  const ShardGroup read = shard_group_from_json(line, "here");
  CHECK(to_json_line(read) == line);
  CHECK(read.samples == group.samples);
  CHECK(read.points[0].lossless);
  CHECK(read.points[0].record.point.scheme_params == group.points[0].record.point.scheme_params);
  CHECK_THROWS_MATCHES(shard_group_from_json("{}", "f:3"), DataError, MessageMatches(ContainsSubstring("f:3: ")));
  CHECK_THROWS_MATCHES(shard_group_from_json(line.substr(1), "f:3"), DataError,
                       MessageMatches(ContainsSubstring("f:3: ")));
}

}  // namespace kvsweep
