#pragma once

#include <filesystem>
#include <string>

#include "models/llama_config.h"

namespace kvsweep::testing {

// A config whose vocabulary is the 256 bytes and one end token: small enough for a sweep in a second.
LlamaConfig byte_model_config();

// Writes a Hugging Face directory with random weights of byte_model_config() and a byte-level tokenizer: a real model
// file for tests that start the program. broken: a tensor whose first value is NaN.
void write_model_directory(const std::filesystem::path& directory, uint64_t seed = 1, const std::string& broken = "");

}  // namespace kvsweep::testing
