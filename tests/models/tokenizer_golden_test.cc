// golden: ids and texts of the tokenizers, tiktoken, sentencepiece and jinja2 libraries and of llama.cpp.
#include <algorithm>
#include <catch2/catch_message.hpp>
#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators_range.hpp>
#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <nlohmann/json.hpp>

#include "models/tokenizer_gguf.h"
#include "models/tokenizer_load.h"
#include "tests/support/golden.h"

namespace kvsweep {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using testing::golden_files;
using Ids = std::vector<int32_t>;

fs::path data_or_skip(const std::string& relative) {
  for (const fs::path& root : testing::data_roots())
    if (fs::exists(root / relative)) return root / relative;
  SKIP("no " << relative << " below $KVSWEEP_DATA or ../shared/data");
  return {};
}

std::unique_ptr<Tokenizer> from_data(const std::string& relative) {
  return load_tokenizer(data_or_skip(relative));
}

std::unique_ptr<Tokenizer> smollm2() {
  return load_gguf_tokenizer(GgufFile(testing::smollm2_or_skip()));
}

// Which tokenizer a file of vectors is about: the word after the first underscore.
std::unique_ptr<Tokenizer> tokenizer_of(const fs::path& vectors) {
  const std::map<std::string, std::function<std::unique_ptr<Tokenizer>()>> known = {
      {"smollm2", smollm2},
      {"llama2", [] { return from_data("tokenizers/llama2/tokenizer.model"); }},
      {"llama3", [] { return from_data("tokenizers/llama3/tokenizer.model"); }}};
  const std::string stem = vectors.stem().string();
  const auto found = known.find(stem.substr(stem.find('_') + 1));
  INFO(vectors.string() << ": say here which tokenizer its vectors are about");
  REQUIRE(found != known.end());
  return found->second();
}

std::vector<json> read_lines(const fs::path& path) {
  std::vector<json> lines;
  std::ifstream in(path);
  for (std::string line; std::getline(in, line);) lines.push_back(json::parse(line));
  REQUIRE(!lines.empty());
  return lines;
}

std::string hex(const std::string& bytes) {
  std::string text;
  for (const char byte : bytes) {
    text += "0123456789abcdef"[static_cast<uint8_t>(byte) >> 4];
    text += "0123456789abcdef"[static_cast<uint8_t>(byte) & 15];
  }
  return text;
}

std::vector<std::string> split(const std::string& text, const std::string& separator) {
  std::vector<std::string> parts;
  size_t begin = 0;
  for (size_t at = text.find(separator); at != std::string::npos; at = text.find(separator, begin)) {
    parts.push_back(text.substr(begin, at - begin));
    begin = at + separator.size();
  }
  return parts;
}

// llama.cpp's own vectors: texts in <stem>.inp, one line of ids for each in <stem>.out.
void check_llama_cpp(const Tokenizer& tokenizer, const std::string& stem) {
  const auto texts = split(testing::read_text(data_or_skip(stem + ".inp")), "\n__ggml_vocab_test__\n");
  const auto lines = split(testing::read_text(data_or_skip(stem + ".out")), "\n");
  REQUIRE(texts.size() > 20);
  REQUIRE(lines.size() == texts.size());
  for (size_t i = 0; i < texts.size(); ++i) {
    INFO("'" << texts[i] << "'");
    Ids ids;
    std::istringstream line(lines[i]);
    for (int32_t id = 0; line >> id;) ids.push_back(id);
    CHECK(tokenizer.encode(texts[i], false) == ids);
  }
}

}  // namespace

TEST_CASE("text becomes the ids of the reference tokenizers", "[golden]") {
  const fs::path file = GENERATE(from_range(golden_files("models/tok_[^/]*[.]jsonl")));
  INFO(file.string());
  const std::unique_ptr<Tokenizer> tokenizer = tokenizer_of(file);
  for (const json& line : read_lines(file)) {
    INFO(line.dump());
    const auto text = line.at("s").get<std::string>();
    const auto ids = line.at("ids").get<Ids>();
    CHECK(tokenizer->encode(text, false) == ids);
    CHECK(tokenizer->decode(ids, false) == line.value("decode", text));
    if (!line.contains("ids_special")) continue;
    const auto special = line["ids_special"].get<Ids>();
    CHECK(tokenizer->encode(text, true) == special);
    CHECK(tokenizer->decode(special, false) == text);
    if (line.contains("decode_special_skipped"))
      CHECK(tokenizer->decode(special, true) == line["decode_special_skipped"].get<std::string>());
  }
}

TEST_CASE("a tokenizer.json of Llama-2's vocabulary gives the ids of the tokenizers library", "[golden]") {
  const fs::path file = GENERATE(from_range(golden_files("models/tok_llama2[.]jsonl")));
  const std::unique_ptr<Tokenizer> tokenizer = from_data("tokenizers/tinyllama_hf/tokenizer.json");
  for (const json& line : read_lines(file)) {
    INFO(line.dump());
    const auto text = line.at("s").get<std::string>();
    const auto ids = line.value("hf_json", line.at("ids")).get<Ids>();
    CHECK(tokenizer->encode(text, false) == ids);
    CHECK(tokenizer->encode(text, true) == line.value("hf_json_special", json(ids)).get<Ids>());
    // A leading space and a written "▁" are not told apart from the prefix.
    if (!text.starts_with(' ') && text.find("▁") == std::string::npos) CHECK(tokenizer->decode(ids, false) == text);
  }
}

TEST_CASE("ids become exact bytes and lossy text", "[golden]") {
  const fs::path file = GENERATE(from_range(golden_files("models/detok_[^/]*[.]jsonl")));
  INFO(file.string());
  const std::unique_ptr<Tokenizer> tokenizer = tokenizer_of(file);
  for (const json& line : read_lines(file)) {
    INFO(line.dump());
    const std::string bytes = tokenizer->decode(line.at("ids").get<Ids>(), false);
    CHECK(hex(bytes) == line.at("hex").get<std::string>());
    CHECK(lossy_utf8(bytes) == line.at("text").get<std::string>());
  }
}

TEST_CASE("conversations become the text and ids of the model's own template", "[golden]") {
  const fs::path file = GENERATE(from_range(golden_files("models/chat_smollm2[.]jsonl")));
  const GgufFile gguf(testing::smollm2_or_skip());
  const std::unique_ptr<Tokenizer> tokenizer = load_gguf_tokenizer(gguf);
  const ChatTemplate chat = load_gguf_chat_template(gguf).value();
  CHECK(chat.name() == "smollm2");
  for (const json& line : read_lines(file)) {
    INFO(line.dump());
    std::vector<ChatMessage> messages;
    for (const json& message : line.at("messages")) messages.push_back({message.at("role"), message.at("content")});
    const std::string text = chat.render(messages, line.at("add_generation_prompt"), "", "");
    CHECK(text == line.at("text").get<std::string>());
    CHECK(tokenizer->encode(text, true) == line.at("ids").get<Ids>());
  }
}

TEST_CASE("llama.cpp's vectors hold for a SentencePiece vocabulary out of a GGUF file", "[golden]") {
  const std::string stem = "tokenizers/llamacpp_vectors/ggml-vocab-llama-spm.gguf";
  const std::unique_ptr<Tokenizer> tokenizer = load_gguf_tokenizer(GgufFile(data_or_skip(stem)));
  CHECK(tokenizer->bos() == 1);
  CHECK(tokenizer->end_tokens() == Ids{2});
  CHECK(tokenizer->adds_bos());
  check_llama_cpp(*tokenizer, stem);
}

TEST_CASE("llama.cpp's vectors hold for Llama-3's rank file", "[golden]") {
  check_llama_cpp(*from_data("tokenizers/llama3/tokenizer.model"),
                  "tokenizers/llamacpp_vectors/ggml-vocab-llama-bpe.gguf");
}

TEST_CASE("a SentencePiece vocabulary out of a GGUF file gives the ids of the model it was made from", "[golden]") {
  const fs::path file = GENERATE(from_range(golden_files("models/tok_llama2[.]jsonl")));
  const std::unique_ptr<Tokenizer> tokenizer =
      load_gguf_tokenizer(GgufFile(data_or_skip("tokenizers/llamacpp_vectors/ggml-vocab-llama-spm.gguf")));
  for (const json& line : read_lines(file)) {
    INFO(line.dump());
    CHECK(tokenizer->encode(line.at("s").get<std::string>(), false) == line.at("ids").get<Ids>());
  }
}

}  // namespace kvsweep
