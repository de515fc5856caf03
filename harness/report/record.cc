#include "harness/report/record.h"

#include <fmt/format.h>

#include <charconv>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <type_traits>
#include <utility>

#include "harness/core/error.h"
#include "harness/core/hash.h"

namespace kvsweep {
namespace {

using Json = nlohmann::ordered_json;

// JSON has no NaN and no infinities: they are written as these texts.
Json encode(double value) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value > 0 ? "inf" : "-inf";
  return value;
}

// The shortest decimal that reads back as the same float, instead of the 17 digits of its double.
Json encode(float value) {
  if (!std::isfinite(value)) return encode(static_cast<double>(value));
  const std::string text = fmt::format("{}", value);
  double shortest = 0;
  std::from_chars(text.data(), text.data() + text.size(), shortest);
  return shortest;
}

template <class T>
concept Plain = std::is_integral_v<T> || std::is_same_v<T, std::string>;

// Writer and Reader walk the same lists of fields, fields(archive, struct) below, so that what is written is what is
// read.
struct Writer {
  template <class T>
  using Ref = const T&;
  Json out = Json::object();

  template <class T>
  void operator()(const char* key, const T& value) {
    out[key] = to(value);
  }

 private:
  template <class T>
  static Json to(const T& value) {
    if constexpr (Plain<T>) {
      return value;
    } else if constexpr (std::is_floating_point_v<T>) {
      return encode(value);
    } else {
      Writer nested;
      fields(nested, value);
      return std::move(nested.out);
    }
  }
  template <class T>
  static Json to(const std::optional<T>& value) {
    return value ? to(*value) : Json(nullptr);
  }
  template <class T>
  static Json to(const std::vector<T>& values) {
    Json array = Json::array();
    for (const T& value : values) array.push_back(to(value));
    return array;
  }
  template <class T>
  static Json to(const std::map<std::string, T>& values) {
    Json object = Json::object();
    for (const auto& [key, value] : values) object[key] = to(value);
    return object;
  }
  static Json to(const Fields& values) {
    Json object = Json::object();
    for (const auto& [key, value] : values) object[key] = value;
    return object;
  }
};

class Reader {
 public:
  template <class T>
  using Ref = T&;

  // path: of `in` within the line, for messages.
  Reader(const Json& in, std::string place, std::string path) : in_(in), place_(std::move(place)), path_(path) {
    if (!in.is_object()) fail(path.empty() ? "the line" : path, in, "an object");
    if (!path_.empty()) path_ += '.';
  }

  template <class T>
  void operator()(const char* key, T& value) const {
    const auto at = in_.find(key);
    if (at == in_.end()) throw DataError(fmt::format("{}: {}{} is missing", place_, path_, key));
    from(*at, path_ + key, value);
  }

 private:
  [[noreturn]] void fail(const std::string& what, const Json& came, const std::string& expected) const {
    std::string shown = came.dump(-1, ' ', false, Json::error_handler_t::replace);
    if (shown.size() > 60) shown = shown.substr(0, 57) + "...";
    throw DataError(fmt::format("{}: {} is {}, expected {}", place_, what, shown, expected));
  }

  template <class T>
  void from(const Json& json, const std::string& path, T& value) const {
    if constexpr (std::is_same_v<T, bool>) {
      if (!json.is_boolean()) fail(path, json, "true or false");
      value = json.get<bool>();
    } else if constexpr (std::is_same_v<T, std::string>) {
      if (!json.is_string()) fail(path, json, "a text");
      value = json.get<std::string>();
    } else if constexpr (std::is_integral_v<T>) {
      value = integer<T>(json, path);
    } else if constexpr (std::is_floating_point_v<T>) {
      value = static_cast<T>(number(json, path));
    } else {
      const Reader nested(json, place_, path);
      fields(nested, value);
    }
  }
  template <class T>
  void from(const Json& json, const std::string& path, std::optional<T>& value) const {
    value.reset();
    if (!json.is_null()) from(json, path, value.emplace());
  }
  template <class T>
  void from(const Json& json, const std::string& path, std::vector<T>& values) const {
    if (!json.is_array()) fail(path, json, "a list");
    values.resize(json.size());
    for (size_t i = 0; i < values.size(); ++i) from(json[i], fmt::format("{}[{}]", path, i), values[i]);
  }
  template <class T>
  void from(const Json& json, const std::string& path, std::map<std::string, T>& values) const {
    if (!json.is_object()) fail(path, json, "an object");
    values.clear();
    for (const auto& [key, item] : json.items()) from(item, path + "." + key, values[key]);
  }
  void from(const Json& json, const std::string& path, Fields& values) const {
    if (!json.is_object()) fail(path, json, "an object");
    values.clear();
    for (const auto& [key, item] : json.items()) from(item, path + "." + key, values.emplace_back(key, "").second);
  }

  template <class T>
  T integer(const Json& json, const std::string& path) const {
    constexpr T kLow = std::numeric_limits<T>::min(), kHigh = std::numeric_limits<T>::max();
    const bool fits = json.is_number_unsigned()  ? std::in_range<T>(json.get<uint64_t>())
                      : json.is_number_integer() ? std::in_range<T>(json.get<int64_t>())
                                                 : false;
    if (!fits) fail(path, json, fmt::format("an integer in [{}, {}]", kLow, kHigh));
    return json.get<T>();
  }
  double number(const Json& json, const std::string& path) const {
    if (json.is_number()) return json.get<double>();
    if (json == "nan") return std::numeric_limits<double>::quiet_NaN();
    if (json == "inf") return std::numeric_limits<double>::infinity();
    if (json == "-inf") return -std::numeric_limits<double>::infinity();
    fail(path, json, "a number");
  }

  const Json& in_;
  std::string place_, path_;
};

template <class A>
void fields(A& a, typename A::template Ref<CacheBytes> bytes) {
  a("by_role", bytes.by_role);
  a("live", bytes.live);
  a("reserved", bytes.reserved);
  a("shared", bytes.shared);
  a("tokens", bytes.tokens);
  a("values", bytes.values);
}

template <class A>
void fields(A& a, typename A::template Ref<Point> point) {
  a("model", point.model);
  a("task", point.task);
  a("task_version", point.task_version);
  a("task_params", point.task_params);
  a("tokens", point.tokens);
  a("scheme", point.scheme);
  a("scheme_params", point.scheme_params);
  a("view", point.view);
  a("seed", point.seed);
}

template <class A>
void fields(A& a, typename A::template Ref<SampleTime> time) {
  a("prefill_ms", time.prefill_ms);
  a("compress_ms", time.compress_ms);
  a("attend_ms", time.attend_ms);
  a("decode_ms_per_token", time.decode_ms_per_token);
  a("path", time.path);
}

template <class A>
void fields(A& a, typename A::template Ref<AttentionDrift> attention) {
  a("kl", attention.kl);
  a("overlap", attention.overlap);
  a("oldest", attention.oldest);
  a("full_oldest", attention.full_oldest);
}

template <class A>
void fields(A& a, typename A::template Ref<Noise> noise) {
  a("kl", noise.kl);
  a("kl_max", noise.kl_max);
  a("positions", noise.positions);
  a("top1_flips", noise.top1_flips);
}

template <class A>
void fields(A& a, typename A::template Ref<SampleRecord> sample) {
  a("point_id", sample.point_id);
  a("sample_id", sample.sample_id);
  a("index", sample.index);
  a("prompt_hash", sample.prompt_hash);
  a("context_tokens", sample.context_tokens);
  a("query_tokens", sample.query_tokens);
  a("tags", sample.tags);
  a("output", sample.output);
  a("output_tokens", sample.output_tokens);
  a("scores", sample.scores);
  a("kl", sample.kl);
  a("top1_flips", sample.top1_flips);
  a("first_divergence", sample.first_divergence);
  a("reused_tokens", sample.reused_tokens);
  a("compressed_reads", sample.compressed_reads);
  a("noise", sample.noise);
  a("attention", sample.attention);
  a("bytes", sample.bytes);
  a("time", sample.time);
}

template <class A>
void fields(A& a, typename A::template Ref<Summary> summary) {
  a("mean", summary.mean);
  a("standard_error", summary.standard_error);
  a("n", summary.n);
}

template <class A>
void fields(A& a, typename A::template Ref<MetricInfo> info) {
  a("shown_as", info.shown_as);
  a("exponential", info.exponential);
  a("higher_is_better", info.higher_is_better);
  a("failure", info.failure);
}

template <class A>
void fields(A& a, typename A::template Ref<Paired> paired) {
  a("versus", paired.versus);
  a("metric", paired.metric);
  a("delta", paired.delta);
  a("standard_error", paired.standard_error);
  a("lost", paired.lost);
  a("gained", paired.gained);
  a("ratio", paired.ratio);
  a("ratio_standard_error", paired.ratio_standard_error);
}

template <class A>
void fields(A& a, typename A::template Ref<Provenance> env) {
  a("version", env.version);
  a("commit", env.commit);
  a("dirty", env.dirty);
  a("torch", env.torch);
  a("device", env.device);
  a("dtype", env.dtype);
  a("host", env.host);
  a("cpu", env.cpu);
  a("started_at", env.started_at);
  a("threads", env.threads);
  a("deterministic", env.deterministic);
  a("weights_sha256", env.weights_sha256);
  a("data_sha256", env.data_sha256);
  a("command", env.command);
}

template <class A>
void fields(A& a, typename A::template Ref<Record> record) {
  a("schema", record.schema);
  a("id", record.id);
  a("status", record.status);
  a("error", record.error);
  a("point", record.point);
  a("n", record.n);
  a("metrics", record.metrics);
  a("primary_metric", record.primary_metric);
  a("metric_info", record.metric_info);
  a("breakdown", record.breakdown);
  a("task_kind", record.task_kind);
  a("reference_id", record.reference_id);
  a("kl", record.kl);
  a("kl_median", record.kl_median);
  a("kl_p99", record.kl_p99);
  a("kl_max", record.kl_max);
  a("top1_flips", record.top1_flips);
  a("noise", record.noise);
  a("attention", record.attention);
  a("divergence_share", record.divergence_share);
  a("generated_tokens", record.generated_tokens);
  a("reused_tokens", record.reused_tokens);
  a("paired", record.paired);
  a("nominal_k_bits", record.nominal_k_bits);
  a("nominal_v_bits", record.nominal_v_bits);
  a("effective_bits", record.effective_bits);
  a("bytes_per_token", record.bytes_per_token);
  a("bytes", record.bytes);
  a("compressed_reads", record.compressed_reads);
  a("prefill_ms", record.prefill_ms);
  a("compress_ms", record.compress_ms);
  a("decode_ms_per_token", record.decode_ms_per_token);
  a("path", record.path);
  a("warnings", record.warnings);
  a("env", record.env);
}

// Text that is not valid UTF-8 gets replacement characters: a line is always valid JSON.
template <class T>
std::string dump(const T& value) {
  Writer writer;
  fields(writer, value);
  return writer.out.dump(-1, ' ', false, Json::error_handler_t::replace);
}

Json parse_json(const std::string& line, const std::string& place) {
  Json json = Json::parse(line, nullptr, false);
  if (json.is_discarded()) throw DataError(fmt::format("{}: the line is not JSON", place));
  return json;
}

template <class T>
T read(const Json& json, const std::string& place) {
  T value;
  const Reader reader(json, place, "");
  fields(reader, value);
  return value;
}

// Asked before anything else: a line of another schema lacks fields.
void check_schema(const Json& json, const std::string& place) {
  const auto at = json.is_object() ? json.find("schema") : json.end();
  if (at == json.end() || !at->is_number_integer() || *at == kRecordSchema) return;
  const std::string found =
      fmt::format("{}: schema is {}, this program reads schema {}", place, at->dump(), kRecordSchema);
  if (*at > kRecordSchema) throw DataError(found + "; it was written by a newer program");
  throw StaleRecord(
      found, "`kvsweep run <the sweep> --out <this directory>` makes the records again from the samples that are there",
      json.value("id", ""));
}

}  // namespace

std::string Point::canonical_json() const {
  return dump(*this);
}

std::string Point::id() const {
  return sha256_hex(canonical_json()).substr(0, 16);
}

std::string params_text(const Fields& params) {
  std::vector<std::string> texts;
  for (const auto& [key, value] : params) texts.push_back(key + "=" + value);
  return join(texts, " ");
}

std::string with_params(std::string name, const Fields& params) {
  return params.empty() ? name : name + " " + params_text(params);
}

std::string error_line(const std::string& error) {
  return error.substr(0, error.find('\n'));
}

std::string Point::label() const {
  return fmt::format("{} | {} | {} | {} | seed {}", model, with_params(task, task_params),
                     with_params(scheme, scheme_params), view, seed);
}

const MetricInfo& Record::primary_info() const {
  const auto at = metric_info.find(primary_metric);
  if (at == metric_info.end())
    throw DataError(fmt::format("record {}: says nothing of its primary metric '{}'", id, primary_metric));
  return at->second;
}

std::string to_json_line(const Record& record) {
  return dump(record);
}

std::string to_json_line(const SampleRecord& sample) {
  return dump(sample);
}

Record record_from_json(const std::string& line, const std::string& place) {
  const Json json = parse_json(line, place);
  check_schema(json, place);
  Record record = read<Record>(json, place);
  const bool known = record.status == "ok" || record.status == "not_engaged" || record.status == "failed";
  if (!known)
    throw DataError(fmt::format("{}: status is '{}', expected ok, not_engaged or failed", place, record.status));
  return record;
}

SampleRecord sample_from_json(const std::string& line, const std::string& place) {
  return read<SampleRecord>(parse_json(line, place), place);
}

}  // namespace kvsweep
