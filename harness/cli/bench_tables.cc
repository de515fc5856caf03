#include "harness/cli/bench_tables.h"

#include <fmt/format.h>

#include <cmath>

namespace kvsweep {
namespace {

constexpr double kNsInMs = 1e6;
using Cells = std::vector<std::string>;

std::string mib(int64_t bytes) {
  return fmt::format("{:.2f}", static_cast<double>(bytes) / (1 << 20));
}

std::string number(double value, int decimals) {
  return std::isnan(value) ? "-" : fmt::format("{:.{}f}", value, decimals);
}

std::string quartiles(const Timing& time) {
  return fmt::format("{:.2f}-{:.2f}", time.low, time.high);
}

// A coefficient of a fit in other units, with its standard error.
std::string with_error(const Fit& fit, size_t at, double factor, int decimals) {
  return number(factor * fit.coefficients[at], decimals) + "±" + number(factor * fit.standard_error(at), decimals);
}

void append(Cells& row, const Timing& time) {
  row.push_back(number(time.median, 2));
  row.push_back(quartiles(time));
}

}  // namespace

TextTable encode_table(const EncodeBench& bench, const std::vector<BenchRow>& rows) {
  TextTable table{{{"scheme", true},
                   {"encode ms"},
                   {"encode quartiles"},
                   {"of prefill %"},
                   {"encode ns/value"},
                   {"decode ms"},
                   {"decode quartiles"},
                   {"decode ns/value"},
                   {"eff. bits"},
                   {"live MiB"},
                   {"reserved MiB"},
                   {"transient MiB"},
                   {"shared MiB"},
                   {"parameters", true}},
                  {}};
  const double ns = kNsInMs / static_cast<double>(bench.values);
  for (size_t i = 0; i < rows.size(); ++i) {
    const EncodeCost& cost = bench.costs[i];
    Cells row = {rows[i].scheme};
    append(row, cost.encode_ms);
    row.push_back(number(100 * cost.encode_ms.median / bench.prefill_ms.median, 1));
    row.push_back(number(ns * cost.encode_ms.median, 2));
    append(row, cost.read_ms);
    row.push_back(number(ns * cost.read_ms.median, 2));
    row.push_back(number(cost.bytes.bits, 3));
    for (const int64_t bytes : {cost.bytes.live, cost.bytes.reserved, cost.bytes.transient, cost.bytes.shared})
      row.push_back(mib(bytes));
    row.push_back(rows[i].parameters);
    table.rows.push_back(std::move(row));
  }
  return table;
}

TextTable decode_table(const std::vector<DecodeBench>& benches, const std::vector<BenchRow>& rows) {
  TextTable table{{{"scheme", true},
                   {"tokens"},
                   {"attention ms"},
                   {"quartiles"},
                   {"ns/token/head"},
                   {"path", true},
                   {"eff. bits"},
                   {"live MiB"},
                   {"reserved MiB"},
                   {"transient MiB"},
                   {"parameters", true}},
                  {}};
  for (size_t i = 0; i < rows.size(); ++i)
    for (const DecodeBench& bench : benches) {
      const DecodeCost& cost = bench.costs[i];
      Cells row = {rows[i].scheme, fmt::to_string(bench.tokens)};
      append(row, cost.attend_ms);
      row.push_back(number(cost.ns_per_token_head, 2));
      row.push_back(path_name(cost.fused));
      row.push_back(number(cost.bytes.bits, 3));
      for (const int64_t bytes : {cost.bytes.live, cost.bytes.reserved, cost.bytes.transient})
        row.push_back(mib(bytes));
      row.push_back(rows[i].parameters);
      table.rows.push_back(std::move(row));
    }
  return table;
}

TextTable itl_table(const std::vector<ItlCost>& costs, const std::vector<BenchRow>& rows) {
  TextTable table{{{"scheme", true},
                   {"tokens"},
                   {"itl ms"},
                   {"itl quartiles"},
                   {"attention ms"},
                   {"attention quartiles"},
                   {"path", true},
                   {"parameters", true}},
                  {}};
  for (size_t i = 0; i < rows.size(); ++i)
    for (const ItlLength& length : costs[i].lengths) {
      Cells row = {rows[i].scheme, fmt::to_string(length.tokens)};
      append(row, length.itl_ms);
      append(row, length.attend_ms);
      row.push_back(path_name(costs[i].fused));
      row.push_back(rows[i].parameters);
      table.rows.push_back(std::move(row));
    }
  return table;
}

TextTable itl_fit_table(const std::vector<ItlCost>& costs, const std::vector<BenchRow>& rows) {
  TextTable table{{{"scheme", true},
                   {"intercept ms"},
                   {"slope ns/token"},
                   {"of it attention"},
                   {"equals full at"},
                   {"path", true},
                   {"eff. bits"},
                   {"parameters", true}},
                  {}};
  for (size_t i = 0; i < rows.size(); ++i)
    table.rows.push_back({rows[i].scheme, with_error(costs[i].itl, 0, 1, 2), with_error(costs[i].itl, 1, kNsInMs, 0),
                          with_error(costs[i].attend, 1, kNsInMs, 0), number(costs[i].break_even, 0),
                          path_name(costs[i].fused), number(costs[i].bytes.bits, 3), rows[i].parameters});
  return table;
}

TextTable concurrency_table(const std::vector<ConcurrencyCost>& costs, const std::vector<BenchRow>& rows,
                            int64_t tokens) {
  TextTable table{{{"scheme", true},
                   {"MiB/sequence"},
                   {"sequences"},
                   {"tokens held"},
                   {"rows run", true},
                   {"step ms"},
                   {"quartiles"},
                   {"tokens/s"},
                   {"path", true},
                   {"eff. bits"},
                   {"parameters", true}},
                  {}};
  for (size_t i = 0; i < rows.size(); ++i) {
    const ConcurrencyCost& cost = costs[i];
    Cells row = {rows[i].scheme, mib(cost.bytes_per_sequence), fmt::to_string(cost.sequences),
                 fmt::to_string(cost.sequences * tokens),
                 cost.rows < cost.sequences ? fmt::format("{} (capped)", cost.rows) : fmt::to_string(cost.rows)};
    if (cost.rows > 0) {
      append(row, cost.step_ms);
      row.push_back(number(cost.tokens_per_second, 1));
      row.push_back(path_name(cost.fused));
    } else {
      row.insert(row.end(), 4, "-");
    }
    row.push_back(number(cost.bytes.bits, 3));
    row.push_back(rows[i].parameters);
    table.rows.push_back(std::move(row));
  }
  return table;
}

TextTable one_pass_table(const std::vector<OnePassCost>& costs, const std::vector<BenchRow>& rows) {
  TextTable table{{{"scheme", true},
                   {"one pass s"},
                   {"token by token s"},
                   {"ratio"},
                   {"mean NLL difference"},
                   {"largest of a token"},
                   {"path", true},
                   {"parameters", true}},
                  {}};
  for (size_t i = 0; i < rows.size(); ++i) {
    const OnePassCost& cost = costs[i];
    table.rows.push_back({rows[i].scheme, number(cost.one_pass_ms / 1000, 2), number(cost.streamed_ms / 1000, 2),
                          number(cost.streamed_ms / cost.one_pass_ms, 1), fmt::format("{:+.2e}", cost.mean_difference),
                          fmt::format("{:.2e}", cost.largest_difference), path_name(cost.fused), rows[i].parameters});
  }
  return table;
}

TextTable factorial_table(const BitFactorial& bench) {
  TextTable table{{{"K"},
                   {"V"},
                   {"K eff. bits"},
                   {"V eff. bits"},
                   {"intercept ms"},
                   {"slope ns/token"},
                   {"attention ns/token"},
                   {"path", true}},
                  {}};
  for (const BitFactorial::Point& point : bench.points)
    table.rows.push_back({fmt::to_string(point.k_bits), fmt::to_string(point.v_bits),
                          number(point.cost.bytes.key_bits, 3), number(point.cost.bytes.value_bits, 3),
                          with_error(point.cost.itl, 0, 1, 2), with_error(point.cost.itl, 1, kNsInMs, 0),
                          with_error(point.cost.attend, 1, kNsInMs, 0), path_name(point.cost.fused)});
  return table;
}

TextTable factorial_fit_table(const BitFactorial& bench) {
  TextTable table{{{"slope of", true}, {"c0 ns/token"}, {"cK ns/token/bit"}, {"cV ns/token/bit"}, {"cK-cV"}, {"cK/cV"}},
                  {}};
  for (const auto& [name, fit] : {std::pair{"itl", &bench.itl}, std::pair{"attention", &bench.attend}}) {
    Cells row = {name};
    for (size_t at = 0; at < 3; ++at) row.push_back(with_error(*fit, at, kNsInMs, 2));
    row.push_back(number(kNsInMs * (fit->coefficients[1] - fit->coefficients[2]), 2) + "±" +
                  number(kNsInMs * fit->difference_error(1, 2), 2));
    row.push_back(number(fit->coefficients[1] / fit->coefficients[2], 2));
    table.rows.push_back(std::move(row));
  }
  return table;
}

}  // namespace kvsweep
