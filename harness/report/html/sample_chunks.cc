#include "harness/report/html/sample_chunks.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <simdjson.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <iterator>
#include <nlohmann/json.hpp>
#include <numeric>
#include <optional>
#include <set>
#include <unordered_map>

#include "harness/core/error.h"
#include "harness/report/html/gzip.h"
#include "harness/report/html/in_parallel.h"

namespace kvsweep {
namespace {

constexpr int64_t kBuckets = 32;  // of positions

struct SampleText {
  std::string output;
  std::vector<float> kl;
};

// Reads texts of samples where their lines lie.
class TextReader {
 public:
  explicit TextReader(const Results& results) : results_(results) {
    for (const auto& path : results.files()) {
      files_.push_back(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
      if (files_.back() < 0) throw DataError(fmt::format("{}: cannot be read again", path.string()));
    }
  }
  ~TextReader() {
    for (const int fd : files_)
      if (fd >= 0) ::close(fd);
  }
  TextReader(const TextReader&) = delete;
  TextReader& operator=(const TextReader&) = delete;

  const SampleText& read(const LinePlace& place) {
    buffer_.resize(place.bytes + simdjson::SIMDJSON_PADDING);
    const ssize_t got = ::pread(files_.at(place.file), buffer_.data(), place.bytes, static_cast<off_t>(place.offset));
    try {
      if (got != static_cast<ssize_t>(place.bytes)) throw simdjson::simdjson_error(simdjson::IO_ERROR);
      parse(place.bytes);
    } catch (const simdjson::simdjson_error&) {
      throw DataError(fmt::format("{} at byte {}: has changed since it was read", results_.files()[place.file].string(),
                                  place.offset));
    }
    return text_;
  }

 private:
  void parse(size_t bytes) {
    text_.kl.clear();
    text_.output.clear();
    auto document = parser_.iterate(buffer_.data(), bytes, buffer_.size());
    for (simdjson::ondemand::field field : document.get_object()) {
      const std::string_view key = field.unescaped_key();
      if (key == "output") {
        text_.output = std::string_view(field.value().get_string());
      } else if (key == "kl") {
        for (simdjson::ondemand::value one : field.value().get_array())
          text_.kl.push_back(
              one.type() == simdjson::ondemand::json_type::number ? static_cast<float>(double(one.get_double())) : NAN);
      }
    }
  }

  const Results& results_;
  std::vector<int> files_;
  std::string buffer_;
  simdjson::ondemand::parser parser_;
  SampleText text_;
};

void append_text(std::string& out, const std::string& text) {
  out += nlohmann::json(text).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

void append_number(std::string& out, double value) {
  if (std::isfinite(value))
    fmt::format_to(std::back_inserter(out), "{:.5g}", value);
  else
    out += "null";
}

// "name":[a,b] of any range.
template <typename Range, typename Append>
void append_column(std::string& out, const std::string& name, const Range& range, const Append& append) {
  if (out.back() != '{') out += ',';
  append_text(out, name);
  out += ":[";
  bool first = true;
  for (const auto& value : range) {
    if (!first) out += ',';
    first = false;
    append(value);
  }
  out += ']';
}

template <typename Range>
void append_numbers(std::string& out, const std::string& name, const Range& range) {
  append_column(out, name, range, [&](auto value) {
    if constexpr (std::is_integral_v<decltype(value)>)
      fmt::format_to(std::back_inserter(out), "{}", value);
    else
      append_number(out, static_cast<double>(value));
  });
}

class Chunks {
 public:
  Chunks(const Analysis& analysis, int64_t texts) : analysis_(analysis), results_(analysis.results()) {
    int64_t samples = 0, points = 0;
    for (const Group& group : analysis.groups())
      for (const Row& row : group.rows)
        if (const PointSamples* of = results_.samples(row.record->id)) {
          samples += std::ssize(of->item);
          ++points;
        }
    if (samples > texts) share_ = texts / std::max<int64_t>(1, points);
  }
  std::vector<GroupChunk> make();

 private:
  using Local = std::unordered_map<uint32_t, uint32_t>;  // item -> place in its group

  void add_items(const Group& group, GroupChunk& chunk, Local& local) const;
  void add_reference(const Group& group, GroupChunk& chunk, TextReader& reader);
  void add_point(size_t group, size_t row, TextReader& reader);
  std::vector<char> with_text(const PointSamples& samples, const Group& group, const Row& row) const;

  const Analysis& analysis_;
  const Results& results_;
  std::optional<int64_t> share_;  // texts of a point; none: all
  std::vector<GroupChunk> chunks_;
  std::vector<Local> local_;
  std::vector<std::vector<std::string>> reference_;  // full precision's texts by place in the group
};

void Chunks::add_items(const Group& group, GroupChunk& chunk, Local& local) const {
  const auto add = [&](const PointSamples* samples) {
    if (samples == nullptr) return;
    for (const uint32_t item : samples->item)
      if (local.try_emplace(item, static_cast<uint32_t>(chunk.items.size())).second) chunk.items.push_back(item);
  };
  add(group.reference_samples);
  for (const Row& row : group.rows) add(results_.samples(row.record->id));
}

void Chunks::add_reference(const Group& group, GroupChunk& chunk, TextReader& reader) {
  const size_t g = static_cast<size_t>(&chunk - chunks_.data());
  const PointSamples* samples = group.reference_samples;
  std::vector<int32_t> context(chunk.items.size(), -1);
  std::string& out = chunk.packed = "{";
  append_column(out, "id", chunk.items, [&](uint32_t item) { append_text(out, results_.items()[item].sample_id); });
  out += ",\"tags\":{";
  std::set<std::string> names;
  for (const uint32_t item : chunk.items)
    for (const auto& [name, value] : results_.items()[item].tags) names.insert(name);
  for (const std::string& name : names)
    append_column(out, name, chunk.items, [&](uint32_t item) {
      const std::string* value = results_.items()[item].tag(name);
      if (value == nullptr)
        out += "null";
      else
        append_text(out, *value);
    });
  out += '}';
  if (samples != nullptr) {
    for (const LinePlace& line : samples->line) reference_[g].push_back(reader.read(line).output);
    std::copy(samples->context_tokens.begin(), samples->context_tokens.end(), context.begin());
  }
  append_numbers(out, "context", context);
  std::vector<size_t> places(chunk.items.size());
  std::iota(places.begin(), places.end(), size_t{0});
  append_column(out, "text", places, [&](size_t place) {
    if (place < reference_[g].size())
      append_text(out, reference_[g][place]);
    else
      out += "null";
  });
  out += '}';
}

// Which samples of a point keep their text: what a person looks for comes first.
std::vector<char> Chunks::with_text(const PointSamples& samples, const Group& group, const Row& row) const {
  const bool all = !share_ || &samples == group.reference_samples;
  std::vector<char> with(samples.size(), all ? 1 : 0);
  if (all) return with;
  std::unordered_map<uint32_t, double> full;
  const std::string& metric = row.record->primary_metric;
  const std::vector<double>* own = samples.find(metric);
  if (group.reference_samples != nullptr)
    if (const std::vector<double>* scores = group.reference_samples->find(metric))
      for (size_t i = 0; i < scores->size(); ++i) full[group.reference_samples->item[i]] = (*scores)[i];
  std::vector<std::pair<int, size_t>> order;
  for (size_t i = 0; i < samples.size(); ++i) {
    const auto at = full.find(samples.item[i]);
    const bool changed = own != nullptr && at != full.end() && !(at->second == (*own)[i]);
    order.emplace_back(changed ? 0 : samples.first_divergence[i] >= 0 ? 1 : 2, i);
  }
  std::sort(order.begin(), order.end());
  for (size_t i = 0; i < std::min(order.size(), static_cast<size_t>(*share_)); ++i) with[order[i].second] = 1;
  return with;
}

void Chunks::add_point(size_t g, size_t r, TextReader& reader) {
  const Group& group = analysis_.groups()[g];
  PointChunk& chunk = chunks_[g].points[r];
  const PointSamples* samples = results_.samples(group.rows[r].record->id);
  if (samples == nullptr) return;
  chunk.samples = std::ssize(samples->item);
  const bool is_reference = samples == group.reference_samples;
  const std::vector<char> with = with_text(*samples, group, group.rows[r]);

  std::string out = "{";
  std::vector<uint32_t> places;
  for (const uint32_t item : samples->item) places.push_back(local_[g].at(item));
  bool in_order = places.size() == chunks_[g].items.size();
  for (size_t i = 0; i < places.size(); ++i) in_order = in_order && places[i] == i;
  if (in_order)
    out += "\"item\":null";
  else
    append_numbers(out, "item", places);
  out += ",\"scores\":{";
  for (size_t m = 0; m < samples->metrics.size(); ++m) append_numbers(out, samples->metrics[m], samples->scores[m]);
  out += '}';
  append_numbers(out, "kl", samples->kl);
  append_numbers(out, "kl_max", samples->kl_max);
  append_numbers(out, "divergence", samples->first_divergence);
  append_numbers(out, "generated", samples->generated);

  const int64_t longest =
      samples->positions.empty() ? 0 : *std::max_element(samples->positions.begin(), samples->positions.end());
  KlByPosition& kl = chunk.kl;
  const bool whole = std::all_of(with.begin(), with.end(), [](char is) { return is != 0; });
  if (whole && !is_reference && longest > 0) {
    kl.width = (longest + kBuckets - 1) / kBuckets;
    kl.kl.resize(static_cast<size_t>((longest + kl.width - 1) / kl.width));
    kl.n.resize(kl.kl.size());
  }
  size_t i = 0;
  append_column(out, "text", samples->line, [&](const LinePlace& line) {
    const size_t at = i++, place = places[at];
    if (!with[at]) {
      out += '0';
      return;
    }
    ++chunk.texts;
    if (is_reference) {
      out += "null";
      return;
    }
    const SampleText& text = reader.read(line);
    if (!kl.kl.empty())
      for (size_t position = 0; position < text.kl.size(); ++position) {
        kl.kl[position / static_cast<size_t>(kl.width)] += static_cast<double>(text.kl[position]);
        ++kl.n[position / static_cast<size_t>(kl.width)];
      }
    if (place < reference_[g].size() && reference_[g][place] == text.output)
      out += "null";
    else
      append_text(out, text.output);
  });
  out += '}';
  for (size_t b = 0; b < kl.kl.size(); ++b) kl.kl[b] /= static_cast<double>(kl.n[b]);
  chunk.packed = gzip_base64(out);
}

std::vector<GroupChunk> Chunks::make() {
  const std::vector<Group>& groups = analysis_.groups();
  chunks_.resize(groups.size());
  local_.resize(groups.size());
  reference_.resize(groups.size());
  std::vector<std::pair<size_t, size_t>> points;
  for (size_t g = 0; g < groups.size(); ++g) {
    chunks_[g].points.resize(groups[g].rows.size());
    for (size_t r = 0; r < groups[g].rows.size(); ++r) points.emplace_back(g, r);
  }
  in_parallel(groups.size(), [&](size_t g) {
    TextReader reader(results_);
    add_items(groups[g], chunks_[g], local_[g]);
    add_reference(groups[g], chunks_[g], reader);
    chunks_[g].packed = gzip_base64(chunks_[g].packed);
  });
  in_parallel(points.size(), [&](size_t i) {
    TextReader reader(results_);
    add_point(points[i].first, points[i].second, reader);
  });
  return std::move(chunks_);
}

}  // namespace

std::vector<GroupChunk> sample_chunks(const Analysis& analysis, int64_t texts) {
  return Chunks(analysis, texts).make();
}

}  // namespace kvsweep
