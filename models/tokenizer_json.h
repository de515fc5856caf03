#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "models/tokenizer_bpe.h"

namespace kvsweep {

// What a Hugging Face tokenizer.json holds.
struct TokenizerJson {
  BpeVocabulary vocabulary;
  std::optional<int32_t> leading_token;  // that its post-processor puts in front of a text: BOS
};

// Reads model.vocab, model.merges (both forms), added_tokens, normalizer, pre_tokenizer and the template of the
// post-processor. Added tokens are matched in the raw text, also those marked "normalized". Throws DataError that names
// file, key, what came and what is known.
TokenizerJson read_tokenizer_json(const std::filesystem::path& path);

// What the files beside a tokenizer say: tokenizer_config.json, generation_config.json, chat_template.jinja. Absent
// files and keys leave fields empty.
struct TokenizerSidecars {
  std::optional<std::string> bos, eos;  // as text
  std::optional<bool> add_bos;
  std::vector<int32_t> end_tokens;  // generation_config.json: eos_token_id
  std::optional<std::string> chat_template;
  std::string chat_template_place;  // file
};

// Throws DataError that names file, key, what came and what is allowed.
TokenizerSidecars read_tokenizer_sidecars(const std::filesystem::path& folder);

}  // namespace kvsweep
