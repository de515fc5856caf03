#include "harness/report/analysis/natural_order.h"

#include <algorithm>

namespace kvsweep {
namespace {

int digits_compare(std::string_view a, std::string_view b) {
  const auto significant = [](std::string_view text) {
    text.remove_prefix(std::min(text.find_first_not_of('0'), text.size()));
    return text;
  };
  a = significant(a);
  b = significant(b);
  if (a.size() != b.size()) return a.size() < b.size() ? -1 : 1;
  return a.compare(b);
}

bool is_digit(char c) {
  return c >= '0' && c <= '9';
}

}  // namespace

int natural_compare(std::string_view a, std::string_view b) {
  while (!a.empty() && !b.empty()) {
    if (is_digit(a.front()) && is_digit(b.front())) {
      const auto run = [](std::string_view text) {
        size_t n = 0;
        while (n < text.size() && is_digit(text[n])) ++n;
        return n;
      };
      const size_t na = run(a), nb = run(b);
      if (const int order = digits_compare(a.substr(0, na), b.substr(0, nb)); order != 0) return order;
      a.remove_prefix(na);
      b.remove_prefix(nb);
      continue;
    }
    if (a.front() != b.front()) return a.front() < b.front() ? -1 : 1;
    a.remove_prefix(1);
    b.remove_prefix(1);
  }
  return static_cast<int>(!a.empty()) - static_cast<int>(!b.empty());
}

}  // namespace kvsweep
