// contract: records and samples survive the way through JSON; ids depend on the resolved point alone.
#include "harness/report/record.h"

#include <bit>
#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_exception.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include <cmath>
#include <limits>

#include "harness/core/error.h"
#include "harness/core/hash.h"
#include "harness/core/random.h"
#include "tests/report/examples.h"

namespace kvsweep {
using Catch::Matchers::ContainsSubstring;
using Catch::Matchers::MessageMatches;
using testing::example_record;
using testing::example_sample;

namespace {

std::string replaced(std::string text, const std::string& what, const std::string& with) {
  const size_t at = text.find(what);
  REQUIRE(at != std::string::npos);
  return text.replace(at, what.size(), with);
}

// All keys of a line, in order, nested ones too: each text that stands before a colon.
std::string keys(const std::string& line) {
  std::string out;
  for (size_t colon = line.find("\":"); colon != std::string::npos; colon = line.find("\":", colon + 1)) {
    const size_t quote = line.rfind('"', colon - 1);
    out += line.substr(quote + 1, colon - quote - 1) + " ";
  }
  return out;
}

}  // namespace

TEST_CASE("a point's canonical JSON names every field in one order, parameters as declared") {
  const Point point = example_record().point;
  CHECK(point.canonical_json() ==
        R"({"model":"smollm2-135m","task":"needle","task_version":2,"task_params":{"tokens":"1024","depths":"10"},)"
        R"("tokens":1024,"scheme":"uniform","scheme_params":{"k_bits":"4","v_bits":"2"},"view":"exact",)"
        R"("seed":18446744073709551615})");
  CHECK(point.id() == sha256_hex(point.canonical_json()).substr(0, 16));
}

TEST_CASE("every field of a point changes its id and its label") {
  const Point point = example_record().point;
  std::vector<Point> others(8, point);
  others[0].model = "other";
  others[1].task = "other";
  others[2].task_params[0].second = "1025";
  others[3].scheme = "other";
  others[4].scheme_params[1].second = "3";
  others[5].view = "chunked:128";
  others[6].seed = 1;
  others[7].task_params.pop_back();
  for (const Point& other : others) {
    INFO(other.label());
    CHECK(other.id() != point.id());
    CHECK(other.label() != point.label());
  }
  CHECK(point.label() ==
        "smollm2-135m | needle tokens=1024 depths=10 | uniform k_bits=4 v_bits=2 | exact | seed 18446744073709551615");
}

TEST_CASE("a record and a sample read back as they were written") {
  const std::string record = to_json_line(example_record());
  CHECK(to_json_line(record_from_json(record, "here")) == record);
  const std::string sample = to_json_line(example_sample("p", 3));
  CHECK(to_json_line(sample_from_json(sample, "here")) == sample);
  CHECK(record.find('\n') == std::string::npos);
  CHECK(sample.find('\n') == std::string::npos);

  const SampleRecord back = sample_from_json(sample, "here");
  const SampleRecord first = example_sample("p", 3);
  CHECK(back.output == first.output);
  CHECK(back.output_tokens == first.output_tokens);
  CHECK(back.kl == first.kl);
  CHECK(back.tags == first.tags);
  CHECK(back.scores == first.scores);
  CHECK(back.bytes.by_role == first.bytes.by_role);
  CHECK(back.time.decode_ms_per_token == first.time.decode_ms_per_token);
  CHECK(back.time.path == first.time.path);
  CHECK(back.reused_tokens == first.reused_tokens);
  REQUIRE(back.noise.has_value());
  CHECK(back.noise->kl_max == first.noise->kl_max);
  CHECK(back.noise->positions == first.noise->positions);
  REQUIRE(back.attention.has_value());
  CHECK(back.attention->overlap == first.attention->overlap);
  CHECK(record_from_json(record, "here").point.seed == std::numeric_limits<uint64_t>::max());
}

TEST_CASE("a record's keys stand in a fixed order") {
  CHECK(keys(to_json_line(example_record())) ==
        "schema id status error point model task task_version task_params tokens depths tokens scheme scheme_params "
        "k_bits v_bits view seed n metrics exact_match mean standard_error n primary_metric metric_info exact_match "
        "shown_as exponential higher_is_better failure breakdown task_kind reference_id kl mean standard_error n "
        "kl_median kl_p99 kl_max top1_flips mean standard_error n noise kl "
        "kl_max positions top1_flips attention kl overlap oldest full_oldest divergence_share generated_tokens "
        "reused_tokens paired versus metric delta "
        "standard_error lost gained ratio ratio_standard_error nominal_k_bits nominal_v_bits effective_bits "
        "bytes_per_token bytes "
        "by_role codes window live reserved shared tokens values compressed_reads prefill_ms compress_ms "
        "decode_ms_per_token path warnings env version commit dirty torch device dtype host cpu started_at threads "
        "deterministic weights_sha256 data_sha256 command ");
}

TEST_CASE("random doubles and floats come back bit for bit") {
  Rng rng(7);
  for (int i = 0; i < 2000; ++i) {
    Record record = example_record();
    record.kl_p99 = std::bit_cast<double>(rng.next());
    if (!std::isfinite(record.kl_p99)) continue;
    SampleRecord sample = example_sample("p", 0);
    for (float& kl : sample.kl) {
      kl = std::bit_cast<float>(static_cast<uint32_t>(rng.next()));
      if (!std::isfinite(kl)) kl = 0;
    }
    REQUIRE(std::bit_cast<uint64_t>(record_from_json(to_json_line(record), "here").kl_p99) ==
            std::bit_cast<uint64_t>(record.kl_p99));
    REQUIRE(sample_from_json(to_json_line(sample), "here").kl == sample.kl);
  }
}

TEST_CASE("floats are written in their shortest form") {
  CHECK_THAT(to_json_line(example_sample("p", 0)), ContainsSubstring(R"("kl":[0.1,1e-07,3.25])"));
}

TEST_CASE("a number that is not finite survives") {
  const double infinity = std::numeric_limits<double>::infinity();
  Record record = example_record();
  record.kl.mean = std::numeric_limits<double>::quiet_NaN();
  record.kl_p99 = infinity;
  record.kl_max = -infinity;
  const Record back = record_from_json(to_json_line(record), "here");
  CHECK(std::isnan(back.kl.mean));
  CHECK(back.kl_p99 == infinity);
  CHECK(back.kl_max == -infinity);
}

TEST_CASE("text that is not valid UTF-8 becomes replacement characters") {
  SampleRecord sample = example_sample("p", 0);
  sample.output = "a\xff\xc3";
  CHECK(sample_from_json(to_json_line(sample), "here").output == "a\xef\xbf\xbd\xef\xbf\xbd");
}

TEST_CASE("optional fields may be null") {
  Record record = example_record();
  record.paired.reset();
  record.decode_ms_per_token.reset();
  const Record back = record_from_json(to_json_line(record), "here");
  CHECK_FALSE(back.paired.has_value());
  CHECK_FALSE(back.decode_ms_per_token.has_value());
}

TEST_CASE("keys that are not known are ignored") {
  const std::string line = replaced(to_json_line(example_record()), "{", R"({"later":{"a":[1]},)");
  CHECK(to_json_line(record_from_json(line, "here")) == to_json_line(example_record()));
}

TEST_CASE("a line that is not a record is an error that names place and key") {
  const std::string line = to_json_line(example_record());
  const auto check = [](const std::string& bad, const std::string& message) {
    INFO(bad);
    CHECK_THROWS_MATCHES(record_from_json(bad, "r.jsonl:3"), DataError, MessageMatches(ContainsSubstring(message)));
  };
  check("", "r.jsonl:3: the line is not JSON");
  check(line.substr(0, line.size() - 1), "r.jsonl:3: the line is not JSON");
  check("[]", "r.jsonl:3: the line is [], expected an object");
  check(replaced(line, R"("n":200,)", ""), "r.jsonl:3: n is missing");
  check(replaced(line, R"("n":200,)", R"("n":2.5,)"), "n is 2.5, expected an integer in [");
  check(replaced(line, R"("task_version":2)", R"("task_version":2147483648)"),
        "point.task_version is 2147483648, expected an integer in [-2147483648, 2147483647]");
  check(replaced(line, R"("seed":18446744073709551615)", R"("seed":-1)"),
        "point.seed is -1, expected an integer in [0");
  check(replaced(line, R"("dirty":true)", R"("dirty":1)"), "env.dirty is 1, expected true or false");
  check(replaced(line, R"("model":"smollm2-135m")", R"("model":null)"), "point.model is null, expected a text");
  check(replaced(line, R"("kl_p99":0.4)", R"("kl_p99":"big")"), R"(kl_p99 is "big", expected a number)");
  check(replaced(line, R"("warnings":[")", R"("warnings":[1,")"), "warnings[0] is 1, expected a text");
  check(replaced(line, R"("codes":1)", R"("codes":"x")"), R"(bytes.by_role.codes is "x", expected an integer)");
  check(replaced(line, R"("schema":3)", R"("schema":2)"), "schema is 2, this program reads schema 3");
  check(replaced(line, R"("status":"ok")", R"("status":"fine")"),
        "status is 'fine', expected ok, not_engaged or failed");
}

}  // namespace kvsweep
