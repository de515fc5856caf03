#include "harness/report/export/long_csv.h"

#include <fmt/format.h>

#include <cmath>
#include <iterator>
#include <string>
#include <vector>

#include "harness/core/error.h"
#include "harness/report/text_table.h"

namespace kvsweep {
namespace {

constexpr size_t kFlushAt = size_t{1} << 20;

constexpr const char* kHeader =
    "point_id,status,gap,model,task,task_version,task_kind,task_params,tokens,view,seed,scheme,scheme_params,"
    "is_reference,nominal_k_bits,nominal_v_bits,effective_bits,bytes_per_token,commit,sample_id,prompt_hash,tags,"
    "context_tokens,generated_tokens,first_divergence,positions,top1_flips,kl,kl_max,metric,higher_is_better,value\n";
constexpr const char* kNoSample = ",,,,,,,,,,,,,\n";  // cells behind `commit`

std::string joined(const Fields& fields, const char* separator) {
  std::string out;
  for (const auto& [key, value] : fields) out += (out.empty() ? "" : separator) + key + "=" + value;
  return out;
}

std::string without_newline(std::string row) {
  row.pop_back();
  return row;
}

std::string point_cells(const Record& record, const std::string& gap) {
  const Point& p = record.point;
  const bool measured = record.status != "failed";
  const auto number = [&](double value) { return measured ? fmt::format("{}", value) : std::string(); };
  return without_newline(
      csv_row({record.id, record.status, gap, p.model, p.task, fmt::to_string(p.task_version), record.task_kind,
               joined(p.task_params, " "), fmt::to_string(p.tokens), p.view, fmt::to_string(p.seed), p.scheme,
               joined(p.scheme_params, " "), record.id == record.reference_id ? "True" : "False",
               fmt::format("{}", record.nominal_k_bits), fmt::format("{}", record.nominal_v_bits),
               number(record.effective_bits), number(record.bytes_per_token), record.env.commit}));
}

void append(std::string& out, double value) {
  if (std::isnan(value))
    out += "nan";  // whose sign means nothing
  else
    fmt::format_to(std::back_inserter(out), "{}", value);
}

void append_optional(std::string& out, float value) {
  if (!std::isnan(value)) fmt::format_to(std::back_inserter(out), "{}", value);
}

void append_sample(std::string& out, const PointSamples& samples, size_t i) {
  fmt::format_to(std::back_inserter(out), ",{},{},{},{},{},", samples.context_tokens[i], samples.generated[i],
                 samples.first_divergence[i] < 0 ? "" : fmt::to_string(samples.first_divergence[i]),
                 samples.positions[i], samples.top1_flips[i]);
  append_optional(out, samples.kl[i]);
  out += ',';
  append_optional(out, samples.kl_max[i]);
}

// ",exact_match,True," of each metric.
std::vector<std::string> metric_cells(const Record& record, const PointSamples& samples) {
  std::vector<std::string> cells;
  for (const std::string& metric : samples.metrics) {
    const auto info = record.metric_info.find(metric);
    const char* better = info == record.metric_info.end() ? "" : (info->second.higher_is_better ? "True" : "False");
    cells.push_back("," + without_newline(csv_row({metric, better})) + ",");
  }
  return cells;
}

}  // namespace

int64_t write_long_csv(const Results& results, std::ostream& out) {
  std::string text = kHeader;
  int64_t rows = 0;
  const auto flush = [&] {
    out.write(text.data(), static_cast<std::streamsize>(text.size()));
    if (!out.flush()) throw DataError(fmt::format("the table cannot be written (after {} rows)", rows));
    text.clear();
  };
  std::vector<std::string> items(results.items().size());  // made when first needed
  for (const Record& record : results.records()) {
    const PointSamples* samples = results.samples(record.id);
    if (samples == nullptr || samples->size() == 0) {
      text += point_cells(record, record.status == "failed" ? record.error : "no samples") + kNoSample;
      ++rows;
      continue;
    }
    const std::string point = point_cells(record, record.error);
    const std::vector<std::string> metrics = metric_cells(record, *samples);
    for (size_t i = 0; i < samples->size(); ++i) {
      std::string& item = items[samples->item[i]];
      if (item.empty()) {
        const Item& one = results.items()[samples->item[i]];
        item = "," + without_newline(csv_row({one.sample_id, one.prompt_hash, joined(one.tags, ";")}));
      }
      for (size_t m = 0; m < metrics.size(); ++m) {
        text += point;
        text += item;
        append_sample(text, *samples, i);
        text += metrics[m];
        append(text, samples->scores[m][i]);
        text += '\n';
        ++rows;
      }
      if (text.size() > kFlushAt) flush();
    }
  }
  flush();
  return rows;
}

}  // namespace kvsweep
