#include "harness/report/analysis/results.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <exception>
#include <functional>
#include <numeric>
#include <thread>
#include <tuple>
#include <unordered_map>

#include "harness/core/error.h"
#include "harness/report/analysis/natural_order.h"
#include "harness/report/analysis/sample_line.h"
#include "harness/report/baseline.h"
#include "harness/report/shard.h"
#include "harness/report/store.h"

namespace kvsweep {
namespace {

namespace fs = std::filesystem;

constexpr uint64_t kBlock = uint64_t{4} << 20;

int compare(const Fields& a, const Fields& b) {
  for (size_t i = 0; i < std::min(a.size(), b.size()); ++i) {
    if (const int order = a[i].first.compare(b[i].first); order != 0) return order;
    if (const int order = natural_compare(a[i].second, b[i].second); order != 0) return order;
  }
  return static_cast<int>(a.size() > b.size()) - static_cast<int>(a.size() < b.size());
}

// Texts to consecutive numbers.
class Interner {
 public:
  uint32_t operator()(std::string_view text) {
    const auto [at, fresh] = index_.try_emplace(std::string(text), static_cast<uint32_t>(index_.size()));
    if (fresh) names_.push_back(&at->first);
    return at->second;
  }
  size_t size() const { return names_.size(); }
  const std::string& name(size_t i) const { return *names_[i]; }

 private:
  std::unordered_map<std::string, uint32_t> index_;
  std::vector<const std::string*> names_;
};

struct RawSample {
  uint32_t point = 0, item = 0, metrics = 0;
  int32_t context_tokens = 0, generated = 0, positions = 0, top1_flips = 0, first_divergence = 0;
  int64_t index = 0;
  float kl = 0, kl_max = 0, drift = 0, oldest = 0, full_oldest = 0;
  uint64_t score = 0;  // first of its scores in Part::scores
  LinePlace line;
};

// What one thread has read.
struct Part {
  Interner points, item_keys;
  std::vector<Item> items;
  std::vector<std::vector<std::string>> metric_sets;
  std::vector<RawSample> samples;
  std::vector<double> scores;
  std::string key;  // scratch
  SampleLineReader reader;
  std::exception_ptr error;

  void add(const SampleLine& line, const LinePlace& place);
  uint32_t item_of(const SampleLine& line);
  uint32_t metrics_of(const SampleLine& line);
};

uint32_t Part::item_of(const SampleLine& line) {
  key.assign(line.sample_id).push_back('\0');
  key.append(line.prompt_hash).push_back('\0');
  for (const auto& [name, value] : line.tags) key.append(name).append("=").append(value).push_back('\0');
  const uint32_t id = item_keys(key);
  if (id == items.size()) {
    Item& item = items.emplace_back(Item{std::string(line.sample_id), std::string(line.prompt_hash), {}});
    for (const auto& [name, value] : line.tags) item.tags.emplace_back(name, value);
    std::sort(item.tags.begin(), item.tags.end());
  }
  return id;
}

uint32_t Part::metrics_of(const SampleLine& line) {
  const auto same = [&](const std::vector<std::string>& names) {
    return std::equal(names.begin(), names.end(), line.scores.begin(), line.scores.end(),
                      [](const std::string& a, const auto& b) { return a == b.first; });
  };
  const auto at = std::find_if(metric_sets.begin(), metric_sets.end(), same);
  const auto index = static_cast<uint32_t>(at - metric_sets.begin());
  if (at == metric_sets.end())
    for (auto& names = metric_sets.emplace_back(); const auto& [name, value] : line.scores) names.emplace_back(name);
  return index;
}

void Part::add(const SampleLine& line, const LinePlace& place) {
  RawSample raw;
  raw.point = points(line.point_id);
  raw.item = item_of(line);
  raw.metrics = metrics_of(line);
  raw.index = line.index;
  raw.context_tokens = static_cast<int32_t>(line.context_tokens);
  raw.generated = static_cast<int32_t>(line.generated);
  raw.positions = static_cast<int32_t>(line.positions);
  raw.top1_flips = static_cast<int32_t>(line.top1_flips);
  raw.first_divergence = static_cast<int32_t>(line.first_divergence);
  raw.kl = static_cast<float>(line.kl);
  raw.kl_max = static_cast<float>(line.kl_max);
  raw.drift = static_cast<float>(line.drift);
  raw.oldest = static_cast<float>(line.oldest);
  raw.full_oldest = static_cast<float>(line.full_oldest);
  raw.score = scores.size();
  raw.line = place;
  for (const auto& [name, value] : line.scores) scores.push_back(value);
  samples.push_back(raw);
}

class InputFile {
 public:
  explicit InputFile(const fs::path& path) : path_(path), fd_(::open(path.c_str(), O_RDONLY | O_CLOEXEC)) {
    if (fd_ < 0) throw DataError(fmt::format("{}: cannot be read: {}", path.string(), std::strerror(errno)));
  }
  ~InputFile() { ::close(fd_); }
  InputFile(const InputFile&) = delete;
  InputFile& operator=(const InputFile&) = delete;

  // Fewer at the end of the file.
  uint64_t read(char* to, uint64_t offset, uint64_t bytes) const {
    uint64_t done = 0;
    while (done < bytes) {
      const ssize_t got = ::pread(fd_, to + done, bytes - done, static_cast<off_t>(offset + done));
      if (got < 0 && errno == EINTR) continue;
      if (got < 0) throw DataError(fmt::format("{}: cannot be read: {}", path_.string(), std::strerror(errno)));
      if (got == 0) break;
      done += static_cast<uint64_t>(got);
    }
    return done;
  }

 private:
  fs::path path_;
  int fd_;
};

// Calls `on_line` with the place of each whole line that begins in [begin, end), in blocks: a line may go beyond the
// end. kPadding bytes are readable behind each line.
void lines_of(const fs::path& path, uint64_t begin, uint64_t end,
              const std::function<void(std::string_view line, uint64_t offset)>& on_line) {
  const InputFile file(path);
  std::string buffer(kBlock + SampleLineReader::kPadding, '\0');
  // The line that goes across `begin` is the range's before.
  bool skip = begin > 0;
  uint64_t offset = begin > 0 ? begin - 1 : 0;
  while (offset < end) {
    uint64_t filled = file.read(buffer.data(), offset, buffer.size() - SampleLineReader::kPadding);
    uint64_t at = 0;
    for (;;) {
      const void* newline = std::memchr(buffer.data() + at, '\n', filled - at);
      if (newline == nullptr) break;
      const auto stop = static_cast<uint64_t>(static_cast<const char*>(newline) - buffer.data());
      if (offset + at >= end) return;
      if (!skip) on_line({buffer.data() + at, stop - at}, offset + at);
      skip = false;
      at = stop + 1;
    }
    if (filled < buffer.size() - SampleLineReader::kPadding) return;  // a torn last line
    if (at == 0) buffer.resize(2 * buffer.size());
    offset += at;
  }
}

std::string place_of(const fs::path& path, uint64_t offset) {
  int64_t number = 1;
  lines_of(path, 0, offset, [&](std::string_view, uint64_t) { ++number; });
  return fmt::format("{}:{}", path.string(), number);
}

void read_range(const fs::path& path, bool baseline, uint32_t file, uint64_t begin, uint64_t end, Part& part) {
  lines_of(path, begin, end, [&](std::string_view line, uint64_t offset) {
    if (baseline && !is_baseline_sample(line)) return;
    const SampleLine* read = part.reader.read(line);
    if (read == nullptr) {
      const std::string place = place_of(path, offset);
      sample_from_json(std::string(line), place);
      throw DataError(fmt::format("{}: not a line of samples", place));
    }
    part.add(*read, {offset, static_cast<uint32_t>(line.size()), file});
  });
}

std::vector<fs::path> sample_files(const fs::path& directory) {
  std::vector<fs::path> files;
  std::error_code ignored;
  if (fs::exists(directory / "samples.jsonl", ignored)) files.push_back(directory / "samples.jsonl");
  for (const Shard& shard : shards_in(directory, "samples")) files.push_back(directory / shard.file("samples"));
  return files;
}

}  // namespace

class ResultsReader {
 public:
  ResultsReader(const fs::path& path, int threads);
  Results read() &&;

 private:
  struct Gathered {
    const Part* part;
    const RawSample* raw;
  };

  void read_parts();
  void merge_items();
  void gather();
  void add_point(const std::string& id, std::vector<Gathered> lines);
  void check_same(const Gathered& a, const Gathered& b) const;
  std::vector<Gathered> without_duplicates(std::vector<Gathered> lines) const;
  uint32_t item(const Gathered& line) const { return item_[part_index(line)][line.raw->item]; }
  size_t part_index(const Gathered& line) const { return static_cast<size_t>(line.part - parts_.data()); }

  bool baseline_ = false;
  std::vector<Part> parts_;
  std::vector<std::vector<uint32_t>> item_;  // of a part's items, their index in the results
  Results out_;
};

ResultsReader::ResultsReader(const fs::path& path, int threads) : parts_(static_cast<size_t>(std::max(1, threads))) {
  out_.path_ = path;
}

Results ResultsReader::read() && {
  baseline_ = !fs::is_directory(out_.path_);
  out_.records_ = baseline_ ? read_baseline_records(out_.path_) : read_records(out_.path_);
  std::stable_sort(out_.records_.begin(), out_.records_.end(), before);
  out_.files_ = baseline_ ? std::vector<fs::path>{out_.path_} : sample_files(out_.path_);
  read_parts();
  merge_items();
  gather();
  return std::move(out_);
}

void ResultsReader::read_parts() {
  const size_t threads = parts_.size();
  std::vector<std::thread> workers;
  for (size_t t = 0; t < threads; ++t)
    workers.emplace_back([this, t, threads] {
      try {
        for (uint32_t file = 0; file < out_.files_.size(); ++file) {
          const uint64_t bytes = fs::file_size(out_.files_[file]);
          read_range(out_.files_[file], baseline_, file, bytes * t / threads, bytes * (t + 1) / threads, parts_[t]);
        }
      } catch (...) {
        parts_[t].error = std::current_exception();
      }
    });
  for (std::thread& worker : workers) worker.join();
  for (const Part& part : parts_)
    if (part.error) std::rethrow_exception(part.error);
}

void ResultsReader::merge_items() {
  Interner keys;
  for (Part& part : parts_) {
    std::vector<uint32_t>& mapped = item_.emplace_back();
    for (size_t i = 0; i < part.items.size(); ++i) {
      const uint32_t id = keys(part.item_keys.name(i));
      if (id == out_.items_.size()) out_.items_.push_back(std::move(part.items[i]));
      mapped.push_back(id);
    }
  }
}

void ResultsReader::gather() {
  std::map<std::string, std::vector<Gathered>> points;
  for (const Part& part : parts_) {
    std::vector<std::vector<Gathered>*> lists;
    for (size_t i = 0; i < part.points.size(); ++i) lists.push_back(&points[part.points.name(i)]);
    for (const RawSample& raw : part.samples) lists[raw.point]->push_back({&part, &raw});
  }
  for (auto& [id, lines] : points) {
    add_point(id, std::move(lines));
    lines = {};
  }
}

void ResultsReader::check_same(const Gathered& a, const Gathered& b) const {
  const size_t n = a.part->metric_sets[a.raw->metrics].size();
  const double *one = a.part->scores.data() + a.raw->score, *other = b.part->scores.data() + b.raw->score;
  if (item(a) == item(b) && a.part->metric_sets[a.raw->metrics] == b.part->metric_sets[b.raw->metrics] &&
      std::memcmp(one, other, n * sizeof(double)) == 0)
    return;
  const auto place = [&](const Gathered& line) {
    return place_of(out_.files_[line.raw->line.file], line.raw->line.offset);
  };
  throw DataError(fmt::format("{} and {}: sample {} of point {} twice, with different prompts or scores", place(a),
                              place(b), out_.items_[item(a)].sample_id, a.part->points.name(a.raw->point)));
}

// The last line of a sample counts, as in Store.
std::vector<ResultsReader::Gathered> ResultsReader::without_duplicates(std::vector<Gathered> lines) const {
  const auto key = [&](const Gathered& line) {
    return std::tuple(line.raw->index, std::string_view(out_.items_[item(line)].sample_id), line.raw->line.file,
                      line.raw->line.offset);
  };
  std::sort(lines.begin(), lines.end(), [&](const Gathered& a, const Gathered& b) { return key(a) < key(b); });
  std::vector<Gathered> kept;
  for (const Gathered& line : lines) {
    const bool again = !kept.empty() && out_.items_[item(kept.back())].sample_id == out_.items_[item(line)].sample_id;
    if (!again) {
      kept.push_back(line);
      continue;
    }
    check_same(kept.back(), line);
    kept.back() = line;
  }
  return kept;
}

void ResultsReader::add_point(const std::string& id, std::vector<Gathered> lines) {
  lines = without_duplicates(std::move(lines));
  PointSamples& point = out_.samples_[id];
  const auto metrics = [](const Gathered& line) -> const std::vector<std::string>& {
    return line.part->metric_sets[line.raw->metrics];
  };
  const std::vector<std::string> names = metrics(lines.front());
  std::vector<size_t> order(names.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::sort(order.begin(), order.end(), [&](size_t a, size_t b) { return names[a] < names[b]; });
  for (const size_t i : order) point.metrics.push_back(names[i]);
  point.scores.resize(names.size());
  for (auto& column : point.scores) column.reserve(lines.size());
  for (const Gathered& line : lines) {
    const RawSample& raw = *line.raw;
    if (metrics(line) != names)
      throw DataError(fmt::format("{}: its scores are not those of the point's first sample",
                                  place_of(out_.files_[raw.line.file], raw.line.offset)));
    for (size_t i = 0; i < order.size(); ++i) point.scores[i].push_back(line.part->scores[raw.score + order[i]]);
    point.item.push_back(item(line));
    point.kl.push_back(raw.kl);
    point.kl_max.push_back(raw.kl_max);
    point.positions.push_back(raw.positions);
    point.top1_flips.push_back(raw.top1_flips);
    point.first_divergence.push_back(raw.first_divergence);
    point.generated.push_back(raw.generated);
    point.context_tokens.push_back(raw.context_tokens);
    point.drift.push_back(raw.drift);
    point.oldest.push_back(raw.oldest);
    point.full_oldest.push_back(raw.full_oldest);
    point.line.push_back(raw.line);
  }
}

const std::string* Item::tag(std::string_view name) const {
  for (const auto& [key, value] : tags)
    if (key == name) return &value;
  return nullptr;
}

const std::vector<double>* PointSamples::find(std::string_view metric) const {
  const auto at = std::lower_bound(metrics.begin(), metrics.end(), metric);
  return at == metrics.end() || *at != metric ? nullptr : &scores[static_cast<size_t>(at - metrics.begin())];
}

const PointSamples* Results::samples(const std::string& point_id) const {
  const auto at = samples_.find(point_id);
  return at == samples_.end() ? nullptr : &at->second;
}

SampleRecord Results::read_sample(const LinePlace& place) const {
  const fs::path& path = files_.at(place.file);
  std::string line(place.bytes, '\0');
  if (InputFile(path).read(line.data(), place.offset, place.bytes) != place.bytes)
    throw DataError(fmt::format("{}: has become shorter since it was read", path.string()));
  return sample_from_json(line, fmt::format("{} at byte {}", path.string(), place.offset));
}

Results read_results(const fs::path& path, int threads) {
  return ResultsReader(path, threads).read();
}

bool before(const Record& a, const Record& b) {
  const auto texts = [](const Record& r) { return std::tie(r.point.model, r.point.task, r.point.task_version); };
  if (texts(a) != texts(b)) return texts(a) < texts(b);
  if (const int order = compare(a.point.task_params, b.point.task_params); order != 0) return order < 0;
  if (const int order = natural_compare(a.point.view, b.point.view); order != 0) return order < 0;
  if (a.point.seed != b.point.seed) return a.point.seed < b.point.seed;
  const auto scheme = [](const Record& r) {
    return std::tuple(r.id != r.reference_id, std::string_view(r.point.scheme), r.nominal_k_bits, r.nominal_v_bits);
  };
  if (scheme(a) != scheme(b)) return scheme(a) < scheme(b);
  if (const int order = compare(a.point.scheme_params, b.point.scheme_params); order != 0) return order < 0;
  return a.id < b.id;
}

}  // namespace kvsweep
