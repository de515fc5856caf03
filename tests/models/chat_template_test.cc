// contract: the published chat formats, written out.
#include "models/chat_template.h"

#include <catch2/catch_message.hpp>
#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_exception.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>

#include "harness/core/error.h"

namespace kvsweep {
namespace {

using Catch::Matchers::ContainsSubstring;
using Catch::Matchers::MessageMatches;

// Jinja sources cut to the parts that tell the formats apart.
const std::string kChatMl =
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>'}}";
const std::string kSmolLm2 =
    "{{ '<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n' }}";
const std::string kLlama2 =
    "{% set content = '<<SYS>>\\n' + system_message + '\\n<</SYS>>\\n\\n' + message['content'] %}"
    "{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}";
const std::string kLlama3 =
    "{% set content = '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n'+ message['content'] | trim + "
    "'<|eot_id|>' %}{% if loop.index0 == 0 %}{% set content = bos_token + content %}{% endif %}";
const std::string kZephyr =
    "{{ '<|user|>\n' + message['content'] + eos_token }}{{ '<|system|>\n' + message['content'] + eos_token }}"
    "{{ '<|assistant|>\n'  + message['content'] + eos_token }}";

const std::vector<ChatMessage> kTalk = {
    {"system", "Be brief."}, {"user", " Hi "}, {"assistant", "Hello."}, {"user", "Bye"}};

std::string render(const std::string& source, const std::vector<ChatMessage>& messages, bool prompt) {
  return ChatTemplate(source, "here").render(messages, prompt, "<s>", "</s>");
}

}  // namespace

TEST_CASE("ChatML renders roles as they come") {
  CHECK(ChatTemplate(kChatMl, "here").name() == "chatml");
  CHECK(render(kChatMl, kTalk, true) ==
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n Hi <|im_end|>\n"
        "<|im_start|>assistant\nHello.<|im_end|>\n<|im_start|>user\nBye<|im_end|>\n<|im_start|>assistant\n");
  CHECK(render(kChatMl, {{"user", "a"}}, false) == "<|im_start|>user\na<|im_end|>\n");
}

TEST_CASE("SmolLM2 adds its system message when there is none") {
  CHECK(ChatTemplate(kSmolLm2, "here").name() == "smollm2");
  CHECK(render(kSmolLm2, {{"user", "a"}}, false) ==
        "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
        "<|im_start|>user\na<|im_end|>\n");
  CHECK(render(kSmolLm2, {{"system", "b"}}, false) == "<|im_start|>system\nb<|im_end|>\n");
}

TEST_CASE("Llama-2 folds the system message into the first turn and closes each answer") {
  CHECK(ChatTemplate(kLlama2, "here").name() == "llama-2");
  CHECK(render(kLlama2, kTalk, true) ==
        "<s>[INST] <<SYS>>\nBe brief.\n<</SYS>>\n\n Hi [/INST] Hello. </s><s>[INST] Bye [/INST]");
  CHECK(render(kLlama2, {{"user", " \u00A0Hi\n\u3000"}}, true) == "<s>[INST] Hi [/INST]");
  CHECK_THROWS_MATCHES(render(kLlama2, {{"user", "a"}, {"user", "b"}}, true), ConfigError,
                       MessageMatches(ContainsSubstring("here: llama-2: turn 2 is of user")));
  CHECK_THROWS_AS(render(kLlama2, {{"user", "a"}, {"system", "b"}}, true), ConfigError);
}

TEST_CASE("Llama-3 trims messages and writes BOS once") {
  CHECK(ChatTemplate(kLlama3, "here").name() == "llama-3");
  CHECK(render(kLlama3, kTalk, true) ==
        "<s><|start_header_id|>system<|end_header_id|>\n\nBe brief.<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\nHello.<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\nBye<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n");
}

TEST_CASE("Zephyr ends every message with EOS and a newline") {
  CHECK(ChatTemplate(kZephyr, "here").name() == "zephyr");
  CHECK(render(kZephyr, kTalk, true) ==
        "<|system|>\nBe brief.</s>\n<|user|>\n Hi </s>\n<|assistant|>\nHello.</s>\n<|user|>\nBye</s>\n<|assistant|>\n");
}

TEST_CASE("a template that does more than a known one is unknown, and rendering says what is known") {
  const std::string qwen = kChatMl + "{{ '<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n' }}";
  const std::string llama31 = kLlama3 + "{{- \"Cutting Knowledge Date: December 2023\\n\" }}";
  const std::string mistral = "{{ '[INST] ' + message['content'] + ' [/INST]' }}";
  const std::string phi3 = kZephyr + "{{ '<|end|>' }}";
  for (const std::string& source : {qwen, llama31, mistral, phi3, kChatMl + "{% if tools %}", std::string()}) {
    INFO(source);
    const ChatTemplate chat(source, "model.gguf");
    CHECK_FALSE(chat.known());
    CHECK(chat.name() == "unknown");
    CHECK_THROWS_MATCHES(
        chat.render(kTalk, true, "", ""), ConfigError,
        MessageMatches(ContainsSubstring(
            "model.gguf: its chat template is not known; known: chatml, smollm2, llama-2, llama-3, zephyr")));
  }
}

TEST_CASE("a role that no format has is refused") {
  CHECK_THROWS_MATCHES(render(kChatMl, {{"tool", "x"}}, true), ConfigError,
                       MessageMatches(ContainsSubstring("chat role 'tool' is not one of system, user, assistant")));
}

}  // namespace kvsweep
