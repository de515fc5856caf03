// contract: the page holds what the directory says, whatever order its lines are in, and nothing in it is markup.
#include "harness/report/html/page.h"

#include <zlib.h>

#include <algorithm>
#include <catch2/catch_approx.hpp>
#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_exception.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "harness/core/error.h"
#include "harness/report/analysis/margins.h"
#include "harness/report/html/gzip.h"
#include "harness/report/html/sample_chunks.h"
#include "tests/report/results_world.h"

namespace kvsweep {
using Catch::Matchers::ContainsSubstring;
using Catch::Matchers::MessageMatches;
using testing::full_precision;
using testing::ResultsWorld;
using Json = nlohmann::json;

namespace {

std::string decode(const std::string& text) {
  static const std::string kDigits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string out;
  uint32_t word = 0;
  int bits = 0;
  for (const char c : text) {
    if (c == '=') break;
    word = word << 6 | static_cast<uint32_t>(kDigits.find(c));
    if ((bits += 6) >= 8) out += static_cast<char>(word >> (bits -= 8) & 0xff);
  }
  return out;
}

std::string unpack(const std::string& packed) {
  std::string bytes = decode(packed), out(1 << 22, '\0');
  z_stream stream = {};
  REQUIRE(inflateInit2(&stream, 15 + 16) == Z_OK);
  stream.next_in = reinterpret_cast<Bytef*>(bytes.data());
  stream.avail_in = static_cast<uInt>(bytes.size());
  stream.next_out = reinterpret_cast<Bytef*>(out.data());
  stream.avail_out = static_cast<uInt>(out.size());
  CHECK(inflate(&stream, Z_FINISH) == Z_STREAM_END);
  inflateEnd(&stream);
  out.resize(stream.total_out);
  return out;
}

std::string element(const std::string& page, const std::string& id) {
  const size_t begin = page.find(">", page.find("id=\"" + id + "\"")) + 1;
  return page.substr(begin, page.find("</script>", begin) - begin);
}

size_t count(const std::string& text, const std::string& what) {
  size_t n = 0;
  for (size_t at = text.find(what); at != text.npos; at = text.find(what, at + 1)) ++n;
  return n;
}

void reverse_lines(const std::filesystem::path& file) {
  std::istringstream in(testing::read_text(file));
  std::vector<std::string> lines;
  for (std::string line; std::getline(in, line);) lines.push_back(line);
  std::ofstream out(file);
  for (auto line = lines.rbegin(); line != lines.rend(); ++line) out << *line << '\n';
}

// Rows are full precision, 2 bits, 4 bits; of the second group 2 bits failed.
std::vector<testing::WorldGroup> two_groups() {
  const auto every = [](int64_t k) { return [k](int64_t i) { return i % k != 0 ? 1.0 : 0.0; }; };
  return {{.points = {full_precision(every(10)), {4, 4, "uniform", every(5)}, {2, 2, "uniform", every(2)}}},
          {.tokens = "1024", .points = {full_precision(), {4, 4}, {2, 2, "uniform", {}, "failed"}}}};
}

}  // namespace

TEST_CASE("bytes survive gzip and base64") {
  CHECK(base64("") == "");
  CHECK(base64("f") == "Zg==");  // RFC 4648, section 10
  CHECK(base64("fo") == "Zm8=");
  CHECK(base64("foobar") == "Zm9vYmFy");
  std::string bytes;
  for (int64_t i = 0; i < 100000; ++i) bytes += static_cast<char>(i * i >> 3);
  CHECK(unpack(gzip_base64(bytes)) == bytes);
  CHECK(unpack(gzip_base64("")) == "");
}

TEST_CASE("no text in JSON can end a script element") {
  const std::string json = Json({{"a", "</script><!-- <b>"}}).dump();
  CHECK(script_safe(json).find('<') == std::string::npos);
  CHECK(Json::parse(script_safe(json)) == Json::parse(json));
}

TEST_CASE("the page has the analysis, the verdicts and each sample") {
  const ResultsWorld world(two_groups());
  const std::string page = html_page(analyse(read_results(world.path())));
  const Json analysis = Json::parse(element(page, "analysis")), own = Json::parse(element(page, "page"));
  REQUIRE(analysis["groups"].size() == 2);
  CHECK(own["records"] == 6);
  CHECK(own["samples"] == 5 * 40);
  CHECK(own["texts"] == 5 * 40);
  CHECK(own["verdicts"]["groups"][0][0].is_null());  // full precision
  CHECK(own["verdicts"]["groups"][0][1][3] == "fail");
  CHECK(own["verdicts"]["groups"][1][2][3] == "undecided");  // nothing lost in 40 items, a margin of 1 %
  CHECK(own["verdicts"]["groups"][1][1].is_null());          // it failed
  CHECK(own["provenance"].size() == 1);
  CHECK(own["provenance"][0]["records"] == 6);

  const Json items = Json::parse(unpack(element(page, "items-0"))),
             point = Json::parse(unpack(element(page, "point-0-1")));
  CHECK(items["id"].size() == 40);
  CHECK(items["tags"]["depth"][3] == "75");
  CHECK(items["text"][7] == "the answer is 42");
  CHECK(point["text"][7] == "the answer is 2");
  CHECK(point["scores"]["exact_match"][2] == 0);
  CHECK(point["scores"]["exact_match"][3] == 1);
  CHECK(point["item"].is_null());
  CHECK(page.find("id=\"point-1-1\"") == std::string::npos);
  // The policy names this script and this style, and nothing else.
  CHECK_THAT(page, ContainsSubstring("default-src 'none'; script-src 'sha256-"));
  for (const char* name : {"{{csp}}", "{{style}}", "{{script}}", "{{data}}"}) CHECK(count(page, name) == 0);
}

TEST_CASE("a text equal to full precision's is stored once") {
  ResultsWorld world(two_groups());
  std::ofstream out(world.samples_file());
  for (SampleRecord sample : world.samples()) {
    sample.output = "a text of its own";
    out << to_json_line(sample) << '\n';
  }
  out.close();
  const Analysis analysis = analyse(read_results(world.path()));
  const std::vector<GroupChunk> chunks = sample_chunks(analysis, 1000);
  CHECK(count(unpack(chunks[0].packed), "a text of its own") == 40);
  CHECK(count(unpack(chunks[0].points[1].packed), "a text of its own") == 0);
  CHECK(Json::parse(unpack(chunks[0].points[1].packed))["text"][0].is_null());
}

TEST_CASE("above the limit points keep equal shares of texts, lost and gained samples first, and all scores") {
  const ResultsWorld world(two_groups());
  const Analysis analysis = analyse(read_results(world.path()));
  const std::vector<GroupChunk> chunks = sample_chunks(analysis, 5 * 10);  // 10 of 40 a point
  const Json point = Json::parse(unpack(chunks[0].points[1].packed));
  CHECK(point["scores"]["exact_match"].size() == 40);
  int64_t kept = 0;
  for (size_t i = 0; i < 40; ++i) {
    const bool lost = i % 2 == 0 && i % 10 != 0;
    const bool has = point["text"][i].is_string();
    kept += has;
    if (has) CHECK(lost);  // 16 are lost, 10 of them are kept
  }
  CHECK(kept == 10);
  CHECK(chunks[0].points[1].kl.kl.empty());
  CHECK(chunks[0].points[1].samples == 40);
  CHECK(chunks[0].points[1].texts == 10);
}

TEST_CASE("KL by position is the mean over samples") {
  const ResultsWorld world(two_groups());
  const std::vector<GroupChunk> chunks = sample_chunks(analyse(read_results(world.path())), 1000);
  const KlByPosition& kl = chunks[0].points[1].kl;
  CHECK(kl.width == 1);
  CHECK(kl.kl == std::vector<double>{0.25, 0.25, 0.25});
  CHECK(kl.n == std::vector<int64_t>{40, 40, 40});
  CHECK(chunks[0].points[0].kl.kl.empty());  // full precision
}

TEST_CASE("the order of lines does not change a byte of the page") {
  const ResultsWorld world(two_groups());
  const std::string before = html_page(analyse(read_results(world.path())));
  reverse_lines(world.samples_file());
  reverse_lines(world.records_file());
  CHECK(html_page(analyse(read_results(world.path()))) == before);
}

TEST_CASE("nothing that results say is markup of the page") {
  const std::string evil = "</script><script>alert(1)</script><img src=x onerror=alert(1)>{{data}}<!--";
  ResultsWorld world(two_groups());
  std::ofstream samples(world.samples_file()), records(world.records_file());
  const size_t own = count(html_page(analyse(read_results(ResultsWorld(two_groups()).path()))), "<");
  for (SampleRecord sample : world.samples()) {
    sample.output = evil;
    sample.tags["<b>" + evil] = evil;
    samples << to_json_line(sample) << '\n';
  }
  for (Record record : world.records()) {
    record.point.model = record.env.command = record.env.host = evil;
    record.point.task += evil;
    if (record.status == "failed") record.error = evil;
    record.warnings = {evil};
    records << to_json_line(record) << '\n';
  }
  samples.close();
  records.close();
  const std::string page = html_page(analyse(read_results(world.path())));
  CHECK(count(page, "<") == own);
  CHECK(count(page, "alert(1)") > 0);
  CHECK(Json::parse(element(page, "analysis"))["groups"][0]["model"] == evil);
  CHECK(Json::parse(unpack(element(page, "point-0-1")))["text"][0].is_null());
  CHECK(Json::parse(unpack(element(page, "items-0")))["text"][0] == evil);
}

TEST_CASE("a margin is that of the fewest listed bits that are no fewer than the mean of K and V") {
  CHECK(suggested_margin(8, 8) == 0.005);
  CHECK(suggested_margin(16, 8) == 0.005);
  CHECK(suggested_margin(8, 2) == 0.005);  // 5 bits
  CHECK(suggested_margin(4, 4) == 0.01);
  CHECK(suggested_margin(4, 2) == 0.02);
  CHECK(suggested_margin(2, 2) == 0.04);
  CHECK(suggested_margin(1, 1) == 0.04);
}

TEST_CASE("a verdict is that of non_inferiority, also where counts alone decide it") {
  PairedScores scores;
  scores.unit_range = true;
  scores.reference.assign(400, 1.0);
  scores.own = scores.reference;
  scores.own[17] = 0;
  for (size_t i = 0; i < 400; ++i) scores.loss.push_back(scores.reference[i] - scores.own[i]);
  Record record;
  record.nominal_k_bits = record.nominal_v_bits = 2;
  Judge judge;
  const NonInferiority direct = non_inferiority({}, scores.loss, {.max_loss = 0.04});
  for (int again = 0; again < 2; ++again) {
    const Judged judged = judge(scores, record).value();
    CHECK(judged.margin == 0.04);
    CHECK(judged.result.verdict == Verdict::kPass);
    CHECK(judged.result.bounds.high == Catch::Approx(direct.bounds.high).epsilon(1e-9));
  }
  record.nominal_k_bits = record.nominal_v_bits = 8;
  CHECK(judge(scores, record).value().result.verdict == Verdict::kInconclusive);
  // Items of small groups count more: that is no matter of counts.
  for (int i = 0; i < 400; ++i) scores.design.stratum.push_back(i < 20 ? 0 : 1);
  scores.design.weighting = Weighting::kStrata;
  record.nominal_k_bits = record.nominal_v_bits = 2;
  CHECK(judge(scores, record).value().result.bounds.high > direct.bounds.high);
  scores.loss[0] = NAN;
  CHECK(!judge(scores, record));
}

TEST_CASE("samples that have changed since they were read are an error") {
  const ResultsWorld world(two_groups());
  const Analysis analysis = analyse(read_results(world.path()));
  testing::write_text(world.samples_file(), "short\n");
  CHECK_THROWS_MATCHES(html_page(analysis), DataError,
                       MessageMatches(ContainsSubstring("has changed since it was read")));
}

}  // namespace kvsweep
