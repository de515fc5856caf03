#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace kvsweep {

// One JSON object of a data file, read by key. Every error is a DataError that begins with place().
class JsonRecord {
 public:
  struct Value;  // the JSON
  JsonRecord(std::shared_ptr<const Value> value, std::string place);

  bool has(const std::string& key) const;  // and is not null
  std::vector<std::string> keys() const;   // in the order of the file
  // Throw when the key is missing (the message names the keys that are there) or holds something else.
  std::string text(const std::string& key) const;
  std::vector<std::string> texts(const std::string& key) const;  // an array of texts; a single text is an array of one
  int64_t integer(const std::string& key) const;
  double number(const std::string& key) const;
  std::vector<JsonRecord> records(const std::string& key) const;  // an array of objects
  JsonRecord record(const std::string& key) const;                // an object
  // Text that must not be empty or white space alone: a reference, a question.
  std::string filled_text(const std::string& key) const;
  std::vector<std::string> filled_texts(const std::string& key) const;  // at least one, none of them empty

  // What a path leads to, as texts: "question", "choices.text", "question.choices.*.label", "options.2". Numbers count
  // into arrays from 0, * is every element. Texts as they are, numbers as JSON writes them, flags as true and false;
  // list: the path ends in an array or passes a *. Throws when it leads nowhere, or to null or an object.
  struct Texts {
    std::vector<std::string> texts;
    bool list = false;
  };
  Texts at(const std::string& path) const;

  // "<file>:<line>" of a line of a JSONL file, "<file>: <key>" within a JSON file.
  const std::string& place() const { return place_; }
  [[noreturn]] void fail(const std::string& key, const std::string& why) const;

 private:
  std::shared_ptr<const Value> value_;
  std::string place_;
};

// One object a line; empty lines are left out. Throws DataError "<file>:<line>: ..." for a line that is not an object
// or not UTF-8, and for a file without any.
std::vector<JsonRecord> read_jsonl(const std::filesystem::path& file);
// A file that is one object.
JsonRecord read_json(const std::filesystem::path& file);

}  // namespace kvsweep
