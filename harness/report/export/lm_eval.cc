#include "harness/report/export/lm_eval.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <ctime>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "harness/core/error.h"
#include "harness/core/hash.h"
#include "harness/report/analysis/analysis.h"
#include "harness/report/export/names.h"
#include "harness/report/shown.h"

namespace kvsweep {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

Json number(double value) {
  return std::isfinite(value) ? Json(value) : Json(nullptr);
}

Json object(const Fields& fields) {
  Json out = Json::object();
  for (const auto& [key, value] : fields) out[key] = value;
  return out;
}

std::string dump(const Json& json, int indent) {
  return json.dump(indent, ' ', false, Json::error_handler_t::replace);
}

class OutFile {
 public:
  explicit OutFile(fs::path path) : path_(std::move(path)), out_(path_, std::ios::binary | std::ios::trunc) { check(); }
  void write(const std::string& text) { out_.write(text.data(), static_cast<std::streamsize>(text.size())); }
  void close() {
    out_.close();
    check();
  }

 private:
  void check() const {
    if (!out_) throw DataError(fmt::format("{}: cannot be written", path_.string()));
  }
  fs::path path_;
  std::ofstream out_;
};

// Task, its parameters and rules: what a file of samples is about.
Fields question_of(const Record& record) {
  Fields facts = record.point.task_params;
  std::erase_if(facts, [](const auto& fact) { return fact.first == "tokens"; });  // is in the base
  facts.insert(facts.end(), {{"version", fmt::to_string(record.point.task_version)},
                             {"view", record.point.view},
                             {"seed", fmt::to_string(record.point.seed)}});
  return facts;
}

// A name for each record's task, equal for those of the same question.
std::vector<std::string> task_names(const std::vector<Record>& records) {
  std::map<std::pair<std::string, Fields>, size_t> at;
  std::vector<Named> things;
  std::vector<size_t> index;
  for (const Record& record : records) {
    Named named{fmt::format("{}_{}", record.point.task, record.point.tokens), question_of(record)};
    const auto [found, fresh] = at.try_emplace({named.base, named.facts}, things.size());
    if (fresh) things.push_back(std::move(named));
    index.push_back(found->second);
  }
  const std::vector<std::string> unique = file_names(things);
  std::vector<std::string> names;
  for (const size_t i : index) names.push_back(unique[i]);
  return names;
}

// ISO 8601 as file names have it there: no colons.
std::string file_date(const std::string& started_at) {
  std::string date = started_at;
  std::erase(date, 'Z');
  std::replace_if(
      date.begin(), date.end(), [](char c) { return c == ':' || c == '_' || c == '/'; }, '-');
  return date.empty() ? "undated" : date;
}

// Seconds since 1970; null: the text is no such time.
Json unix_time(const std::string& started_at) {
  std::tm time{};
  if (strptime(started_at.c_str(), "%Y-%m-%dT%H:%M:%SZ", &time) == nullptr) return nullptr;
  return static_cast<double>(timegm(&time));
}

int64_t shots_of(const Record& record) {
  for (const auto& [key, value] : record.point.task_params) {
    int64_t shots = 0;
    if (key == "shots" && std::from_chars(value.data(), value.data() + value.size(), shots).ec == std::errc())
      return shots;
  }
  return 0;
}

bool measured(const Record& record) {
  return record.status != "failed";
}

bool generated(const Record& record) {
  return record.generated_tokens > 0;
}

void add_metric(Json& out, const std::string& name, double mean, const std::optional<double>& error) {
  out[name + ",none"] = number(mean);
  // Readers format what is not "N/A" as a number.
  out[name + "_stderr,none"] = error && std::isfinite(*error) ? Json(*error) : Json("N/A");
}

Json metrics_of(const Record& record, const std::string& task) {
  Json out = {{"name", task}, {"alias", task}, {"sample_len", record.n}};
  for (const auto& [name, summary] : record.metrics)
    add_metric(out, name, summary.mean, summary.n > 1 ? std::optional(summary.standard_error) : std::nullopt);
  if (const MetricInfo& info = record.primary_info(); info.exponential) {
    const Shown shown = shown_score(record);
    add_metric(out, info.shown_as, shown.value, shown.standard_error);
  }
  return out;
}

Json config_of(const Record& record, const std::string& task) {
  Json metrics = Json::array();
  for (const auto& [name, info] : record.metric_info)
    metrics.push_back({{"metric", name}, {"aggregation", "mean"}, {"higher_is_better", info.higher_is_better}});
  Json metadata = {{"version", record.point.task_version},
                   {"task", record.point.task},
                   {"kind", record.task_kind},
                   {"tokens", record.point.tokens},
                   {"params", object(record.point.task_params)},
                   {"view", record.point.view},
                   {"seed", record.point.seed},
                   {"primary_metric", record.primary_metric},
                   {"point_id", record.id},
                   {"reference_id", record.reference_id},
                   {"status", record.status},
                   {"error", record.error},
                   {"warnings", record.warnings},
                   {"nominal_k_bits", record.nominal_k_bits},
                   {"nominal_v_bits", record.nominal_v_bits}};
  const auto if_measured = [&](double value) { return measured(record) ? number(value) : Json(nullptr); };
  metadata["effective_bits"] = if_measured(record.effective_bits);
  metadata["bytes_per_token"] = if_measured(record.bytes_per_token);
  metadata["decode_ms_per_token"] = record.decode_ms_per_token ? number(*record.decode_ms_per_token) : Json(nullptr);
  metadata["kl"] = measured(record) && record.kl.n > 0 ? number(record.kl.mean) : Json(nullptr);
  return {{"task", task},
          {"output_type", generated(record) ? "generate_until" : "none"},
          {"num_fewshot", shots_of(record)},
          {"repeats", 1},
          {"metric_list", std::move(metrics)},
          {"metadata", std::move(metadata)}};
}

Json higher_is_better(const Record& record) {
  Json out = Json::object();
  for (const auto& [name, info] : record.metric_info) out[name] = info.higher_is_better;
  if (const MetricInfo& info = record.primary_info(); info.exponential) out[info.shown_as] = info.higher_is_better;
  return out;
}

// One model and configuration: a folder.
class Folder {
 public:
  Folder(const Results& results, const fs::path& out, const std::string& name, std::vector<const Record*> records)
      : results_(results), path_(out / name), name_(name), records_(std::move(records)) {
    for (const Record* record : records_) started_ = std::max(started_, record->env.started_at);
    date_ = file_date(started_);
  }

  void write(const std::vector<std::string>& tasks, LmEvalExport& counts) const;

 private:
  std::string write_samples(const Record& record, const PointSamples& samples, const std::string& task) const;
  Json run_config() const;

  const Results& results_;
  fs::path path_;
  std::string name_, started_, date_;
  std::vector<const Record*> records_;
};

void Folder::write(const std::vector<std::string>& tasks, LmEvalExport& counts) const {
  std::error_code error;
  fs::create_directories(path_, error);
  if (error) throw DataError(fmt::format("{}: cannot be made: {}", path_.string(), error.message()));
  Json results = Json::object(), groups = Json::object(), configs = Json::object(), versions = Json::object(),
       shots = Json::object(), better = Json::object(), n = Json::object(), hashes = Json::object(),
       failed = Json::object();
  for (size_t i = 0; i < records_.size(); ++i) {
    const Record& record = *records_[i];
    const std::string& task = tasks[i];
    const PointSamples* samples = results_.samples(record.id);
    if (!measured(record)) {
      failed[task] = config_of(record, task);
      counts.gaps.push_back(fmt::format("{}: failed: {}", record.point.label(), record.error));
      continue;
    }
    configs[task] = config_of(record, task);
    versions[task] = record.point.task_version;
    shots[task] = shots_of(record);
    groups[task] = Json::array();
    results[task] = metrics_of(record, task);
    better[task] = higher_is_better(record);
    n[task] = {{"original", record.n}, {"effective", record.n}};
    ++counts.tasks;
    if (samples == nullptr) {
      counts.gaps.push_back(fmt::format("{}: no samples", record.point.label()));
      continue;
    }
    hashes[task] = write_samples(record, *samples, task);
    counts.samples += static_cast<int64_t>(samples->size());
  }
  const Record& first = *records_.front();
  const std::string model = fmt::format("{} {}", first.point.model, configuration_of(first));
  const Json out = {
      {"results", std::move(results)},
      {"group_subtasks", std::move(groups)},
      {"configs", std::move(configs)},
      {"kvsweep_failed", std::move(failed)},
      {"versions", std::move(versions)},
      {"n-shot", std::move(shots)},
      {"higher_is_better", std::move(better)},
      {"n-samples", std::move(n)},
      {"config", run_config()},
      {"git_hash", first.env.commit},
      {"date", unix_time(started_)},
      {"pretty_env_info", fmt::format("torch {}, {}, {} threads", first.env.torch, first.env.cpu, first.env.threads)},
      {"kvsweep_version", first.env.version},
      {"task_hashes", std::move(hashes)},
      {"model_source", "kvsweep"},
      {"model_name", model},
      {"model_name_sanitized", name_}};
  OutFile file(path_ / fmt::format("results_{}.json", date_));
  file.write(dump(out, 2) + "\n");
  file.close();
  ++counts.folders;
}

Json Folder::run_config() const {
  const Record& first = *records_.front();
  Json arguments = {{"pretrained", first.point.model}, {"scheme", first.point.scheme}};
  for (const auto& [key, value] : first.point.scheme_params) arguments[key] = value;
  std::set<uint64_t> seeds;
  for (const Record* record : records_) seeds.insert(record->point.seed);
  const Json seed = seeds.size() == 1 ? Json(*seeds.begin()) : Json(nullptr);  // several: configs' metadata has them
  return {{"model", "kvsweep"},
          {"model_args", std::move(arguments)},
          {"model_dtype", first.env.dtype},
          {"model_sha", first.env.weights_sha256},
          {"batch_size", nullptr},
          {"batch_sizes", Json::array()},
          {"device", first.env.device},
          {"use_cache", nullptr},
          {"limit", nullptr},
          {"bootstrap_iters", 0},
          {"gen_kwargs", nullptr},
          {"random_seed", seed},
          {"numpy_seed", seed},
          {"torch_seed", seed},
          {"fewshot_seed", seed}};
}

// Returns the task's hash: of all samples' hashes.
std::string Folder::write_samples(const Record& record, const PointSamples& samples, const std::string& task) const {
  OutFile file(path_ / fmt::format("samples_{}_{}.jsonl", task, date_));
  const std::string target_hash = sha256_hex("");
  std::string all;
  for (size_t i = 0; i < samples.size(); ++i) {
    const SampleRecord sample = results_.read_sample(samples.line[i]);
    Json doc = {{"sample_id", sample.sample_id}};
    for (const auto& [tag, value] : sample.tags) doc[tag] = value;
    doc["context_tokens"] = sample.context_tokens;
    doc["query_tokens"] = sample.query_tokens;
    const std::string doc_hash = sha256_hex(dump(doc, 2));
    all += doc_hash + sample.prompt_hash + target_hash;
    Json out = {{"doc_id", sample.index},
                {"doc", std::move(doc)},
                {"target", ""},
                {"arguments", {{"gen_args_0", {{"arg_0", ""}}}}},
                {"resps", generated(record) ? Json::array({Json::array({sample.output})}) : Json::array()},
                {"filtered_resps", generated(record) ? Json::array({sample.output}) : Json::array()},
                {"filter", "none"},
                {"metrics", samples.metrics},
                {"doc_hash", doc_hash},
                {"prompt_hash", sample.prompt_hash},
                {"target_hash", target_hash}};
    for (const auto& [metric, value] : sample.scores) out[metric] = number(value);
    file.write(dump(out, -1) + "\n");
  }
  file.close();
  return sha256_hex(all);
}

}  // namespace

LmEvalExport write_lm_eval(const Results& results, const fs::path& out) {
  const std::vector<std::string> tasks = task_names(results.records());
  std::map<std::pair<std::string, std::string>, size_t> at;
  std::vector<Named> things;
  std::vector<std::vector<const Record*>> records;
  std::vector<std::vector<std::string>> tasks_of;
  for (size_t i = 0; i < results.records().size(); ++i) {
    const Record& record = results.records()[i];
    const auto [found, fresh] = at.try_emplace({record.point.model, configuration_of(record)}, things.size());
    if (fresh) {
      things.push_back({fmt::format("{}__{}", record.point.model, record.point.scheme), record.point.scheme_params});
      records.emplace_back();
      tasks_of.emplace_back();
    }
    records[found->second].push_back(&record);
    tasks_of[found->second].push_back(tasks[i]);
  }
  const std::vector<std::string> names = file_names(things);
  LmEvalExport counts;
  for (size_t i = 0; i < things.size(); ++i) Folder(results, out, names[i], records[i]).write(tasks_of[i], counts);
  return counts;
}

}  // namespace kvsweep
