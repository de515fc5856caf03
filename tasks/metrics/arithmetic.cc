#include "tasks/metrics/arithmetic.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace kvsweep {
namespace {

constexpr size_t kLongestRun = 200;  // tokens of one calculation; more is no calculation

struct Token {
  enum class Kind { kNumber, kOperator, kOpen, kClose, kEquals, kOther };
  Kind kind = Kind::kOther;
  char op = 0;       // + - * /
  double value = 0;  // of a number, "%" applied
  int decimals = 0;  // written ones
  bool percent = false;
};
using Kind = Token::Kind;

bool digit(char c) {
  return c >= '0' && c <= '9';
}

// Operators by their text, longest first where one begins another.
constexpr std::pair<std::string_view, char> kOperators[] = {{"\xe2\x88\x92", '-'},
                                                            {"\xe2\x88\x97", '*'},
                                                            {"\xc3\x97", '*'},
                                                            {"\xc3\xb7", '/'},
                                                            {"\xc2\xb7", '*'},
                                                            {"+", '+'},
                                                            {"-", '-'},
                                                            {"*", '*'},
                                                            {"/", '/'},
                                                            {"x", '*'},
                                                            {"X", '*'}};

class Scanner {
 public:
  explicit Scanner(std::string_view text) : text_(text) {}
  std::vector<Token> tokens() {
    std::vector<Token> out;
    while (at_ < text_.size()) {
      const char c = text_[at_];
      if (c == ' ' || c == '\t' || c == '$') {
        ++at_;
      } else if (digit(c) || (c == '.' && at_ + 1 < text_.size() && digit(text_[at_ + 1]))) {
        out.push_back(number());
      } else {
        out.push_back(sign());
      }
    }
    return out;
  }

 private:
  Token number() {
    std::string digits;
    while (at_ < text_.size() && (digit(text_[at_]) || thousands_comma())) {
      if (text_[at_] != ',') digits += text_[at_];
      ++at_;
    }
    Token token{.kind = Kind::kNumber};
    if (at_ + 1 < text_.size() && text_[at_] == '.' && digit(text_[at_ + 1])) {
      digits += text_[at_++];
      for (; at_ < text_.size() && digit(text_[at_]); ++at_, ++token.decimals) digits += text_[at_];
    }
    if (digits.front() == '.') digits.insert(0, 1, '0');
    std::from_chars(digits.data(), digits.data() + digits.size(), token.value);
    if (at_ < text_.size() && text_[at_] == '%') {
      token.percent = true;
      token.value /= 100;
      token.decimals += 2;
      ++at_;
    }
    return token;
  }
  bool thousands_comma() const {
    if (text_[at_] != ',' || at_ + 3 >= text_.size()) return false;
    const bool three = digit(text_[at_ + 1]) && digit(text_[at_ + 2]) && digit(text_[at_ + 3]);
    return three && (at_ + 4 == text_.size() || !digit(text_[at_ + 4]));
  }
  Token sign() {
    const char c = text_[at_];
    if (c == '=' || c == '(' || c == ')') {
      ++at_;
      return {.kind = c == '=' ? Kind::kEquals : c == '(' ? Kind::kOpen : Kind::kClose};
    }
    for (const auto& [written, op] : kOperators) {
      if (!text_.substr(at_).starts_with(written)) continue;
      const bool bullet = (at_ == 0 || text_[at_ - 1] == '\n') && (c == '-' || c == '*' || c == '+');
      const bool unknown = (c == 'x' || c == 'X') && (letter(at_ - 1) || !number_follows());
      at_ += written.size();
      if (bullet || unknown) return {};
      return {.kind = Kind::kOperator, .op = op};
    }
    ++at_;
    return {};
  }
  bool number_follows() const {
    const size_t next = text_.find_first_not_of(" \t$(", at_ + 1);
    return next != std::string_view::npos && (digit(text_[next]) || text_[next] == '.');
  }
  bool letter(size_t at) const {  // at may be one before the beginning
    if (at >= text_.size()) return false;
    const char c = text_[at];
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
  }

  std::string_view text_;
  size_t at_ = 0;
};

struct Value {
  double value = 0;
  bool divided = false, calculated = false;
  bool percent = false;  // one number with "%"
  int decimals = 0;      // of one number
};

// expression := term (("+" | "-") term)*; term := factor (("*" | "/") factor)*
class Parser {
 public:
  Parser(const std::vector<Token>& tokens, size_t begin, size_t end) : tokens_(tokens), at_(begin), end_(end) {}
  // The whole range as one calculation, or nothing.
  std::optional<Value> whole() {
    auto value = sum();
    if (!value || at_ != end_) return std::nullopt;
    return value;
  }
  // A number, with or without minus, that the range begins with.
  std::optional<Value> first_number() { return factor_number(); }

 private:
  bool next_is(Kind kind) const { return at_ < end_ && tokens_[at_].kind == kind; }
  bool next_is(char a, char b) const {
    return next_is(Kind::kOperator) && (tokens_[at_].op == a || tokens_[at_].op == b);
  }
  std::optional<Value> factor_number() {
    double sign = 1;
    if (next_is('-', '-')) {
      sign = -1;
      ++at_;
    }
    if (!next_is(Kind::kNumber)) return std::nullopt;
    const Token& token = tokens_[at_++];
    return Value{.value = sign * token.value, .percent = token.percent, .decimals = token.decimals};
  }
  std::optional<Value> factor() {
    if (!next_is(Kind::kOpen)) return factor_number();
    ++at_;
    auto value = sum();
    if (!value || !next_is(Kind::kClose)) return std::nullopt;
    ++at_;
    return value;
  }
  static Value combined(const Value& a, const Value& b, double value) {
    return {.value = value, .divided = a.divided || b.divided, .calculated = true};
  }
  std::optional<Value> product() {
    auto left = factor();
    while (left && next_is('*', '/')) {
      const char op = tokens_[at_++].op;
      const auto right = factor();
      if (!right) return std::nullopt;
      left = combined(*left, *right, op == '*' ? left->value * right->value : left->value / right->value);
      left->divided = left->divided || op == '/';
    }
    return left;
  }
  std::optional<Value> sum() {
    auto left = product();
    while (left && next_is('+', '-')) {
      const char op = tokens_[at_++].op;
      const auto right = product();
      if (!right) return std::nullopt;
      left = combined(*left, *right, op == '+' ? left->value + right->value : left->value - right->value);
    }
    return left;
  }

  const std::vector<Token>& tokens_;
  size_t at_, end_;
};

bool part_of_calculation(const Token& token) {
  return token.kind != Kind::kEquals && token.kind != Kind::kOther;
}

// The calculation that ends before `end` and reaches back to a sign of equality or anything else, less brackets that
// are not closed. Two numbers side by side ("1 1/2", "80 000") are none.
std::optional<Value> calculation_before(const std::vector<Token>& tokens, size_t end) {
  size_t begin = end;
  while (begin > 0 && end - begin < kLongestRun && part_of_calculation(tokens[begin - 1])) --begin;
  for (; begin < end; ++begin) {
    if (auto value = Parser(tokens, begin, end).whole()) return value;
    if (tokens[begin].kind != Kind::kOpen) break;
  }
  return std::nullopt;
}

bool equal(double calculated, bool divided, const Value& written) {
  const double tolerance = written.decimals > 0 ? 0.5 * std::pow(10, -written.decimals) : divided ? 0.5 : 0;
  return std::abs(calculated - written.value) <= tolerance * (1 + 1e-9) + 1e-6 * std::abs(written.value);
}

// Whether what stands from `begin` on is the result; nothing when it is no result: "3 * 30 = 30 + M", "= 3 1/2".
std::optional<bool> right_result(const Value& calculated, const std::vector<Token>& tokens, size_t begin) {
  const auto number = Parser(tokens, begin, tokens.size()).first_number();
  if (!number) return std::nullopt;
  if (equal(calculated.value, calculated.divided, *number)) return true;
  Value hundredfold = *number;  // "20 / 100 * 100 = 20%"
  hundredfold.value *= 100;
  hundredfold.decimals = std::max(0, number->decimals - 2);
  if (number->percent && equal(calculated.value, calculated.divided, hundredfold)) return true;
  size_t end = begin;
  while (end < tokens.size() && end - begin < kLongestRun && part_of_calculation(tokens[end])) ++end;
  while (end > begin && (tokens[end - 1].kind == Kind::kOpen || tokens[end - 1].kind == Kind::kClose)) --end;
  const auto whole = Parser(tokens, begin, end).whole();
  if (!whole) return std::nullopt;
  return whole->calculated && equal(calculated.value, true, {.value = whole->value, .decimals = 6});
}

}  // namespace

Arithmetic check_arithmetic(std::string_view text) {
  const std::vector<Token> tokens = Scanner(text).tokens();
  Arithmetic out;
  for (size_t i = 0; i < tokens.size(); ++i) {
    if (tokens[i].kind != Kind::kEquals) continue;
    const auto calculated = calculation_before(tokens, i);
    if (!calculated || !calculated->calculated) continue;
    const auto right = right_result(*calculated, tokens, i + 1);
    if (!right) continue;
    ++out.steps;
    out.errors += *right ? 0 : 1;
  }
  return out;
}

}  // namespace kvsweep
