#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "harness/core/random.h"
#include "harness/core/tokenizer.h"
#include "tasks/data/cut_text.h"

namespace kvsweep {

// Last haystack sentence of a prompt: random words that make up the missing tokens, "river amber clock."
class Filler {
 public:
  Filler(const Tokenizer& tokenizer, const std::vector<std::string>& words);
  // A sentence of about `tokens` tokens: exact where tokenization is additive over words. Nothing when no set of words
  // adds up to it.
  std::optional<std::string> sentence(int64_t tokens, Rng& rng) const;

 private:
  std::map<int64_t, std::vector<std::string>> words_by_tokens_;
};

// A text that goes into the haystack before sentence floor(S * depth / 100) of S; at 100 it ends the haystack.
struct Insert {
  std::string text;
  int64_t depth = 0;  // per cent, [0, 100]
};

struct PromptPlan {
  std::string name;                            // for messages: "needle.tokens"
  std::string head, tail;                      // before the haystack; after it (the query)
  std::string separator;                       // between sentences
  std::function<std::string()> next_sentence;  // never runs dry
  std::vector<Insert> inserts;
  int64_t tokens = 0;  // of the whole prompt, BOS included
};

struct FittedPrompt {
  std::string context;          // text: head and haystack
  std::vector<size_t> offsets;  // where each insert begins in `context`, in bytes, in the order of the plan
  std::vector<int32_t> ids;     // of context + tail, BOS in front where the model asks for one
  int64_t context_tokens = 0;   // the first ids that encode `context` and that the tail does not change; < ids.size()
};

// Draws sentences until the prompt is nearly full and tops it up with filler, so that ids.size() == plan.tokens.
// Throws ConfigError when the tokens are too few for head, inserts and tail, or cannot be met exactly.
FittedPrompt fit_prompt(const PromptPlan& plan, const Tokenizer& tokenizer, const Filler& filler, Rng& rng);

// A prompt whose haystack comes in whole units: lines, words, documents.
struct UnitPlan {
  std::string name;                            // for messages: "ruler.tokens"
  std::function<CutText(int64_t units)> make;  // pure; more units are more tokens
  int64_t least = 1, most = 1;                 // units
  int64_t tokens = 0;                          // of the prompt at most, BOS included
};

struct FittedUnits {
  CutText text;
  std::vector<int32_t> ids;  // text_ids() of it
  int64_t units = 0;
};

// As many units as fit: one more of average length would be too many tokens, or there are no more. A few prompts are
// encoded, not one for every number of units. Throws ConfigError when the least do not fit.
FittedUnits fit_units(const UnitPlan& plan, const Tokenizer& tokenizer);

}  // namespace kvsweep
