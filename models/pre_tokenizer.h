#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace kvsweep {

// Cuts text into the pieces that byte-level merges do not cross. Names are those of GGUF's tokenizer.ggml.pre.
class PreTokenizer {
 public:
  // name: "smollm", "gpt-2" or "llama-bpe". Throws DataError for another one. place: file, for the message.
  PreTokenizer(const std::string& name, const std::string& place);
  ~PreTokenizer();
  PreTokenizer(PreTokenizer&&) noexcept;

  static std::vector<std::string> known_names();

  // Pieces of `text` in order; together they are `text`. Bytes that are not UTF-8 make pieces of their own.
  std::vector<std::string_view> split(std::string_view text) const;

 private:
  struct Regex;
  void split_valid(std::string_view text, std::vector<std::string_view>& pieces) const;

  std::unique_ptr<Regex> regex_;
};

}  // namespace kvsweep
