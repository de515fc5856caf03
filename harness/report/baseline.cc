#include "harness/report/baseline.h"

#include <fmt/format.h>

#include <set>

#include "harness/core/error.h"
#include "harness/report/append_file.h"

namespace kvsweep {
namespace {

constexpr std::string_view kHeader = R"({"kvsweep_baseline":)";
constexpr std::string_view kVersion = R"({"kvsweep_baseline":1})";
constexpr std::string_view kSample = R"({"point_id":)";

Record read_record(const std::string& line, const std::string& place, const std::filesystem::path& path) {
  try {
    return record_from_json(line, place);
  } catch (const StaleRecord& stale) {
    throw StaleRecord(stale.fault,
                      fmt::format("a baseline is made again from a run: `kvsweep run <the sweep> --out <a new "
                                  "directory>`, then `kvsweep gate --update-baseline {} <that directory>`",
                                  path.string()),
                      stale.id);
  }
}

}  // namespace

bool is_baseline_sample(std::string_view line) {
  return line.starts_with(kSample);
}

std::vector<Record> read_baseline_records(const std::filesystem::path& path) {
  std::vector<Record> records;
  std::set<std::string> ids;
  bool headed = false;
  std::error_code ignored;
  if (!std::filesystem::exists(path, ignored))
    throw DataError(fmt::format("{}: no such results directory or baseline", path.string()));
  const LineScan scan = scan_lines(path, [&](const std::string& line, const std::string& place) {
    if (!headed && !line.starts_with(kHeader))
      throw DataError(fmt::format("{}: is neither a results directory nor a baseline", path.string()));
    if (!headed && line != kVersion)
      throw DataError(fmt::format("{}: {} is a form of baseline that this program does not know", place, line));
    if (headed && !is_baseline_sample(line)) {
      Record record = read_record(line, place, path);
      if (!ids.insert(record.id).second)
        throw DataError(fmt::format("{}: point {} is here twice ({})", place, record.id, record.point.label()));
      records.push_back(std::move(record));
    }
    headed = true;
  });
  if (scan.torn_bytes > 0) throw DataError(fmt::format("{}: its last line is torn", path.string()));
  if (records.empty()) throw DataError(fmt::format("{}: has no record", path.string()));
  return records;
}

void write_baseline(const std::filesystem::path& path, const std::vector<Record>& records,
                    const std::vector<SampleRecord>& samples) {
  std::string text(kVersion);
  text += '\n';
  for (const Record& record : records) text += to_json_line(record) + '\n';
  for (SampleRecord sample : samples) {
    sample.output.clear();
    sample.output_tokens.clear();
    sample.kl.clear();
    sample.bytes.by_role.clear();
    text += to_json_line(sample) + '\n';
  }
  replace_file(path, text);
}

}  // namespace kvsweep
