#include "models/tokenizer_json.h"

#include <fmt/format.h>

#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "harness/core/error.h"

namespace kvsweep {

namespace {

namespace fs = std::filesystem;
using nlohmann::json;

// Ids beyond this are a damaged file, not a vocabulary.
constexpr int64_t kMostTokens = int64_t{1} << 24;

// GPT-2's regex is what ByteLevel means without saying so; Llama-3's files write theirs out.
constexpr std::string_view kLlama3Split =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|)"
    R"(\s+)";

std::string read_file(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  std::ostringstream text;
  text << in.rdbuf();
  if (!in || fs::is_directory(path)) throw DataError(path.string() + ": cannot be read");
  return text.str();
}

json read_object(const fs::path& path) {
  json object = json::parse(read_file(path), nullptr, /*allow_exceptions=*/false);
  if (!object.is_object())
    throw DataError(path.string() + (object.is_discarded() ? ": is not JSON, or is cut off" : ": is not an object"));
  return object;
}

// A member of an object; null when it is not there or `value` is no object.
const json& at(const json& value, const char* key) {
  static const json kNull;
  if (!value.is_object()) return kNull;
  const auto found = value.find(key);
  return found == value.end() ? kNull : *found;
}

// True when the member is the Boolean `expected`, or is not there and `otherwise` is.
bool is(const json& value, const char* key, bool expected, bool otherwise) {
  return (at(value, key).is_null() ? otherwise : at(value, key) == json(true)) == expected;
}

bool is_byte_level(const json& cut, bool use_regex) {
  return at(cut, "type") == "ByteLevel" && is(cut, "add_prefix_space", false, true) &&
         is(cut, "use_regex", use_regex, true);
}

bool is_digits(const json& cut) {
  return at(cut, "type") == "Digits" && is(cut, "individual_digits", true, false);
}

bool is_llama3_split(const json& cut) {
  return at(cut, "type") == "Split" && at(cut, "behavior") == "Isolated" && is(cut, "invert", false, false) &&
         at(at(cut, "pattern"), "Regex") == kLlama3Split;
}

bool is_first_metaspace(const json& cut) {
  return at(cut, "type") == "Metaspace" && at(cut, "replacement") == "▁" && at(cut, "prepend_scheme") == "first" &&
         is(cut, "split", false, true);
}

// PreTokenizer's name for what the file declares, "" for none of them.
std::string byte_level_name(const json& pre_tokenizer) {
  const json& list = at(pre_tokenizer, "pretokenizers");
  const bool sequence = at(pre_tokenizer, "type") == "Sequence" && list.is_array();
  if (!sequence) return is_byte_level(pre_tokenizer, true) ? "gpt-2" : "";
  if (list.size() == 2 && is_digits(list[0]) && is_byte_level(list[1], true)) return "smollm";
  if (list.size() == 2 && is_llama3_split(list[0]) && is_byte_level(list[1], false)) return "llama-bpe";
  return "";
}

class Reader {
 public:
  explicit Reader(const fs::path& path) : place_(path.string()), root_(read_object(path)) {}

  TokenizerJson read() {
    const json& model = at(root_, "model");
    // Files of before 2020 leave the type of a BPE model out.
    if (const json& type = at(model, "type"); !type.is_null() && type != "BPE")
      fail("model.type = " + type.dump() + " is not known; known: \"BPE\"");
    read_vocab(at(model, "vocab"));
    read_merges(at(model, "merges"));
    read_added_tokens();
    out_.vocabulary.whole_pieces = is(model, "ignore_merges", true, false);
    if (is(model, "byte_fallback", true, false))
      read_metaspace();
    else
      read_byte_level();
    read_post_processor(at(root_, "post_processor"));
    return std::move(out_);
  }

 private:
  [[noreturn]] void fail(const std::string& message) const { throw DataError(place_ + ": " + message); }

  void read_vocab(const json& vocab) {
    if (!vocab.is_object() || vocab.empty()) fail("model.vocab is missing or is not an object of \"token\": id");
    for (const auto& [token, id] : vocab.items()) put(token, id, "model.vocab");
  }

  int32_t put(const std::string& token, const json& id, const char* key) {
    if (!id.is_number_integer() || id < 0 || id >= kMostTokens)
      fail(fmt::format("{}: '{}' has id {}; ids are whole numbers from 0", key, token, id.dump()));
    std::vector<std::string>& tokens = out_.vocabulary.tokens;
    const auto index = id.get<size_t>();
    if (index >= tokens.size()) tokens.resize(index + 1);
    if (!tokens[index].empty() && tokens[index] != token)
      fail(fmt::format("{}: '{}' and '{}' have the same id {}", key, tokens[index], token, index));
    tokens[index] = token;
    return id.get<int32_t>();
  }

  void read_merges(const json& list) {
    if (!list.is_array()) fail("model.merges is missing or is not a list");
    auto& merges = out_.vocabulary.merges;
    for (const json& merge : list) {
      const std::string where = fmt::format("{}: model.merges[{}]", place_, merges.size());
      if (merge.is_string())
        merges.push_back(parse_merge(merge.get_ref<const std::string&>(), where));
      else if (merge.is_array() && merge.size() == 2 && merge[0].is_string() && merge[1].is_string())
        merges.emplace_back(merge[0], merge[1]);
      else
        throw DataError(where + " = " + merge.dump() + R"( is neither "a b" nor ["a", "b"])");
    }
  }

  void read_added_tokens() {
    for (const json& token : at(root_, "added_tokens")) {
      const json& text = at(token, "content");
      if (!text.is_string()) fail("added_tokens holds " + token.dump() + ", which has no text 'content'");
      for (const char* key : {"lstrip", "rstrip", "single_word"})
        if (is(token, key, true, false)) fail(fmt::format("added_tokens: {} of {} is not known", key, text.dump()));
      const int32_t id = put(text, at(token, "id"), "added_tokens");
      out_.vocabulary.added.push_back({text, id, is(token, "special", true, false)});
    }
  }

  void read_byte_level() {
    const json& normalizer = at(root_, "normalizer");
    const json& cut = at(root_, "pre_tokenizer");
    out_.vocabulary.pre_tokenizer = byte_level_name(cut);
    if (out_.vocabulary.pre_tokenizer.empty())
      fail(fmt::format("pre_tokenizer = {} is not known; known are those of {}, and Metaspace beside byte_fallback",
                       cut.dump(), join(PreTokenizer::known_names())));
    if (!normalizer.is_null())
      fail("normalizer = " + normalizer.dump() + " is not known beside byte-level BPE; known: null");
  }

  // A prefix and "▁" for a space are said by a normalizer (older files) or by a pre-tokenizer.
  void read_metaspace() {
    static const json kReplace = {{"type", "Replace"}, {"pattern", {{"String", " "}}}, {"content", "▁"}};
    static const json kPrepend = {{"type", "Prepend"}, {"prepend", "▁"}};
    static const json kBoth = {{"type", "Sequence"}, {"normalizers", json::array({kPrepend, kReplace})}};
    const json& normalizer = at(root_, "normalizer");
    const json& cut = at(root_, "pre_tokenizer");
    BpeVocabulary& vocabulary = out_.vocabulary;
    vocabulary.alphabet = BpeAlphabet::kMetaspace;
    if (vocabulary.whole_pieces) fail("model.ignore_merges is not known beside byte_fallback");
    if (normalizer == kBoth && cut.is_null())
      vocabulary.prefix = SpacePrefix::kEachSection;
    else if (normalizer.is_null() && is_first_metaspace(cut))
      vocabulary.prefix = SpacePrefix::kFirst;
    else if (normalizer != kReplace || !cut.is_null())
      fail(fmt::format(
          "normalizer = {} and pre_tokenizer = {} are not known beside byte_fallback; known: Prepend and Replace with "
          "null, Replace with null, null with Metaspace (prepend_scheme \"first\", split false)",
          normalizer.dump(), cut.dump()));
  }

  void read_post_processor(const json& processor) {
    for (const json& part : at(processor, "processors")) read_post_processor(part);
    const json& single = at(processor, "single");
    if (at(processor, "type") != "TemplateProcessing" || !single.is_array() || single.empty()) return;
    const json& first = at(at(single[0], "SpecialToken"), "id");
    for (const AddedToken& token : out_.vocabulary.added)
      if (first == token.text) out_.leading_token = token.id;
  }

  std::string place_;
  json root_;
  TokenizerJson out_;
};

// A special token of tokenizer_config.json: text, or an object with its text in "content".
std::optional<std::string> token_text(const json& config, const char* key, const fs::path& path) {
  const json& value = at(config, key);
  const json& text = value.is_object() ? at(value, "content") : value;
  if (text.is_null()) return std::nullopt;
  if (!text.is_string()) throw DataError(fmt::format("{}: {} = {} is not a text", path.string(), key, value.dump()));
  return text.get<std::string>();
}

// One template, or a list of named ones of which "default" is meant.
std::optional<std::string> chat_template(const json& config, const fs::path& path) {
  const json& value = at(config, "chat_template");
  if (!value.is_array()) return token_text(config, "chat_template", path);
  for (const json& entry : value)
    if (at(entry, "name") == "default") return token_text(entry, "template", path);
  throw DataError(path.string() + ": chat_template is a list without one that is named \"default\"");
}

std::vector<int32_t> end_ids(const json& config, const fs::path& path) {
  const json& value = at(config, "eos_token_id");
  if (value.is_null()) return {};
  std::vector<int32_t> ids;
  for (const json& id : value.is_array() ? value : json::array({value})) {
    if (!id.is_number_integer() || id < 0 || id >= kMostTokens)
      throw DataError(fmt::format("{}: eos_token_id = {} is not an id or a list of ids", path.string(), value.dump()));
    ids.push_back(id.get<int32_t>());
  }
  return ids;
}

}  // namespace

TokenizerJson read_tokenizer_json(const fs::path& path) {
  return Reader(path).read();
}

TokenizerSidecars read_tokenizer_sidecars(const fs::path& folder) {
  TokenizerSidecars found;
  if (const fs::path path = folder / "tokenizer_config.json"; fs::exists(path)) {
    const json config = read_object(path);
    found.bos = token_text(config, "bos_token", path);
    found.eos = token_text(config, "eos_token", path);
    if (const json& add = at(config, "add_bos_token"); add.is_boolean()) found.add_bos = add.get<bool>();
    found.chat_template = chat_template(config, path);
    found.chat_template_place = path.string();
  }
  if (const fs::path path = folder / "generation_config.json"; fs::exists(path))
    found.end_tokens = end_ids(read_object(path), path);
  // Newer files keep the template beside; transformers prefers it.
  if (const fs::path path = folder / "chat_template.jinja"; fs::exists(path)) {
    found.chat_template = read_file(path);
    found.chat_template_place = path.string();
  }
  return found;
}

}  // namespace kvsweep
