#include "harness/report/analysis/sample_line.h"

#include <simdjson.h>

#include <cmath>
#include <limits>

namespace kvsweep {
namespace {

namespace json = simdjson::ondemand;
static_assert(SampleLineReader::kPadding >= simdjson::SIMDJSON_PADDING);

constexpr double kNone = std::numeric_limits<double>::quiet_NaN();

// Numbers, and the texts that stand for what JSON has no number for.
double number(json::value value) {
  if (value.type() == json::json_type::number) return value.get_double();
  const std::string_view text = value.get_string();
  if (text == "nan") return kNone;
  if (text == "inf") return std::numeric_limits<double>::infinity();
  if (text == "-inf") return -std::numeric_limits<double>::infinity();
  throw simdjson::simdjson_error(simdjson::INCORRECT_TYPE);
}

}  // namespace

struct SampleLineReader::State {
  json::parser parser;
  SampleLine line;

  void parse(std::string_view text);
  void set(std::string_view key, json::value value);
};

void SampleLineReader::State::set(std::string_view key, json::value value) {
  if (key == "point_id") {
    line.point_id = value.get_string();
  } else if (key == "sample_id") {
    line.sample_id = value.get_string();
  } else if (key == "index") {
    line.index = value.get_int64();
  } else if (key == "prompt_hash") {
    line.prompt_hash = value.get_string();
  } else if (key == "context_tokens") {
    line.context_tokens = value.get_int64();
  } else if (key == "tags") {
    for (json::field field : value.get_object()) {
      const std::string_view name = field.unescaped_key();
      line.tags.emplace_back(name, field.value().get_string());
    }
  } else if (key == "output_tokens") {
    line.generated = static_cast<int64_t>(size_t(value.count_elements()));
  } else if (key == "scores") {
    for (json::field field : value.get_object()) {
      const std::string_view name = field.unescaped_key();
      line.scores.emplace_back(name, number(field.value()));
    }
  } else if (key == "kl") {
    double sum = 0;
    for (json::value one : value.get_array()) {
      // As the float that was written.
      const double kl = static_cast<float>(number(one));
      sum += kl;
      line.kl_max = line.positions == 0 || kl > line.kl_max || std::isnan(kl) ? kl : line.kl_max;
      ++line.positions;
    }
    line.kl = line.positions > 0 ? sum / static_cast<double>(line.positions) : kNone;
    if (line.positions == 0) line.kl_max = kNone;
  } else if (key == "top1_flips") {
    line.top1_flips = value.get_int64();
  } else if (key == "first_divergence") {
    line.first_divergence = value.get_int64();
  } else if (key == "attention" && !value.is_null()) {
    json::object attention = value.get_object();
    line.drift = number(attention["kl"].value());
    line.oldest = number(attention["oldest"].value());
    line.full_oldest = number(attention["full_oldest"].value());
  }
}

void SampleLineReader::State::parse(std::string_view text) {
  line.tags.clear();
  line.scores.clear();
  line = {
      {}, {}, {}, 0, 0, 0, 0, 0, -1, kNone, kNone, kNone, kNone, kNone, std::move(line.tags), std::move(line.scores)};
  int needed = 0;
  static constexpr std::string_view kNeeded[] = {"point_id", "sample_id", "index", "prompt_hash",
                                                 "tags",     "scores",    "kl"};
  json::document document = parser.iterate(text.data(), text.size(), text.size() + kPadding);
  for (json::field field : document.get_object()) {
    const std::string_view key = field.unescaped_key();
    for (const std::string_view name : kNeeded) needed += name == key;
    set(key, field.value());
  }
  const char* end = nullptr;
  const bool whole = document.current_location().get(end) != simdjson::SUCCESS || end >= text.data() + text.size();
  if (needed != std::ssize(kNeeded) || !whole) throw simdjson::simdjson_error(simdjson::NO_SUCH_FIELD);
}

SampleLineReader::SampleLineReader() : state_(std::make_unique<State>()) {}
SampleLineReader::~SampleLineReader() = default;
SampleLineReader::SampleLineReader(SampleLineReader&&) noexcept = default;

const SampleLine* SampleLineReader::read(std::string_view line) {
  try {
    state_->parse(line);
  } catch (const simdjson::simdjson_error&) {
    return nullptr;
  }
  return &state_->line;
}

}  // namespace kvsweep
