#include "harness/report/shown.h"

#include <fmt/format.h>

#include <cmath>

#include "harness/core/error.h"

namespace kvsweep {
namespace {

const Summary& primary(const Record& record) {
  const auto at = record.metrics.find(record.primary_metric);
  if (at == record.metrics.end())
    throw DataError(fmt::format("record {}: has no metric '{}'", record.id, record.primary_metric));
  return at->second;
}

}  // namespace

Shown shown_score(const Record& record) {
  const Summary& score = primary(record);
  const double value = record.primary_info().exponential ? std::exp(score.mean) : score.mean;
  if (score.n < 2) return {value, std::nullopt};
  return {value, record.primary_info().exponential ? value * score.standard_error : score.standard_error};
}

std::optional<Shown> shown_delta(const Record& record) {
  if (!record.paired) return std::nullopt;
  const double delta = record.paired->delta, error = record.paired->standard_error;
  Shown shown{delta, error};
  if (record.primary_info().exponential) {
    const double value = std::exp(primary(record).mean);
    shown = {-value * std::expm1(-delta), value * error};
  }
  if (record.n < 2) shown.standard_error.reset();
  return shown;
}

}  // namespace kvsweep
