// contract: tokenizer files of a Hugging Face directory, made here: what is read, and what is said of bad ones.
#include "models/tokenizer_load.h"

#include <catch2/catch_message.hpp>
#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_exception.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include <functional>
#include <nlohmann/json.hpp>

#include "harness/core/error.h"
#include "models/tokenizer_bpe.h"
#include "tests/support/golden.h"

namespace kvsweep {
namespace {

using Catch::Matchers::ContainsSubstring;
using Catch::Matchers::MessageMatches;
using nlohmann::json;
using testing::TemporaryDirectory;
using testing::write_text;
using Ids = std::vector<int32_t>;

constexpr int32_t kHe = 256, kLlo = 258, kBos = 259, kEnd = 260;

// The 256 bytes, he, ll, llo, then two special tokens; GPT-2's pre-tokenizer; BOS in front.
json byte_level_file() {
  json vocab = json::object();
  for (int32_t byte = 0; byte < 256; ++byte) vocab[byte_level_text(std::string(1, static_cast<char>(byte)))] = byte;
  vocab["he"] = kHe;
  vocab["ll"] = 257;
  vocab["llo"] = kLlo;
  const auto added = [](int32_t id, const char* text) {
    return json{{"id", id}, {"content", text}, {"special", true}, {"normalized", false}, {"lstrip", false}};
  };
  const json bos_first = {{"type", "TemplateProcessing"},
                          {"single", {{{"SpecialToken", {{"id", "<|bos|>"}}}}, {{"Sequence", {{"id", "A"}}}}}}};
  return {{"added_tokens", {added(kBos, "<|bos|>"), added(kEnd, "<|eot_id|>")}},
          {"normalizer", nullptr},
          {"pre_tokenizer", {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", true}}},
          {"post_processor", bos_first},
          {"model", {{"type", "BPE"}, {"vocab", vocab}, {"merges", {"h e", "l l", "ll o"}}}}};
}

// <unk>, the 256 bytes (id = byte + 1), then letters and merges of "▁a", "▁▁".
json metaspace_file() {
  json vocab = {{"<unk>", 0}, {"▁", 257}, {"a", 258}, {"▁a", 259}, {"▁▁", 260}};
  for (int32_t byte = 0; byte < 256; ++byte) {
    std::string name = "<0x00>";
    name[3] = "0123456789ABCDEF"[byte / 16];
    name[4] = "0123456789ABCDEF"[byte % 16];
    vocab[name] = byte + 1;
  }
  const json prepend = {{"type", "Prepend"}, {"prepend", "▁"}};
  const json replace = {{"type", "Replace"}, {"pattern", {{"String", " "}}}, {"content", "▁"}};
  return {{"added_tokens", {{{"id", 0}, {"content", "<unk>"}, {"special", true}}}},
          {"normalizer", {{"type", "Sequence"}, {"normalizers", {prepend, replace}}}},
          {"pre_tokenizer", nullptr},
          {"model", {{"vocab", vocab}, {"merges", {"▁ ▁", "▁ a"}}, {"byte_fallback", true}}}};
}

std::unique_ptr<Tokenizer> load(const json& file) {
  const TemporaryDirectory folder;
  write_text(folder.path() / "tokenizer.json", file.dump());
  return load_tokenizer(folder.path());
}

void check_refused(json file, const std::function<void(json&)>& spoil, const std::string& expected) {
  spoil(file);
  CHECK_THROWS_MATCHES(load(file), DataError,
                       MessageMatches(ContainsSubstring("tokenizer.json") && ContainsSubstring(expected)));
}

}  // namespace

TEST_CASE("a byte-level tokenizer.json is read in both forms of merges") {
  json file = byte_level_file();
  for (const json& merges : {json{"h e", "l l", "ll o"}, json::array({json::array({"h", "e"}), json::array({"l", "l"}),
                                                                      json::array({"ll", "o"})})}) {
    file["model"]["merges"] = merges;
    const auto tokenizer = load(file);
    CHECK(tokenizer->encode("hello he", false) == Ids{kHe, kLlo, ' ', kHe});
    CHECK(tokenizer->encode("he<|eot_id|>", true) == Ids{kHe, kEnd});
    CHECK(tokenizer->vocab_size() == 261);  // 256 bytes + 3 merges + 2 special
  }
}

TEST_CASE("declared pre-tokenizers are recognised") {
  json file = byte_level_file();
  const json bytes_only = {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", false}};
  const json smollm = {{"type", "Sequence"},
                       {"pretokenizers", {{{"type", "Digits"}, {"individual_digits", true}}, file["pre_tokenizer"]}}};
  const std::string regex =
      "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| "
      "?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";
  const json split = {{"type", "Split"}, {"pattern", {{"Regex", regex}}}, {"behavior", "Isolated"}, {"invert", false}};
  const json llama3 = {{"type", "Sequence"}, {"pretokenizers", {split, bytes_only}}};
  // A number is one piece, four pieces or two: "1 1" and "12 3" would merge across if they were cut otherwise.
  file["model"]["vocab"]["12"] = 261;
  file["model"]["vocab"]["34"] = 262;
  file["model"]["vocab"]["1234"] = 263;
  file["model"]["merges"] = {"1 2", "3 4", "12 34"};
  CHECK(load(file)->encode("1234", false) == Ids{263});
  file["pre_tokenizer"] = smollm;
  CHECK(load(file)->encode("1234", false) == Ids{'1', '2', '3', '4'});
  file["pre_tokenizer"] = llama3;
  CHECK(load(file)->encode("1234", false) == Ids{261, '3', '4'});
}

TEST_CASE("BOS is what the post-processor says unless tokenizer_config.json says otherwise") {
  const TemporaryDirectory folder;
  write_text(folder.path() / "tokenizer.json", byte_level_file().dump());
  auto tokenizer = load_tokenizer(folder.path());
  CHECK(tokenizer->bos() == kBos);
  CHECK(tokenizer->adds_bos());
  CHECK(tokenizer->end_tokens() == Ids{kEnd});
  CHECK(encode_with_bos(*tokenizer, "he", false) == Ids{kBos, kHe});

  write_text(folder.path() / "tokenizer_config.json",
             R"({"bos_token": null, "eos_token": {"content": "llo"}, "add_bos_token": false})");
  write_text(folder.path() / "generation_config.json", R"({"eos_token_id": [7, 8]})");
  tokenizer = load_tokenizer(folder.path() / "tokenizer.json");
  CHECK(tokenizer->bos() == kBos);
  CHECK_FALSE(tokenizer->adds_bos());
  CHECK(tokenizer->end_tokens() == Ids{kLlo, 7, 8, kEnd});
}

TEST_CASE("a SentencePiece-like tokenizer.json puts the prefix where its kind does") {
  json file = metaspace_file();
  const int32_t byte = 1, space = 257, a = 258, space_a = 259, two_spaces = 260;
  auto tokenizer = load(file);
  CHECK(tokenizer->encode("a", false) == Ids{space_a});
  CHECK(tokenizer->encode(" a", false) == Ids{two_spaces, a});  // the prefix comes always
  CHECK(tokenizer->encode("a<unk>a", true) == Ids{space_a, 0, space_a});
  CHECK(tokenizer->encode("é", false) == Ids{space, 0xC3 + byte, 0xA9 + byte});
  CHECK(tokenizer->encode("", false).empty());
  CHECK(tokenizer->decode({space_a, 0, space_a, two_spaces}, false) == "a<unk>a  ");
  CHECK(tokenizer->decode({0xC3 + byte}, false) == "\xC3");

  json crossing = file;  // a merge that joins a space to the word before it
  crossing["model"]["vocab"]["a▁"] = 261;
  crossing["model"]["merges"].insert(crossing["model"]["merges"].begin(), "a ▁");
  CHECK(load(crossing)->encode("a a", false) == Ids{space, 261, a});
  CHECK(tokenizer->encode("a a  a", false) == Ids{space_a, space_a, two_spaces, a});

  file["normalizer"] = nullptr;
  file["pre_tokenizer"] = {{"type", "Metaspace"}, {"replacement", "▁"}, {"prepend_scheme", "first"}, {"split", false}};
  tokenizer = load(file);
  CHECK(tokenizer->encode(" a", false) == Ids{space_a});  // the text has its space already
  CHECK(tokenizer->encode("a<unk>a", true) == Ids{space_a, 0, a});
  CHECK(tokenizer->decode({space_a, 0, a}, false) == "a<unk>a");

  file["normalizer"] = {{"type", "Replace"}, {"pattern", {{"String", " "}}}, {"content", "▁"}};
  file["pre_tokenizer"] = nullptr;
  tokenizer = load(file);
  CHECK(tokenizer->encode("a a", false) == Ids{a, space_a});
  CHECK(tokenizer->decode({space_a}, false) == " a");
}

TEST_CASE("a tokenizer.json that cannot be used says why") {
  const json good = byte_level_file();
  check_refused(
      good, [](json& f) { f.erase("model"); }, "model.vocab is missing");
  check_refused(
      good, [](json& f) { f["model"]["vocab"] = json::array(); }, "model.vocab is missing");
  check_refused(
      good, [](json& f) { f["model"].erase("merges"); }, "model.merges is missing");
  check_refused(
      good, [](json& f) { f["model"]["type"] = "Unigram"; }, "model.type = \"Unigram\" is not known; known: \"BPE\"");
  check_refused(
      good, [](json& f) { f["model"]["merges"][1] = "l l o"; }, "model.merges[1]: merge 'l l o' is not two");
  check_refused(
      good, [](json& f) { f["model"]["merges"][1] = {"l"}; }, "model.merges[1] = [\"l\"] is neither");
  check_refused(
      good, [](json& f) { f["model"]["merges"][2] = "x y"; }, "merge 2 ('x' and 'y') needs 'xy'");
  check_refused(
      good, [](json& f) { f["model"]["vocab"]["he"] = "0"; }, "'he' has id \"0\"");
  check_refused(
      good, [](json& f) { f["model"]["vocab"]["he"] = -1; }, "'he' has id -1");
  check_refused(
      good, [](json& f) { f["model"]["vocab"]["he"] = 257; }, "have the same id 257");
  check_refused(
      good, [](json& f) { f["added_tokens"][0].erase("id"); }, "'<|bos|>' has id null");
  check_refused(
      good, [](json& f) { f["added_tokens"][0].erase("content"); }, "has no text 'content'");
  check_refused(
      good, [](json& f) { f["added_tokens"][0]["lstrip"] = true; }, "lstrip of");
  check_refused(
      good,
      [](json& f) {
        f["normalizer"] = {{"type", "NFC"}};
      },
      R"(normalizer = {"type":"NFC"})");
  check_refused(
      good,
      [](json& f) {
        f["pre_tokenizer"] = {{"type", "Whitespace"}};
      },
      "known are those of gpt-2, smollm, llama-bpe");
  check_refused(
      good, [](json& f) { f["pre_tokenizer"]["add_prefix_space"] = true; }, "pre_tokenizer = ");
  check_refused(
      metaspace_file(),
      [](json& f) {
        f["pre_tokenizer"] = {{"type", "Metaspace"}};
      },
      "known: Prepend and");
  check_refused(
      metaspace_file(), [](json& f) { f["model"]["ignore_merges"] = true; }, "model.ignore_merges is not known");
  check_refused(
      metaspace_file(), [](json& f) { f["model"]["vocab"].erase("<0x41>"); }, "no byte token <0x41>");
}

TEST_CASE("a file that is no tokenizer is refused with its name") {
  const TemporaryDirectory folder;
  const auto refused = [&](const std::string& name, const std::string& content, const std::string& expected) {
    write_text(folder.path() / name, content);
    INFO(name << ": " << content.substr(0, 20));
    CHECK_THROWS_MATCHES(load_tokenizer(folder.path() / name), DataError,
                         MessageMatches(ContainsSubstring(name + ": ") && ContainsSubstring(expected)));
  };
  const std::string whole = byte_level_file().dump();
  refused("tokenizer.json", whole.substr(0, whole.size() / 2), "is not JSON, or is cut off");
  refused("tokenizer.json", "[]", "is not an object");
  refused("tokenizer.model", "\x0a\x0e\x0a\x05<unk>", "is not a SentencePiece model");
  refused("tokenizer.model", "", "is not a SentencePiece model");
  refused("tokenizer.txt", "", "is no tokenizer file");
  CHECK_THROWS_MATCHES(load_tokenizer(folder.path() / "nowhere"), DataError,
                       MessageMatches(ContainsSubstring("nowhere: no such file")));
  const TemporaryDirectory empty;
  CHECK_THROWS_MATCHES(load_tokenizer(empty.path()), DataError,
                       MessageMatches(ContainsSubstring("has no tokenizer.json and no tokenizer.model")));
}

TEST_CASE("tiktoken's ranks are told apart by content and merge by rank") {
  const TemporaryDirectory folder;
  const auto path = folder.path() / "tokenizer.model";
  // The bytes a, b, c in base64, then bc, ab, cbab.
  const std::string ranks = "YQ== 0\nYg== 1\nYw== 2\nYmM= 3\nYWI= 4\nY2JhYg== 5\n";
  write_text(path, ranks);
  const auto tokenizer = load_tokenizer(path);
  CHECK(tokenizer->vocab_size() == 6 + 256);
  CHECK(tokenizer->encode("abcab", false) == Ids{0, 3, 4});    // b c comes before a b
  CHECK(tokenizer->encode("cbab", false) == Ids{5});           // a whole piece, which no merge makes
  CHECK(tokenizer->encode("<|eot_id|>", true) == Ids{6 + 9});  // ten named tokens up to it
  CHECK(tokenizer->bos() == 6);
  CHECK(tokenizer->adds_bos());

  for (const auto& [line, place] : {std::pair{"ZA== 7\n", ":7:"}, {"Z!== 6\n", ":7:"}, {"ZA==\n", ":7:"}}) {
    write_text(path, ranks + line);
    CHECK_THROWS_MATCHES(load_tokenizer(path), DataError,
                         MessageMatches(ContainsSubstring(std::string("tokenizer.model") + place) &&
                                        ContainsSubstring("is not base64, a space and the rank 6")));
  }
}

TEST_CASE("what lies beside a tokenizer is checked") {
  const TemporaryDirectory folder;
  write_text(folder.path() / "tokenizer.json", byte_level_file().dump());
  const auto refused = [&](const std::string& name, const std::string& content, const std::string& expected) {
    write_text(folder.path() / name, content);
    CHECK_THROWS_MATCHES(load_tokenizer(folder.path()), DataError, MessageMatches(ContainsSubstring(expected)));
    std::filesystem::remove(folder.path() / name);
  };
  refused("tokenizer_config.json", R"({"eos_token": "</s>"})", "has no token '</s>', which tokenizer_config.json");
  refused("tokenizer_config.json", R"({"eos_token": 3})", "tokenizer_config.json: eos_token = 3 is not a text");
  refused("tokenizer_config.json", "{", "tokenizer_config.json: is not JSON");
  refused("generation_config.json", R"({"eos_token_id": "2"})", "generation_config.json: eos_token_id = \"2\" is not");
  refused("generation_config.json", R"({"eos_token_id": 999})", "end token id 999 is outside the vocabulary of 261");
}

TEST_CASE("the chat template of a directory is found where its files keep it") {
  const TemporaryDirectory folder;
  CHECK_FALSE(load_chat_template(folder.path()).has_value());
  write_text(folder.path() / "tokenizer_config.json", R"({"bos_token": "<s>"})");
  CHECK_FALSE(load_chat_template(folder.path()).has_value());
  write_text(folder.path() / "tokenizer_config.json", R"({"chat_template": "{{ '<|im_start|>' }}"})");
  CHECK(load_chat_template(folder.path()).value().name() == "chatml");
  write_text(
      folder.path() / "tokenizer_config.json",
      R"({"chat_template": [{"name": "rag", "template": ""}, {"name": "default", "template": "<|im_start|>"}]})");
  CHECK(load_chat_template(folder.path()).value().name() == "chatml");
  write_text(folder.path() / "chat_template.jinja", "another");
  CHECK(load_chat_template(folder.path()).value().name() == "unknown");
}

}  // namespace kvsweep
