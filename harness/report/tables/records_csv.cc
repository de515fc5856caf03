#include "harness/report/tables/records_csv.h"

#include <fmt/format.h>

#include <utility>

#include "harness/report/shown.h"
#include "harness/report/tables/cells.h"

namespace kvsweep {
namespace {

// A record as (column, cell) pairs; the columns are the same for every record.
using Cells = std::vector<std::pair<const char*, std::string>>;

std::string params(const Fields& fields) {
  std::string out;
  for (const auto& [key, value] : fields) out += (out.empty() ? "" : " ") + key + "=" + value;
  return out;
}

void add_point(Cells& cells, const Record& record) {
  const Point& point = record.point;
  cells.insert(cells.end(), {{"id", record.id},
                             {"status", record.status},
                             {"error", record.error},
                             {"model", point.model},
                             {"task", point.task},
                             {"task_version", fmt::to_string(point.task_version)},
                             {"task_params", params(point.task_params)},
                             {"tokens", fmt::to_string(point.tokens)},
                             {"view", point.view},
                             {"seed", fmt::to_string(point.seed)},
                             {"scheme", point.scheme},
                             {"scheme_params", params(point.scheme_params)},
                             {"nominal_k_bits", exact(record.nominal_k_bits)},
                             {"nominal_v_bits", exact(record.nominal_v_bits)}});
}

void add_scores(Cells& cells, const Record& record, bool measured) {
  const Shown score = measured ? shown_score(record) : Shown{};
  const std::optional<Shown> delta = measured ? shown_delta(record) : std::nullopt;
  const Summary mean = measured ? record.metrics.at(record.primary_metric) : Summary{};
  const auto if_measured = [&](double value) { return measured ? exact(value) : ""; };
  const auto if_paired = [&](auto value) { return delta ? exact(static_cast<double>(value)) : ""; };
  const Paired paired = record.paired.value_or(Paired{});
  cells.insert(cells.end(),
               {{"n", measured ? fmt::to_string(record.n) : ""},
                {"metric", record.primary_metric},
                {"shown_as", record.metric_info.contains(record.primary_metric) ? record.primary_info().shown_as : ""},
                {"score", measured ? derived(score.value) : ""},
                {"score_se", score.standard_error ? derived(*score.standard_error) : ""},
                {"delta", delta ? derived(delta->value) : ""},
                {"delta_se", delta && delta->standard_error ? derived(*delta->standard_error) : ""},
                {"mean", if_measured(mean.mean)},
                {"mean_se", if_measured(mean.standard_error)},
                {"mean_delta", if_paired(paired.delta)},
                {"mean_delta_se", if_paired(paired.standard_error)},
                {"lost", if_paired(paired.lost)},
                {"gained", if_paired(paired.gained)}});
}

void add_divergence(Cells& cells, const Record& record, bool measured) {
  const auto cell = [&](double value) { return measured && record.kl.n > 0 ? exact(value) : ""; };
  cells.insert(cells.end(), {{"kl", cell(record.kl.mean)},
                             {"kl_se", cell(record.kl.standard_error)},
                             {"kl_p99", cell(record.kl_p99)},
                             {"kl_max", cell(record.kl_max)},
                             {"top1_flips", cell(record.top1_flips.mean)},
                             {"top1_flips_se", cell(record.top1_flips.standard_error)}});
}

void add_costs(Cells& cells, const Record& record, bool measured) {
  const auto real = [&](double value) { return measured ? exact(value) : ""; };
  const auto whole = [&](int64_t value) { return measured ? fmt::to_string(value) : ""; };
  cells.insert(cells.end(), {{"effective_bits", real(record.effective_bits)},
                             {"bytes_per_token", real(record.bytes_per_token)},
                             {"live_bytes", whole(record.bytes.live)},
                             {"reserved_bytes", whole(record.bytes.reserved)},
                             {"shared_bytes", whole(record.bytes.shared)},
                             {"cache_tokens", whole(record.bytes.tokens)},
                             {"compressed_reads", whole(record.compressed_reads)},
                             {"prefill_ms", real(record.prefill_ms)},
                             {"compress_ms", real(record.compress_ms)},
                             {"decode_ms_per_token", exact(record.decode_ms_per_token)},
                             {"path", record.path}});
}

void add_provenance(Cells& cells, const Record& record) {
  const Provenance& env = record.env;
  cells.insert(cells.end(), {{"version", env.version},
                             {"commit", env.commit},
                             {"dirty", env.dirty ? "true" : "false"},
                             {"torch", env.torch},
                             {"device", env.device},
                             {"dtype", env.dtype},
                             {"host", env.host},
                             {"cpu", env.cpu},
                             {"threads", fmt::to_string(env.threads)},
                             {"started_at", env.started_at},
                             {"weights_sha256", env.weights_sha256},
                             {"data_sha256", env.data_sha256}});
}

void add_comparison(Cells& cells, const Row& row) {
  const Comparison none;
  const bool compared = row.loss.has_value();
  const Comparison& c = compared ? *row.loss : none;
  const Interval ends = compared ? c.interval : Interval{};
  const auto real = [&](double value) { return compared ? derived(value) : ""; };
  const auto whole = [&](int64_t value) { return compared ? fmt::to_string(value) : ""; };
  const auto from_exp = [&](bool there, double value) { return there ? derived(value) : ""; };
  cells.insert(cells.end(), {{"task_kind", row.record->task_kind},
                             {"reference_id", row.record->reference_id},
                             {"gap", row.gap},
                             {"score_low", row.score ? derived(row.score->low) : ""},
                             {"score_high", row.score ? derived(row.score->high) : ""},
                             {"paired_n", whole(c.n)},
                             {"unpaired", whole(c.unpaired)},
                             {"not_numbers", whole(c.not_numbers)},
                             {"loss", real(c.loss)},
                             {"loss_se", real(c.standard_error)},
                             {"loss_low", real(ends.low)},
                             {"loss_high", real(ends.high)},
                             {"interval", c.method},
                             {"items_worse", whole(c.lost)},
                             {"items_better", whole(c.gained)},
                             {"p", real(c.p)},
                             {"p_holm", real(c.p_adjusted)},
                             {"detectable", compared ? derived(seen(c)) : ""},
                             {"ratio", from_exp(c.ratio.has_value(), c.ratio_value.value_or(0))},
                             {"ratio_low", from_exp(c.ratio.has_value(), c.ratio.value_or(Interval{}).low)},
                             {"ratio_high", from_exp(c.ratio.has_value(), c.ratio.value_or(Interval{}).high)}});
}

Cells cells_of(const Row& row) {
  const Record& record = *row.record;
  const bool measured = record.status != "failed";
  Cells cells;
  add_point(cells, record);
  add_scores(cells, record, measured);
  add_comparison(cells, row);
  add_divergence(cells, record, measured);
  add_costs(cells, record, measured);
  add_provenance(cells, record);
  return cells;
}

}  // namespace

TextTable records_csv(const TableContext& context) {
  Record nothing;
  nothing.status = "failed";
  Row blank;
  blank.record = &nothing;
  TextTable table;
  for (const auto& [title, unused] : cells_of(blank)) table.columns.push_back({title});
  for (const Group& group : context.analysis.groups()) {
    for (const Row& row : group.rows) {
      if (!context.shows(*row.record)) continue;
      auto& cells = table.rows.emplace_back();
      for (auto& [unused, cell] : cells_of(row)) cells.push_back(std::move(cell));
    }
  }
  return table;
}

}  // namespace kvsweep
