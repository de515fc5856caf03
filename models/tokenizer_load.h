#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "harness/core/tokenizer.h"
#include "models/added_tokens.h"
#include "models/chat_template.h"

namespace kvsweep {

// From a Hugging Face directory (its tokenizer.json, else its tokenizer.model), a tokenizer.json, or a tokenizer.model:
// a SentencePiece model or tiktoken's ranks (Llama-3), told apart by content. BOS, EOS and end-of-turn tokens come from
// tokenizer_config.json and generation_config.json beside it where they are there; else from the tokenizer's own file:
// tokenizer.json names BOS in its post-processor and no EOS, a SentencePiece model names both, and both kinds of
// tokenizer.model are of models that want BOS. Throws DataError that names file, key, what came and what is known.
std::unique_ptr<Tokenizer> load_tokenizer(const std::filesystem::path& path);

// The template of a Hugging Face directory: chat_template.jinja, else tokenizer_config.json; nothing when it has none.
std::optional<ChatTemplate> load_chat_template(const std::filesystem::path& folder);

// The tokenizer.ggml.* keys of a GGUF file.
struct GgufVocabulary {
  std::string model;                 // tokenizer.ggml.model: "gpt2" (byte-level BPE) or "llama" (SentencePiece)
  std::string pre;                   // tokenizer.ggml.pre: "smollm", "gpt-2", "llama-bpe"; read for "gpt2" only
  std::vector<std::string> tokens;   // index is the id
  std::vector<int32_t> token_types;  // 1 normal, 2 unknown, 3 control, 4 user defined, 5 unused, 6 byte
  std::vector<std::string> merges;   // "left right"; read for "gpt2" only
  std::vector<float> scores;         // one a token; read for "llama" only
  bool add_space_prefix = true;      // tokenizer.ggml.add_space_prefix; read for "llama" only
};

// options: tokenizer.ggml.bos_token_id, eos_token_id, add_bos_token and, as end_tokens, eot_token_id and eom_token_id
// where they are there. place: the file, for messages. Throws DataError.
std::unique_ptr<Tokenizer> make_tokenizer(const GgufVocabulary& vocabulary, const TokenizerOptions& options,
                                          const std::string& place);

}  // namespace kvsweep
