#include "harness/report/tables/cells.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "harness/report/analysis/key_or_value.h"
#include "harness/report/statistics/power.h"
#include "harness/report/statistics/proportion.h"

namespace kvsweep {
namespace {

constexpr int kRatioDecimals = 4;
constexpr double kSmallestP = 1e-4;
constexpr double kRounding = 1e-6;  // errors below are what rounding leaves of none

std::string latex_number(const std::string& text) {
  return text.find_first_not_of("+-0123456789.e") == std::string::npos ? "\\num{" + text + "}" : latex_escaped(text);
}

Cell with_ends(const std::string& value, const std::string& low, const std::string& high, bool is_strong) {
  Cell cell;
  cell.text = fmt::format("{} [{}, {}]", value, low, high);
  cell.latex = fmt::format("{} {{[}}{}, {}{{]}}", latex_number(value), latex_number(low), latex_number(high));
  cell.strong = is_strong;
  return cell;
}

}  // namespace

std::string fixed(double value, int decimals, bool sign) {
  if (std::isnan(value)) return "nan";
  return sign ? fmt::format("{:+.{}f}", value, decimals) : fmt::format("{:.{}f}", value, decimals);
}

std::string significant(double value) {
  return std::isnan(value) ? "nan" : fmt::format("{:#.3g}", value);
}

std::string exact(double value) {
  return std::isnan(value) ? "nan" : fmt::format("{}", value);
}

std::string exact(const std::optional<double>& value) {
  return value ? exact(*value) : "";
}

std::string derived(double value) {
  return std::isnan(value) ? "nan" : fmt::format("{:.12g}", value);
}

std::string derived(const std::optional<double>& value) {
  return value ? derived(*value) : "";
}

Cell text_cell(std::string text) {
  Cell cell;
  cell.text = std::move(text);
  return cell;
}

Cell number_cell(std::string number) {
  Cell cell;
  cell.number = number.find_first_of("0123456789") != std::string::npos;
  cell.text = std::move(number);
  return cell;
}

Cell missing_cell() {
  return text_cell(kNone);
}

Cell interval_cell(double value, const Interval& interval, int decimals, bool sign, bool is_strong) {
  const std::string text = fixed(value, decimals, sign);
  if (std::isnan(interval.low)) {
    Cell cell = text_cell(text);
    cell.latex = latex_number(text);
    cell.strong = is_strong;
    return cell;
  }
  return with_ends(text, fixed(interval.low, decimals), fixed(interval.high, decimals), is_strong);
}

Cell ratio_cell(double value, const Interval& interval, bool is_strong) {
  return interval_cell(value, interval, kRatioDecimals, false, is_strong);
}

Cell error_cell(double value, const std::optional<double>& standard_error, int decimals, bool sign) {
  const std::string text = fixed(value, decimals, sign);
  Cell cell = text_cell(text);
  cell.latex = latex_number(text);
  if (!standard_error) return cell;
  const std::string error = fixed(*standard_error, decimals);
  cell.text += "±" + error;
  const bool numbers = std::isfinite(value) && std::isfinite(*standard_error);
  cell.latex = numbers ? fmt::format("\\num{{{} \\pm {}}}", text, error) : latex_escaped(cell.text);
  return cell;
}

void Decimals::add(double standard_error) {
  if (standard_error > kRounding) smallest_ = std::min(smallest_, standard_error);
}

int Decimals::count() const {
  return std::clamp(1 - static_cast<int>(std::floor(std::log10(smallest_))), 3, 5);
}

std::optional<double> seen(const Comparison& comparison) {
  // Errors that rounding leaves of none say nothing.
  if (comparison.not_numbers > 0 || !(comparison.detectable > kRounding)) return std::nullopt;
  return comparison.detectable;
}

Cell loss_cell(const Comparison& comparison, int decimals) {
  if (comparison.not_numbers > 0)
    return text_cell(fmt::format("{} of {} not numbers", comparison.not_numbers, comparison.n));
  if (comparison.ratio) return ratio_cell(*comparison.ratio_value, *comparison.ratio, comparison.significant());
  return interval_cell(comparison.loss, comparison.interval, decimals, true, comparison.significant());
}

Cell seen_cell(const Comparison& comparison, int decimals) {
  const std::optional<double> effect = seen(comparison);
  if (!effect) return missing_cell();
  return number_cell(comparison.exponential ? fixed(std::exp(*effect), kRatioDecimals) : fixed(*effect, decimals));
}

Cell loss_cell_alone(const Comparison& comparison, int decimals) {
  Cell cell = loss_cell(comparison, decimals);
  if (comparison.not_numbers > 0 || comparison.significant()) return cell;
  const std::string effect = " ~" + seen_cell(comparison, decimals).text;
  cell.text += effect;
  cell.latex += latex_escaped(effect);
  return cell;
}

std::string p_text(double p) {
  if (std::isnan(p)) return kNone;
  return p < kSmallestP ? fmt::format("<{:.4f}", kSmallestP) : fmt::format("{:.4f}", p);
}

std::string verdict_text(const Comparison& comparison) {
  if (comparison.not_numbers > 0) return "not numbers";
  if (std::isnan(comparison.p_adjusted)) return "no answer";
  if (!comparison.significant()) return "not shown";
  return comparison.loss > 0 ? "worse" : "better";
}

}  // namespace kvsweep
