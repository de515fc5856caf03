#pragma once

#include <string>
#include <vector>

#include "harness/core/tokenizer.h"

namespace kvsweep {

struct ChatMessage {
  std::string role;  // system, user, assistant
  std::string content;
};

// The chat formats of the Llama family, recognised from the Jinja source in the model's files. A template that does
// more than a known one (another default system message, dates, trimming) is unknown: nothing is rendered nearly right.
class ChatTemplate {
 public:
  // Throws nothing for an unknown template: render() does, naming the file and what is known.
  // source: the Jinja text. place: file, for messages.
  ChatTemplate(const std::string& source, std::string place);

  bool known() const { return family_ != Family::kUnknown; }
  std::string name() const;  // "chatml", "smollm2", "llama-2", "llama-3", "zephyr", "unknown"
  // The text has all of the format's special tokens written out, BOS too: encode it by encode(text, true), not by
  // encode_with_bos(). add_generation_prompt: ends with the opening of the assistant's turn. bos, eos: special tokens
  // as text, where the format writes them. Throws ConfigError for an unknown template, and for roles or an order of
  // turns that the format does not have.
  std::string render(const std::vector<ChatMessage>& messages, bool add_generation_prompt, const std::string& bos,
                     const std::string& eos) const;

 private:
  enum class Family { kUnknown, kChatMl, kSmolLm2, kLlama2, kLlama3, kZephyr };
  static Family recognise(const std::string& source);

  Family family_ = Family::kUnknown;
  std::string beginning_;  // of the source, for the message
  std::string place_;
};

// One user's message with the opening of the assistant's turn, with the tokenizer's BOS and its first end token: to be
// encoded by encode(text, true). Throws as render() does.
std::string chat_prompt(const ChatTemplate& chat, const Tokenizer& tokenizer, const std::string& message);

}  // namespace kvsweep
