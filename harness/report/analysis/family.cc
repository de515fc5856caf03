#include "harness/report/analysis/family.h"

#include <fmt/format.h>

#include <charconv>
#include <optional>

#include "harness/report/analysis/analysis.h"

namespace kvsweep {
namespace {

using Members = std::vector<const Record*>;

const std::string* find(const Fields& params, const std::string& key) {
  for (const auto& [name, value] : params)
    if (name == key) return &value;
  return nullptr;
}

std::optional<double> as_number(const std::string& text) {
  double value = 0;
  const char* end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, value);
  if (error != std::errc() || stop != end) return std::nullopt;
  return value;
}

bool names_bits(const Members& members, const std::string& key, double Record::*bits) {
  std::map<double, std::string> text_of;
  for (const Record* record : members) {
    const std::string* value = find(record->point.scheme_params, key);
    if (value == nullptr) continue;
    const double own = record->*bits;
    const std::optional<double> number = as_number(*value);
    if (number ? *number != own : text_of.try_emplace(own, *value).first->second != *value) return false;
  }
  return true;
}

bool differs(const Members& members, const std::string& key) {
  std::set<std::string> values;
  for (const Record* record : members)
    if (const std::string* value = find(record->point.scheme_params, key)) values.insert(*value);
  return values.size() > 1;
}

}  // namespace

Families::Families(const std::vector<Record>& records) {
  std::map<std::string, Members> schemes;
  for (const Record& record : records)
    if (record.status != "failed") schemes[record.point.scheme].push_back(&record);
  for (const auto& [scheme, members] : schemes) {
    std::set<std::string> keys;
    for (const Record* record : members)
      for (const auto& [key, unused] : record->point.scheme_params) keys.insert(key);
    for (const std::string& key : keys)
      if (differs(members, key) && !names_bits(members, key, &Record::nominal_k_bits) &&
          !names_bits(members, key, &Record::nominal_v_bits))
        shown_[scheme].insert(key);
  }
}

std::string Families::family(const Record& record) const {
  std::string out = record.point.scheme;
  const auto shown = shown_.find(record.point.scheme);
  if (shown == shown_.end()) return out;
  for (const auto& [key, value] : record.point.scheme_params)
    if (shown->second.contains(key)) out += fmt::format(" {}={}", key, value);
  return out;
}

std::string Families::configuration(const Record& record) const {
  if (record.status == "failed") return configuration_of(record);
  return family(record) + " " + bits_text(record.nominal_k_bits, record.nominal_v_bits);
}

std::string bits_text(double k_bits, double v_bits) {
  return fmt::format("K{:g} V{:g}", k_bits, v_bits);
}

}  // namespace kvsweep
