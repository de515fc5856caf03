#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "harness/core/tokenizer.h"
#include "models/added_tokens.h"
#include "models/chat_template.h"
#include "models/gguf.h"

namespace kvsweep {

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

// The same from an open file. A file without add_bos_token gets BOS for "llama" and for "llama-bpe", as in llama.cpp.
std::unique_ptr<Tokenizer> load_gguf_tokenizer(const GgufFile& file);

// tokenizer.chat_template; nothing when the file has none.
std::optional<ChatTemplate> load_gguf_chat_template(const GgufFile& file);

}  // namespace kvsweep
