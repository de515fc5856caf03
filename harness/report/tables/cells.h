#pragma once

#include <optional>
#include <string>

#include "harness/report/analysis/comparison.h"
#include "harness/report/record.h"
#include "harness/report/tables/table.h"

namespace kvsweep {

inline constexpr const char* kNone = "-";

// "nan", whose sign means nothing, or the number with so many decimals.
std::string fixed(double value, int decimals, bool sign = false);
// Three significant digits: "0.0682", "6.00e-05".
std::string significant(double value);
// For CSV: the shortest text that reads back as the number; "" for none.
std::string exact(double value);
std::string exact(const std::optional<double>& value);
// For CSV, of what statistics, exp() and the like made, whose last digits differ between machines: to 12 digits.
std::string derived(double value);
std::string derived(const std::optional<double>& value);

Cell text_cell(std::string text);
Cell number_cell(std::string number);  // "nan" and kNone are texts
Cell missing_cell();

// "+0.0750 [-0.0120, 0.1710]"; NaN ends: the value alone.
Cell interval_cell(double value, const Interval& interval, int decimals, bool sign, bool is_strong = false);
// "1.123 [1.096, 1.150]"
Cell ratio_cell(double value, const Interval& interval, bool is_strong = false);
// "0.8000±0.0590"
Cell error_cell(double value, const std::optional<double>& standard_error, int decimals, bool sign);

// Decimals that show two digits of the smallest standard error of a column, 3 to 5. Errors below 1e-6 are what rounding
// leaves of none.
class Decimals {
 public:
  void add(double standard_error);
  int count() const;

 private:
  double smallest_ = 1;
};

// The smallest loss that a comparison would have seen; none where there is no spread to judge by.
std::optional<double> seen(const Comparison& comparison);

// A loss as every table shows it: a difference with its interval, or of an exponential metric the ratio; strong when
// significant.
Cell loss_cell(const Comparison& comparison, int decimals);
// The same where there is no column beside it for what would have been seen: " ~0.071" behind one that is not shown.
Cell loss_cell_alone(const Comparison& comparison, int decimals);
// What would have been seen, in the same units as the loss.
Cell seen_cell(const Comparison& comparison, int decimals);
// "0.0386", "<0.0001"; p adjusted
std::string p_text(double p);

// "worse", "better", "not shown", or what there is no answer for.
std::string verdict_text(const Comparison& comparison);

}  // namespace kvsweep
