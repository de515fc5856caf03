#include "models/chat_template.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <string_view>

#include "harness/core/error.h"
#include "models/utf8.h"

namespace kvsweep {

namespace {

constexpr std::array<std::string_view, 6> kNames = {"unknown", "chatml", "smollm2", "llama-2", "llama-3", "zephyr"};
constexpr size_t kShownBytes = 80;

// tokenizer_config.json of HuggingFaceTB/SmolLM2-135M-Instruct.
constexpr std::string_view kSmolLm2System = "You are a helpful AI assistant named SmolLM, trained by Hugging Face";

// What Python's str.strip() takes for a space: Unicode's White_Space and four control characters.
bool is_space(char32_t code) {
  return (code >= 0x09 && code <= 0x0D) || (code >= 0x1C && code <= 0x20) || code == 0x85 || code == 0xA0 ||
         code == 0x1680 || (code >= 0x2000 && code <= 0x200A) || code == 0x2028 || code == 0x2029 || code == 0x202F ||
         code == 0x205F || code == 0x3000;
}

std::string trimmed(std::string_view text) {
  size_t begin = text.size(), end = 0;
  for (size_t at = 0; at < text.size();) {
    const Utf8Step step = first_utf8(text.substr(at));
    if (!step.valid || !is_space(step.code)) {
      begin = std::min(begin, at);
      end = at + step.bytes;
    }
    at += step.bytes;
  }
  return end == 0 ? "" : std::string(text.substr(begin, end - begin));
}

// OpenAI's ChatML: <|im_start|>role, newline, content<|im_end|>, newline. No BOS.
std::string render_chatml(const std::vector<ChatMessage>& messages, bool add_generation_prompt) {
  std::string text;
  for (const ChatMessage& message : messages)
    text += "<|im_start|>" + message.role + "\n" + message.content + "<|im_end|>\n";
  return text + (add_generation_prompt ? "<|im_start|>assistant\n" : "");
}

std::string render_smollm2(std::vector<ChatMessage> messages, bool add_generation_prompt) {
  if (!messages.empty() && messages[0].role != "system")
    messages.insert(messages.begin(), {"system", std::string(kSmolLm2System)});
  return render_chatml(messages, add_generation_prompt);
}

// meta-llama/llama, llama/generation.py (chat_completion), as the template of meta-llama/Llama-2-7b-chat-hf says it:
// the system message stands inside the first user turn; every turn pair begins with BOS and ends with EOS.
std::string render_llama2(std::vector<ChatMessage> messages, const std::string& bos, const std::string& eos,
                          const std::string& place) {
  std::string system;
  if (!messages.empty() && messages[0].role == "system") {
    system = "<<SYS>>\n" + messages[0].content + "\n<</SYS>>\n\n";
    messages.erase(messages.begin());
  }
  std::string text;
  for (size_t turn = 0; turn < messages.size(); ++turn) {
    const auto& [role, content] = messages[turn];
    const char* expected = turn % 2 == 0 ? "user" : "assistant";
    if (role != expected)
      throw ConfigError(
          fmt::format("{}: llama-2: turn {} is of {}; after an optional system message come user, assistant, user, ...",
                      place, turn + 1, role));
    if (turn % 2 == 0)
      text += bos + "[INST] " + trimmed((turn == 0 ? system : "") + content) + " [/INST]";
    else
      text += " " + trimmed(content) + " " + eos;
  }
  return text;
}

// meta-llama/llama3, llama/tokenizer.py (ChatFormat).
std::string render_llama3(const std::vector<ChatMessage>& messages, bool add_generation_prompt,
                          const std::string& bos) {
  const auto header = [](const std::string& role) { return "<|start_header_id|>" + role + "<|end_header_id|>\n\n"; };
  std::string text = messages.empty() ? "" : bos;
  for (const ChatMessage& message : messages) text += header(message.role) + trimmed(message.content) + "<|eot_id|>";
  return text + (add_generation_prompt ? header("assistant") : "");
}

// tokenizer_config.json of HuggingFaceH4/zephyr-7b-beta and TinyLlama/TinyLlama-1.1B-Chat-v1.0. No BOS.
std::string render_zephyr(const std::vector<ChatMessage>& messages, bool add_generation_prompt,
                          const std::string& eos) {
  std::string text;
  for (const ChatMessage& message : messages) text += "<|" + message.role + "|>\n" + message.content + eos + "\n";
  return text + (add_generation_prompt && !messages.empty() ? "<|assistant|>\n" : "");
}

void check_roles(const std::vector<ChatMessage>& messages, const std::string& place) {
  for (const ChatMessage& message : messages)
    if (message.role != "system" && message.role != "user" && message.role != "assistant")
      throw ConfigError(fmt::format("{}: chat role '{}' is not one of system, user, assistant", place, message.role));
}

}  // namespace

ChatTemplate::ChatTemplate(const std::string& source, std::string place)
    : family_(recognise(source)), beginning_(source.substr(0, kShownBytes)), place_(std::move(place)) {}

ChatTemplate::Family ChatTemplate::recognise(const std::string& source) {
  const auto has = [&](std::string_view mark) { return source.find(mark) != std::string::npos; };
  const bool trims = has("trim") || has("strip()");
  // Tools and reasoning change what a template does to plain messages in ways that no mark tells.
  if (has("tools") || has("<think>")) return Family::kUnknown;
  if (has("<|im_start|>")) {
    if (trims) return Family::kUnknown;
    if (has(kSmolLm2System)) return Family::kSmolLm2;
    return has("<|im_start|>system") || has("You are") ? Family::kUnknown : Family::kChatMl;
  }
  if (has("<|start_header_id|>"))
    return has("<|eot_id|>") && has("bos_token") && trims && !has("Date") ? Family::kLlama3 : Family::kUnknown;
  if (has("[INST]")) return has("<<SYS>>") && trims ? Family::kLlama2 : Family::kUnknown;
  if (has("<|user|>") && has("<|system|>") && has("<|assistant|>"))
    return has("eos_token") && !has("<|end|>") && !trims ? Family::kZephyr : Family::kUnknown;
  return Family::kUnknown;
}

std::string ChatTemplate::name() const {
  return std::string(kNames[static_cast<size_t>(family_)]);
}

std::string ChatTemplate::render(const std::vector<ChatMessage>& messages, bool add_generation_prompt,
                                 const std::string& bos, const std::string& eos) const {
  check_roles(messages, place_);
  switch (family_) {
    case Family::kChatMl:
      return render_chatml(messages, add_generation_prompt);
    case Family::kSmolLm2:
      return render_smollm2(messages, add_generation_prompt);
    case Family::kLlama2:
      return render_llama2(messages, bos, eos, place_);
    case Family::kLlama3:
      return render_llama3(messages, add_generation_prompt, bos);
    case Family::kZephyr:
      return render_zephyr(messages, add_generation_prompt, eos);
    case Family::kUnknown:
      break;
  }
  const std::vector<std::string> known(kNames.begin() + 1, kNames.end());
  throw ConfigError(
      fmt::format("{}: its chat template is not known; known: {}. It begins: {}", place_, join(known), beginning_));
}

std::string chat_prompt(const ChatTemplate& chat, const Tokenizer& tokenizer, const std::string& message) {
  const auto written = [&](std::optional<int32_t> id) { return id ? tokenizer.decode({*id}, false) : std::string(); };
  const std::vector<int32_t> ends = tokenizer.end_tokens();
  const std::string eos = ends.empty() ? "" : written(ends.front());
  return chat.render({{"user", message}}, true, written(tokenizer.bos()), eos);
}

}  // namespace kvsweep
