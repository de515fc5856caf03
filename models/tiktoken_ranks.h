#pragma once

#include <string>
#include <string_view>

#include "models/tokenizer_bpe.h"

namespace kvsweep {

// True when a tokenizer.model file holds tiktoken's ranks: lines of base64 and a number. A SentencePiece model is
// binary.
bool is_tiktoken_ranks(std::string_view content);

// Llama-3's vocabulary from its rank file, with the 256 special tokens that follow the ranks (names and order from
// meta-llama/llama-models, models/llama3/tokenizer.py). Throws DataError that names place (the file) and line.
BpeVocabulary read_llama3_ranks(std::string_view content, const std::string& place);

}  // namespace kvsweep
