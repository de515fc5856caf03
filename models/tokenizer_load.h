#pragma once

#include <filesystem>
#include <memory>
#include <optional>

#include "harness/core/tokenizer.h"
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

}  // namespace kvsweep
