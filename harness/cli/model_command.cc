#include "harness/cli/model_command.h"

#include <ATen/ATen.h>
#include <c10/core/InferenceMode.h>
#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <iterator>

#include "harness/cli/model_bench.h"
#include "harness/core/error.h"
#include "harness/run/progress.h"
#include "harness/run/reference.h"
#include "harness/run/runner.h"
#include "harness/run/sampling.h"
#include "models/load_model.h"

namespace kvsweep {
namespace {

struct ModelArguments {
  std::string model, text, file;
  bool special = false, chat = false;
  int64_t top = 10, tokens = 64, prefill = 2048, repeats = 3;
  double temperature = 0;
  uint64_t seed = 17;
};

std::string input_text(const ModelArguments& arguments) {
  if (arguments.file.empty()) return arguments.text;
  std::ifstream in(arguments.file, std::ios::binary);
  if (!in) throw DataError(fmt::format("{}: cannot be read", arguments.file));
  return {std::istreambuf_iterator<char>(in), {}};
}

std::vector<int32_t> prompt_ids(const LoadedModel& model, const ModelArguments& arguments) {
  const Tokenizer& tokenizer = *model.tokenizer;
  const std::string text = input_text(arguments);
  if (!arguments.chat) return encode_with_bos(tokenizer, text, arguments.special);
  if (!model.chat)
    throw ConfigError(fmt::format("{} has no chat template; leave --chat out", model.spec.path.string()));
  return tokenizer.encode(chat_prompt(*model.chat, tokenizer, text), true);
}

std::string visible(const std::string& text) {
  std::string out;
  for (const char c : lossy_utf8(text)) {
    if (c == '\n') {
      out += "\\n";
    } else if (c == '\t') {
      out += "\\t";
    } else {
      out += c;
    }
  }
  return out;
}

int print_info(const ModelArguments& arguments) {
  const LoadedModel model = load_model(resolve_model(arguments.model));
  const LlamaConfig& config = model.llama->config();
  const int64_t kv_values = 2 * config.layers * config.kv_heads * config.head_dim;
  const auto line = [](const char* key, const std::string& value) { fmt::print("{:<18}{}\n", key, value); };
  line("model", model.spec.name);
  line("file", model.spec.path.string());
  line("weights sha256", model.weights_sha256);
  line("architecture", fmt::format("{}: {} layers, hidden {}, MLP {}, vocabulary {}", config.architecture,
                                   config.layers, config.hidden, config.intermediate, config.vocab));
  line("attention", fmt::format("{} query heads, {} key-value heads, head dim {}{}", config.heads, config.kv_heads,
                                config.head_dim, config.attention_bias ? ", biases" : ""));
  line("rope", fmt::format("{}, theta {}, factor {}", config.rope.type, config.rope.theta, config.rope.factor));
  line("context", fmt::format("{} tokens", config.max_positions));
  line("head", config.tied_head ? "tied to the embedding" : "own weights");
  line("computes on",
       fmt::format("{}, {}", model.llama->options().device.str(), c10::toString(model.llama->options().dtype)));
  line("weights", human_bytes(static_cast<double>(model.llama->weight_bytes())));
  line("cache, 16 bits", fmt::format("{} a token", human_bytes(static_cast<double>(2 * kv_values))));
  line("tokenizer", fmt::format("{} tokens, BOS {}", model.tokenizer->vocab_size(),
                                model.tokenizer->adds_bos() ? "in front of every text" : "not added"));
  line("chat template", model.chat ? model.chat->name() : "none");
  for (const std::string& warning : model.llama->weight_warnings()) line("warning", warning);
  return kExitOk;
}

int print_tokens(const ModelArguments& arguments) {
  const LoadedModel model = load_model(resolve_model(arguments.model));
  const std::vector<int32_t> ids = prompt_ids(model, arguments);
  for (size_t i = 0; i < ids.size(); ++i)
    fmt::print("{:>6} {:>7}  {}\n", i, ids[i], visible(model.tokenizer->decode({ids[i]}, false)));
  return kExitOk;
}

at::Tensor last_logits(const LoadedModel& model, const std::vector<int32_t>& ids) {
  if (ids.empty()) throw ConfigError("the text has no tokens");
  if (static_cast<int64_t>(ids.size()) > model.llama->config().max_positions)
    throw ConfigError(fmt::format("the text has {} tokens, {} allows {}", ids.size(), model.spec.name,
                                  model.llama->config().max_positions));
  return model.llama
      ->logits(model.llama->prefill(
          ids, [](int64_t, const KvSlab&) {}, 1))
      .squeeze(0)
      .to(at::kCPU);
}

int print_logits(const ModelArguments& arguments) {
  const c10::InferenceMode no_autograd;
  const LoadedModel model = load_model(resolve_model(arguments.model));
  const at::Tensor logits = last_logits(model, prompt_ids(model, arguments));
  const at::Tensor probabilities = at::softmax(logits, -1);
  const auto [values, ids] = logits.topk(std::min(arguments.top, logits.numel()));
  fmt::print("{:>7} {:>10} {:>12}  token\n", "id", "logit", "probability");
  for (int64_t i = 0; i < ids.numel(); ++i) {
    const int64_t id = ids.const_data_ptr<int64_t>()[i];
    fmt::print("{:>7} {:>10.4f} {:>12.6f}  {}\n", id, values.const_data_ptr<float>()[i],
               probabilities.const_data_ptr<float>()[id],
               visible(model.tokenizer->decode({static_cast<int32_t>(id)}, false)));
  }
  return kExitOk;
}

int print_generated(const ModelArguments& arguments) {
  const c10::InferenceMode no_autograd;
  const LoadedModel model = load_model(resolve_model(arguments.model));
  const std::vector<int32_t> prompt = prompt_ids(model, arguments);
  std::vector<int32_t> made;
  size_t printed = 0;
  continue_text(*model.llama, *model.tokenizer, *find_reference().scheme, prompt, arguments.tokens,
                arguments.temperature, arguments.seed, [&](int32_t token) {
                  made.push_back(token);
                  const std::string text = model.tokenizer->decode(made, true);
                  const std::string shown = lossy_utf8(text);
                  if (shown.ends_with("\xEF\xBF\xBD")) return;  // half a character: wait for the rest
                  fmt::print("{}", shown.substr(std::min(printed, shown.size())));
                  std::fflush(stdout);
                  printed = shown.size();
                });
  fmt::print("\n");
  return kExitOk;
}

int run_bench(const ModelArguments& arguments) {
  const c10::InferenceMode no_autograd;
  const LoadedModel model = load_model(resolve_model(arguments.model));
  return run_model_bench(model, arguments.prefill, arguments.tokens, static_cast<int>(arguments.repeats));
}

CLI::App* add_text_command(CLI::App& model, const char* name, const char* help, ModelArguments& arguments) {
  CLI::App* command = model.add_subcommand(name, help);
  command->add_option("model", arguments.model, "Model YAML, .gguf file or Hugging Face directory")->required();
  CLI::Option* text = command->add_option("text", arguments.text, "The text");
  CLI::Option* file = command->add_option("--file", arguments.file, "Read the text from this file")->excludes(text);
  command->callback([text, file] {
    if (text->count() + file->count() == 0) throw CLI::RequiredError("text or --file");
  });
  command->add_flag("--special", arguments.special, "Special tokens written out in the text become single ids");
  command->add_flag("--chat", arguments.chat, "The text is a user's message in the model's chat template");
  return command;
}

}  // namespace

void add_model(CLI::App& app, std::function<int()>& action) {
  static ModelArguments arguments;
  CLI::App* model = app.add_subcommand("model", "Look inside a model");
  model->require_subcommand(1);
  CLI::App* info = model->add_subcommand("info", "Shapes, sizes, tokenizer and hashes");
  info->add_option("model", arguments.model, "Model YAML, .gguf file or Hugging Face directory")->required();
  CLI::App* tokenize = add_text_command(*model, "tokenize", "A text as tokens", arguments);
  CLI::App* logits = add_text_command(*model, "logits", "The most likely next tokens", arguments);
  logits->add_option("--top", arguments.top, "How many")->check(CLI::Range(1, 1000000));
  CLI::App* generate = add_text_command(*model, "generate", "Continue a text in full precision", arguments);
  generate->add_option("--tokens", arguments.tokens, "At most this many")->check(CLI::Range(1, 1000000));
  generate->add_option("--temperature", arguments.temperature, "0: the most likely token")
      ->check(CLI::Range(0.0, 100.0));
  generate->add_option("--seed", arguments.seed, "Of sampling");
  CLI::App* bench = model->add_subcommand("bench", "Time prefill and decode alone; one JSON line a repeat");
  bench->add_option("model", arguments.model, "Model YAML, .gguf file or Hugging Face directory")->required();
  bench->add_option("--prefill", arguments.prefill, "Tokens of the prefill")->check(CLI::Range(1, 1000000));
  bench->add_option("--decode", arguments.tokens, "Tokens decoded after it")->check(CLI::Range(1, 1000000));
  bench->add_option("--repeats", arguments.repeats, "How often")->check(CLI::Range(1, 1000));
  model->callback([&action, info, tokenize, logits, generate, bench] {
    if (info->parsed()) action = [] { return print_info(arguments); };
    if (tokenize->parsed()) action = [] { return print_tokens(arguments); };
    if (logits->parsed()) action = [] { return print_logits(arguments); };
    if (generate->parsed()) action = [] { return print_generated(arguments); };
    if (bench->parsed()) action = [] { return run_bench(arguments); };
  });
}

}  // namespace kvsweep
