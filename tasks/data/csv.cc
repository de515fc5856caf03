#include "tasks/data/csv.h"

#include <fmt/format.h>

#include <string_view>

#include "harness/core/error.h"
#include "tasks/data/locate.h"

namespace kvsweep {
namespace {

class Reader {
 public:
  Reader(const std::filesystem::path& file, std::string_view text) : file_(file), text_(text) {
    if (text_.starts_with("\xef\xbb\xbf")) text_.remove_prefix(3);  // a byte order mark
  }

  std::vector<CsvRow> rows(int64_t columns) {
    std::vector<CsvRow> out;
    while (at_ < text_.size()) {
      if (end_of_line()) {
        next_line();
        continue;
      }
      out.push_back(row());
      const int64_t count = std::ssize(out.back().fields);
      if (columns > 0 && count != columns) fail(out.back().line, fmt::format("{} fields, expected {}", count, columns));
    }
    return out;
  }

 private:
  [[noreturn]] void fail(int64_t line, const std::string& why) const {
    throw DataError(fmt::format("{}:{}: {}", file_.string(), line, why));
  }
  bool end_of_line() const {
    return at_ == text_.size() || text_[at_] == '\n' || text_.substr(at_).starts_with("\r\n");
  }
  void next_line() {
    at_ = std::min(text_.find('\n', at_), text_.size() - 1) + 1;
    ++line_;
  }
  CsvRow row() {
    CsvRow out;
    out.line = line_;
    while (true) {
      out.fields.push_back(at_ < text_.size() && text_[at_] == '"' ? quoted() : plain());
      if (end_of_line()) break;
      ++at_;  // the comma
    }
    next_line();
    return out;
  }
  std::string plain() {
    const size_t start = at_;
    while (!end_of_line() && text_[at_] != ',') ++at_;
    return std::string(text_.substr(start, at_ - start));
  }
  std::string quoted() {
    const int64_t begin = line_;
    std::string field;
    for (++at_; at_ < text_.size(); ++at_) {
      if (text_[at_] == '\n') ++line_;
      if (text_[at_] != '"') {
        field += text_[at_];
        continue;
      }
      ++at_;
      if (at_ < text_.size() && text_[at_] == '"') {
        field += '"';
        continue;
      }
      if (!end_of_line() && text_[at_] != ',')
        fail(line_, "text behind a closing quote; expected a comma or the line's end");
      return field;
    }
    fail(begin, "a quote that is not closed");
  }

  const std::filesystem::path& file_;
  std::string_view text_;
  size_t at_ = 0;
  int64_t line_ = 1;
};

}  // namespace

std::vector<CsvRow> read_csv(const std::filesystem::path& file, int64_t columns) {
  const std::string text = read_utf8(file);
  return Reader(file, text).rows(columns);
}

}  // namespace kvsweep
