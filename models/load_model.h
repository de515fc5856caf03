#pragma once

#include <filesystem>
#include <memory>
#include <optional>
#include <string>

#include "harness/core/tokenizer.h"
#include "models/chat_template.h"
#include "models/llama.h"

namespace kvsweep {

// What a model argument names: a model YAML (configs/models/*.yaml), a .gguf file or a Hugging Face directory.
struct ModelSpec {
  std::string name;                                // from the YAML, else the stem of the path
  std::filesystem::path path;                      // .gguf file or directory, as found
  std::optional<std::filesystem::path> tokenizer;  // when it lies elsewhere
  std::optional<std::string> sha256;               // expected, of the GGUF file or of all safetensors
  std::string device = "cpu", dtype;               // dtype "": float32 on CPU, bfloat16 elsewhere
  bool deterministic = true;                       // see ModelOptions; not in the YAML
};

// Finds what `argument` names. A relative `path:` in a YAML is looked up beside the YAML, in $KVSWEEP_MODELS and in the
// user's cache (<cache>/kvsweep/models). Throws ConfigError or DataError that lists where it was looked for.
ModelSpec resolve_model(const std::string& argument);

struct LoadedModel {
  ModelSpec spec;
  std::string weights_sha256;
  std::unique_ptr<Llama> llama;
  std::unique_ptr<Tokenizer> tokenizer;
  std::optional<ChatTemplate> chat;  // absent when the model has none; unknown templates are an error on use
};

// Weights and tokenizer; checks the hash when the spec states one. Throws DataError.
LoadedModel load_model(const ModelSpec& spec);

// "cpu", "cuda", "cuda:1"; "float32", "bfloat16", "float16". Throws ConfigError with what is allowed.
ModelOptions model_options(const ModelSpec& spec);

}  // namespace kvsweep
