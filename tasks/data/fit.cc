#include "tasks/data/fit.h"

#include <fmt/format.h>

#include <algorithm>

#include "harness/core/error.h"

namespace kvsweep {
namespace {

constexpr int64_t kFillerTokens = 8;  // at least so many for the filler: every larger number can be met with words
constexpr int kAttempts = 32;
constexpr int64_t kFirstUnits = 16;  // whose length says how many are needed

// Tokens that `text` adds behind a sentence. Alone it could cost more: SentencePiece puts a space before a text.
int64_t added_tokens(const Tokenizer& tokenizer, const std::string& text) {
  return std::ssize(tokenizer.encode("." + text, false)) - std::ssize(tokenizer.encode(".", false));
}

FittedPrompt assemble(const PromptPlan& plan, const std::vector<std::string>& sentences) {
  FittedPrompt prompt{.context = plan.head, .offsets = std::vector<size_t>(plan.inserts.size()), .ids = {}};
  const auto append = [&](const std::string& text) {
    if (prompt.context.size() > plan.head.size()) prompt.context += plan.separator;
    prompt.context += text;
    return prompt.context.size() - text.size();
  };
  const int64_t count = std::ssize(sentences);
  for (int64_t at = 0; at <= count; ++at) {
    for (size_t i = 0; i < plan.inserts.size(); ++i)
      if (count * plan.inserts[i].depth / 100 == at) prompt.offsets[i] = append(plan.inserts[i].text);
    if (at < count) append(sentences[static_cast<size_t>(at)]);
  }
  return prompt;
}

std::vector<int32_t> ids_of(const FittedPrompt& prompt, const PromptPlan& plan, const Tokenizer& tokenizer) {
  return text_ids(tokenizer, {prompt.context, plan.tail});
}

}  // namespace

Filler::Filler(const Tokenizer& tokenizer, const std::vector<std::string>& words) {
  for (const std::string& word : words)
    words_by_tokens_[std::max<int64_t>(1, added_tokens(tokenizer, " " + word))].push_back(word);
}

std::optional<std::string> Filler::sentence(int64_t tokens, Rng& rng) const {
  const int64_t total = tokens - 1;  // the full stop
  if (total < 1) return std::nullopt;
  std::vector<bool> reachable(static_cast<size_t>(total) + 1);
  reachable[0] = true;
  for (int64_t sum = 1; sum <= total; ++sum)
    for (const auto& [cost, words] : words_by_tokens_)
      if (cost <= sum && reachable[static_cast<size_t>(sum - cost)]) reachable[static_cast<size_t>(sum)] = true;
  if (!reachable[static_cast<size_t>(total)]) return std::nullopt;
  std::string text;
  for (int64_t left = total; left > 0;) {
    std::vector<int64_t> costs;
    for (const auto& [cost, words] : words_by_tokens_)
      if (cost <= left && reachable[static_cast<size_t>(left - cost)]) costs.push_back(cost);
    const int64_t cost = rng.pick(costs);
    text += (text.empty() ? "" : " ") + rng.pick(words_by_tokens_.at(cost));
    left -= cost;
  }
  return text + ".";
}

FittedPrompt fit_prompt(const PromptPlan& plan, const Tokenizer& tokenizer, const Filler& filler, Rng& rng) {
  const int64_t fixed = std::ssize(ids_of(assemble(plan, {}), plan, tokenizer));
  const int64_t room = plan.tokens - fixed;
  if (room < kFillerTokens)
    throw ConfigError(fmt::format("{} = {} is too short: question, needles and frame alone take {} tokens; at least {}",
                                  plan.name, plan.tokens, fixed, fixed + kFillerTokens));
  std::vector<std::string> sentences;
  std::vector<int64_t> costs;
  int64_t missing = room;
  while (true) {
    std::string sentence = plan.next_sentence();
    const int64_t cost = std::max<int64_t>(1, added_tokens(tokenizer, plan.separator + sentence));
    if (missing - cost < kFillerTokens) break;
    sentences.push_back(std::move(sentence));
    costs.push_back(cost);
    missing -= cost;
  }
  for (int attempt = 0; attempt < kAttempts; ++attempt) {
    const auto last = filler.sentence(missing, rng);
    if (!last) {
      if (sentences.empty()) break;
      missing += costs.back();
      costs.pop_back();
      sentences.pop_back();
      continue;
    }
    sentences.push_back(*last);
    FittedPrompt prompt = assemble(plan, sentences);
    prompt.ids = ids_of(prompt, plan, tokenizer);
    missing += plan.tokens - std::ssize(prompt.ids);
    if (std::ssize(prompt.ids) == plan.tokens) {
      CutIds split = cut_ids(tokenizer, {prompt.context, plan.tail}, std::move(prompt.ids));
      prompt.ids = std::move(split.ids);
      prompt.context_tokens = split.context_tokens;
      return prompt;
    }
    sentences.pop_back();
  }
  throw ConfigError(
      fmt::format("{} = {} cannot be met exactly with this tokenizer; try a number nearby", plan.name, plan.tokens));
}

FittedUnits fit_units(const UnitPlan& plan, const Tokenizer& tokenizer) {
  const auto made = [&](int64_t units) {
    FittedUnits fitted{plan.make(units), {}, units};
    fitted.ids = text_ids(tokenizer, fitted.text);
    return fitted;
  };
  FittedUnits best = made(plan.least);
  if (std::ssize(best.ids) > plan.tokens)
    throw ConfigError(fmt::format("{}: a prompt of {} tokens is too short: with the least that it can hold it has {}",
                                  plan.name, plan.tokens, best.ids.size()));
  int64_t too_many = plan.most + 1, step = kFirstUnits;
  while (step > 0 && too_many - best.units > 1) {
    FittedUnits next = made(std::min(best.units + step, too_many - 1));
    const int64_t more = std::max<int64_t>(1, std::ssize(next.ids) - std::ssize(best.ids));
    const double unit = static_cast<double>(more) / static_cast<double>(next.units - best.units);
    if (std::ssize(next.ids) > plan.tokens)
      too_many = next.units;
    else
      best = std::move(next);
    step = static_cast<int64_t>(static_cast<double>(plan.tokens - std::ssize(best.ids)) / unit);
  }
  return best;
}

}  // namespace kvsweep
