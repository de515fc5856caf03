#include "harness/report/html/page.h"

#include <fmt/format.h>

#include <cmath>
#include <map>
#include <nlohmann/json.hpp>
#include <utility>
#include <vector>

#include "harness/core/error.h"
#include "harness/core/hash.h"
#include "harness/report/analysis/analysis_json.h"
#include "harness/report/analysis/margins.h"
#include "harness/report/append_file.h"
#include "harness/report/html/gzip.h"
#include "harness/report/html/in_parallel.h"
#include "harness/report/html/page_files.h"
#include "harness/report/html/sample_chunks.h"

namespace kvsweep {
namespace {

using Json = nlohmann::ordered_json;

Json number(double value) {
  return std::isfinite(value) ? Json(value) : Json(nullptr);
}

// [lower bound, upper bound, suggested margin, verdict at it, smallest margin that can be passed, items that it needs]
Json judged(const std::optional<Judged>& of) {
  if (!of) return nullptr;
  const NonInferiority& r = of->result;
  const char* verdict = r.verdict == Verdict::kPass ? "pass" : r.verdict == Verdict::kFail ? "fail" : "undecided";
  return Json::array(
      {number(r.bounds.low), number(r.bounds.high), number(of->margin), verdict, number(r.detectable), r.items_needed});
}

// Of every row of `tables`; scores(table, row) are what its loss is of.
template <typename Tables, typename Scores>
Json verdicts(const Tables& tables, Judge& judge, const Scores& scores) {
  std::vector<std::pair<size_t, size_t>> places;
  std::vector<std::vector<Json>> found;
  for (const auto& table : tables) {
    for (size_t r = 0; r < table.rows.size(); ++r)
      if (table.rows[r].loss) places.emplace_back(found.size(), r);
    found.emplace_back(table.rows.size());
  }
  in_parallel(places.size(), [&](size_t i) {
    const auto [t, r] = places[i];
    const auto& row = tables[t].rows[r];
    found[t][r] = judged(judge(scores(tables[t], row), *row.record));
  });
  return found;
}

// What records were made by and with, and how many. Times of start are the first and the last.
Json provenance(const Results& results) {
  struct Seen {
    int64_t records = 0;
    std::string first, last;
  };
  std::map<std::vector<std::pair<std::string, std::string>>, Seen> makers;
  for (const Record& record : results.records()) {
    const Provenance& e = record.env;
    Seen& seen = makers[{{"command", e.command},
                         {"version", e.version},
                         {"commit", e.dirty ? e.commit + ", with changes" : e.commit},
                         {"torch", e.torch},
                         {"device", e.device},
                         {"dtype", e.dtype},
                         {"host", e.host},
                         {"cpu", e.cpu},
                         {"threads", std::to_string(e.threads)},
                         {"deterministic", e.deterministic ? "yes" : "no"},
                         {"weights", e.weights_sha256}}];
    if (seen.records++ == 0 || e.started_at < seen.first) seen.first = e.started_at;
    seen.last = std::max(seen.last, e.started_at);
  }
  Json out = Json::array();
  for (const auto& [fields, seen] : makers) {
    Json one = {{"records", seen.records}, {"first", seen.first}, {"last", seen.last}};
    for (const auto& [name, value] : fields) one[name] = value;
    out.push_back(std::move(one));
  }
  return out;
}

Json kl_of(const KlByPosition& kl) {
  if (kl.kl.empty()) return nullptr;
  Json values = Json::array(), counts = Json::array();
  for (const double value : kl.kl)
    values.push_back(std::isfinite(value) ? Json::parse(fmt::format("{:.4g}", value)) : Json(nullptr));
  for (const int64_t n : kl.n) counts.push_back(n);
  return {{"width", kl.width}, {"kl", std::move(values)}, {"n", std::move(counts)}};
}

std::string data_element(const std::string& id, const std::string& type, const std::string& content) {
  return fmt::format("<script type=\"{}\" id=\"{}\">{}</script>\n", type, id, content);
}

std::string dump(const Json& json) {
  return script_safe(json.dump(-1, ' ', false, Json::error_handler_t::replace));
}

// A source of a content security policy: what stands between the tags, and nothing else.
std::string csp_hash(std::string_view text) {
  const std::string hex = sha256_hex(text);
  std::string bytes;
  for (size_t i = 0; i < hex.size(); i += 2) bytes += static_cast<char>(std::stoi(hex.substr(i, 2), nullptr, 16));
  return "'sha256-" + base64(bytes) + "'";
}

// The page's own file with its {{names}} replaced; what is put in is not looked at again.
std::string fill(std::string_view page, const std::map<std::string, std::string, std::less<>>& values) {
  std::string out;
  for (size_t at = 0;;) {
    const size_t open = page.find("{{", at), close = page.find("}}", open);
    out += page.substr(at, open == page.npos ? open : open - at);
    if (open == page.npos) return out;
    out += values.at(std::string(page.substr(open + 2, close - open - 2)));
    at = close + 2;
  }
}

}  // namespace

std::string script_safe(std::string json) {
  size_t count = 0;
  for (const char c : json) count += c == '<';
  if (count == 0) return json;
  std::string out;
  out.reserve(json.size() + 5 * count);
  for (const char c : json)
    if (c == '<')
      out += "\\u003c";
    else
      out += c;
  return out;
}

std::string html_page(const Analysis& analysis, const PageOptions& options) {
  const std::vector<GroupChunk> chunks = sample_chunks(analysis, options.texts);
  int64_t samples = 0, texts = 0;
  Json kl = Json::array();
  std::string packed;
  for (size_t g = 0; g < chunks.size(); ++g) {
    packed += data_element(fmt::format("items-{}", g), "text/plain", chunks[g].packed);
    Json& of_group = kl.emplace_back(Json::array());
    for (size_t r = 0; r < chunks[g].points.size(); ++r) {
      const PointChunk& point = chunks[g].points[r];
      of_group.push_back(kl_of(point.kl));
      samples += point.samples;
      texts += point.texts;
      if (!point.packed.empty()) packed += data_element(fmt::format("point-{}-{}", g, r), "text/plain", point.packed);
    }
  }
  Json margins = Json::array();
  for (const SuggestedMargin& margin : kSuggestedMargins)
    margins.push_back({{"bits", margin.bits}, {"loss", margin.loss}});
  const Results& results = analysis.results();
  Judge judge;
  Json verdict = {
      {"groups", verdicts(analysis.groups(), judge,
                          [&](const Group& group, const Row& row) { return paired_scores(results, group, row); })},
      {"pools", verdicts(analysis.pools(), judge,
                         [&](const Pool& pool, const PooledRow& row) { return pooled_scores(results, pool, row); })}};
  const Json page = {{"kvsweep_page", 1},
                     {"margins", std::move(margins)},
                     {"verdicts", std::move(verdict)},
                     {"kl_by_position", std::move(kl)},
                     {"samples", samples},
                     {"texts", texts},
                     {"texts_limit", options.texts},
                     {"records", results.records().size()},
                     {"provenance", provenance(results)}};
  const std::string script(page_js()), style(page_css());
  return fill(page_html(),
              {{"csp", fmt::format("default-src 'none'; script-src {}; style-src {}; img-src data:; "
                                   "base-uri 'none'; form-action 'none'",
                                   csp_hash(script), csp_hash(style))},
               {"style", style},
               {"script", script},
               {"data", data_element("analysis", "application/json", script_safe(analysis_json(analysis))) +
                            data_element("page", "application/json", dump(page)) + packed}});
}

void write_page(const std::filesystem::path& path, const Analysis& analysis, const PageOptions& options) {
  replace_file(path, html_page(analysis, options));
}

}  // namespace kvsweep
