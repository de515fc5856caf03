#include "models/tokenizer_load.h"

#include <fmt/format.h>

#include <algorithm>
#include <fstream>
#include <sstream>

#include "harness/core/error.h"
#include "models/tiktoken_ranks.h"
#include "models/tokenizer_bpe.h"
#include "models/tokenizer_json.h"
#include "models/tokenizer_sentencepiece.h"

namespace kvsweep {

namespace {

namespace fs = std::filesystem;

fs::path tokenizer_file(const fs::path& path) {
  if (!fs::is_directory(path)) {
    if (!fs::exists(path)) throw DataError(path.string() + ": no such file or directory");
    return path;
  }
  for (const char* name : {"tokenizer.json", "tokenizer.model"})
    if (fs::exists(path / name)) return path / name;
  throw DataError(path.string() + ": has no tokenizer.json and no tokenizer.model");
}

// The id of a token that tokenizer_config.json names.
std::optional<int32_t> id_of(const std::optional<std::string>& token, const std::vector<std::string>& tokens,
                             const fs::path& path) {
  if (!token) return std::nullopt;
  const auto found = std::find(tokens.begin(), tokens.end(), *token);
  if (found == tokens.end())
    throw DataError(
        fmt::format("{}: has no token '{}', which tokenizer_config.json beside it names", path.string(), *token));
  return static_cast<int32_t>(found - tokens.begin());
}

std::unique_ptr<Tokenizer> load_json(const fs::path& path, const TokenizerSidecars& sidecars) {
  TokenizerJson json = read_tokenizer_json(path);
  const std::optional<int32_t> bos = id_of(sidecars.bos, json.vocabulary.tokens, path);
  const std::optional<int32_t> eos = id_of(sidecars.eos, json.vocabulary.tokens, path);
  TokenizerOptions options{bos ? bos : json.leading_token, eos, false, sidecars.end_tokens};
  options.add_bos = sidecars.add_bos.value_or(json.leading_token.has_value());
  return std::make_unique<BpeTokenizer>(std::move(json.vocabulary), options, path.string());
}

std::unique_ptr<Tokenizer> load_model_file(const fs::path& path, const TokenizerSidecars& sidecars) {
  std::ifstream in(path, std::ios::binary);
  std::ostringstream content;
  content << in.rdbuf();
  if (!in) throw DataError(path.string() + ": cannot be read");
  TokenizerOptions options;
  options.add_bos = sidecars.add_bos.value_or(true);
  options.end_tokens = sidecars.end_tokens;
  if (!is_tiktoken_ranks(content.view()))
    return std::make_unique<SentencePieceTokenizer>(content.view(), std::move(options), path.string());
  BpeVocabulary vocabulary = read_llama3_ranks(content.view(), path.string());
  options.bos = id_of("<|begin_of_text|>", vocabulary.tokens, path);
  options.eos = id_of("<|end_of_text|>", vocabulary.tokens, path);
  return std::make_unique<BpeTokenizer>(std::move(vocabulary), options, path.string());
}

}  // namespace

std::unique_ptr<Tokenizer> load_tokenizer(const fs::path& path) {
  const fs::path file = tokenizer_file(path);
  const TokenizerSidecars sidecars = read_tokenizer_sidecars(file.parent_path());
  const std::string kind = file.extension().string();
  if (kind == ".json") return load_json(file, sidecars);
  if (kind == ".model") return load_model_file(file, sidecars);
  throw DataError(file.string() + ": is no tokenizer file; known are tokenizer.json and tokenizer.model");
}

std::optional<ChatTemplate> load_chat_template(const fs::path& folder) {
  const TokenizerSidecars sidecars = read_tokenizer_sidecars(folder);
  if (!sidecars.chat_template) return std::nullopt;
  return ChatTemplate(*sidecars.chat_template, sidecars.chat_template_place);
}

}  // namespace kvsweep
