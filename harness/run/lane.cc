#include "harness/run/lane.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <set>

#include "harness/attention/weights.h"
#include "harness/core/stopwatch.h"
#include "harness/run/interrupt.h"

namespace kvsweep {
namespace {

constexpr int kTimedSteps = 4;
constexpr int64_t kHeaviestTokens = 32;  // that are compared with full precision's
// Tokens of the full-precision continuation that are checked at once. What comes after the first difference is wasted,
// so longer is not always better.
constexpr int64_t kVerifyTokens = 16;
// From so many queries on one merged copy of all tokens, read by a matrix product, beats reading the cache as it is.
constexpr int64_t kManyQueries = 64;

std::vector<int64_t> chunk_slabs(int64_t count, int64_t chunk) {
  std::vector<int64_t> slabs(static_cast<size_t>(count / chunk), chunk);
  if (count % chunk > 0) slabs.push_back(count % chunk);
  return slabs;
}

void add_cuts(const at::Tensor& from, int64_t position, int64_t count, std::set<int64_t>& cuts) {
  const int64_t* first_read = from.const_data_ptr<int64_t>();
  for (int64_t t = 0; t < from.numel(); ++t)
    if (first_read[t] > std::max(t, position) && first_read[t] < position + count) cuts.insert(first_read[t]);
}

// Where generated text ends: the first of the stop strings, wherever it starts.
size_t stop_position(const std::string& text, const std::vector<std::string>& stops) {
  size_t at = std::string::npos;
  for (const std::string& stop : stops) at = std::min(at, text.find(stop));
  return at;
}

}  // namespace

std::vector<int64_t> streaming_slabs(const CompressedFrom& from, int64_t position, int64_t count) {
  std::set<int64_t> cuts;
  add_cuts(from.keys, position, count, cuts);
  add_cuts(from.values, position, count, cuts);
  cuts.insert(position + count);
  std::vector<int64_t> slabs;
  for (int64_t begin = position; const int64_t cut : cuts) {
    slabs.push_back(cut - begin);
    begin = cut;
  }
  return slabs;
}

Lane::Lane(const Sample& sample, const View& view, const Scheme& scheme, const Llama& llama, const Tokenizer& tokenizer)
    : sample_(sample), view_(view), scheme_(scheme), llama_(llama), tokenizer_(tokenizer) {
  TORCH_CHECK(!sample.query.empty(), "sample ", sample.id, " has no query: nothing would read the cache");
  for (const std::vector<int32_t>& choice : sample.choices)
    TORCH_CHECK(!choice.empty(), "sample ", sample.id, " has a choice without tokens");
}

void Lane::compare_with(const ReferenceRun* reference, bool reuse) {
  reference_ = reference;
  // How chunks of a context were cut is no longer known when tokens come one by one.
  reuse_ = reuse && (view_.chunk_tokens == 0 || scheme_.traits().append_invariant);
}

void Lane::start(const PrefillTrace* trace) {
  int64_t expected = context_tokens() + static_cast<int64_t>(sample_.query.size()) + sample_.max_new_tokens;
  for (const std::vector<int32_t>& choice : sample_.choices)
    expected = std::max(expected, context_tokens() + static_cast<int64_t>(sample_.query.size() + choice.size()));
  cache_ = scheme_.make_cache(llama_.cache_context(expected + kTimedSteps));
  phase_ = context_tokens() > 0 && view_.chunk_tokens > 0 ? Phase::kContext : Phase::kQuery;
  if (trace == nullptr) return;
  const Stopwatch watch(llama_.options().device);
  for (size_t layer = 0; layer < trace->k.size(); ++layer) {
    check_interrupt();
    cache_->append(static_cast<int64_t>(layer), {trace->k[layer], trace->v[layer], 0});
  }
  cache_->finish_context();
  held_ = trace->tokens();
  result_.time.compress_ms = watch.ms();
}

std::vector<int32_t> Lane::next_tokens() {
  const auto first = [](const std::vector<int32_t>& from, int64_t at, int64_t count) {
    return std::vector<int32_t>(from.begin() + at, from.begin() + at + count);
  };
  switch (phase_) {
    case Phase::kContext:
      return first(sample_.context, held_, std::min(view_.chunk_tokens, context_tokens() - held_));
    case Phase::kQuery: {
      if (!view_.as_decoded) return sample_.query;
      std::vector<int32_t> all = sample_.context;
      all.insert(all.end(), sample_.query.begin(), sample_.query.end());
      return all;
    }
    case Phase::kVerify: {
      const auto decided = static_cast<int64_t>(decisions_.size());
      const auto left = static_cast<int64_t>(reference_->decisions.size()) - decided;
      return first(reference_->decisions, decided - 1, std::min(left, kVerifyTokens));
    }
    case Phase::kChoice: {
      const std::vector<int32_t>& choice = sample_.choices[choice_];
      return first(choice, 0, static_cast<int64_t>(choice.size()) - 1);
    }
    default:
      return {decisions_.back()};
  }
}

// How the tokens are appended and read, so that each query reads what it would read if they came one by one.
void Lane::plan_slabs(int64_t count) {
  row_.forms = nullptr;
  row_.slabs = {count};
  if (count == 1 || phase_ == Phase::kContext) return;
  if (view_.chunk_tokens > 0 && phase_ != Phase::kVerify) {
    row_.slabs = chunk_slabs(count, view_.chunk_tokens);
    return;
  }
  forms_ = scheme_.compressed_from(streamed_context(), held_ + count);
  row_.slabs = streaming_slabs(forms_, held_, count);
  const SchemeTraits traits = scheme_.traits();
  if (!traits.one_pass || (row_.slabs.size() == 1 && count < kManyQueries)) return;
  row_.forms = &forms_;
  row_.slabs = traits.append_invariant ? std::vector<int64_t>{count} : std::vector<int64_t>(size_t(count), 1);
}

void Lane::branch() {
  if (branch_ == nullptr && (phase_ == Phase::kChoice || (phase_ == Phase::kVerify && next_tokens().size() > 1)))
    branch_ = cache_->clone();
}

Row Lane::feed() {
  query_just_read_ = false;
  row_.tokens = next_tokens();
  row_.position = held_;
  row_.kept = nullptr;
  row_.expected_ms = row_.attend_ms;
  const auto count = static_cast<int64_t>(row_.tokens.size());
  plan_slabs(count);
  scored_ = scored_tokens();
  row_.first_needed = scored_.empty() ? count : scored_.front().token;
  row_.cache = cache_.get();
  row_.probed_layers = phase_ == Phase::kQuery ? probed_ : std::span<const int64_t>();
  if (phase_ == Phase::kVerify && count > 1) row_.kept = &kept_;
  if (phase_ == Phase::kChoice) row_.cache = branch_.get();
  return row_;
}

std::vector<ScoredToken> Lane::scored_tokens() const {
  std::vector<ScoredToken> tokens;
  const auto count = static_cast<int64_t>(row_.tokens.size());
  if (phase_ == Phase::kQuery) {
    const auto query = static_cast<int64_t>(sample_.query.size());
    if (!sample_.choices.empty() || sample_.max_new_tokens > 0) {
      tokens.push_back({0, count - 1, {}});
      for (const std::vector<int32_t>& choice : sample_.choices) tokens[0].wanted.push_back(choice.front());
      return tokens;
    }
    for (int64_t i = 0; i + 1 < query; ++i)
      tokens.push_back({i, count - query + i, {sample_.query[static_cast<size_t>(i + 1)]}});
  } else if (phase_ == Phase::kChoice) {
    for (int64_t i = 0; i < count; ++i)
      tokens.push_back({choice_positions_ + i, i, {sample_.choices[choice_][static_cast<size_t>(i + 1)]}});
  } else if (phase_ != Phase::kContext) {
    for (int64_t i = 0; i < count; ++i)
      tokens.push_back({static_cast<int64_t>(decisions_.size()) + i, i, {}, same_prefix_});
  }
  return tokens;
}

void Lane::take(const Row& row, const std::vector<Scores>& scores) {
  row_ = row;
  const auto fed = static_cast<int64_t>(row_.tokens.size());
  if (phase_ != Phase::kChoice) held_ += fed;
  result_.time.attend_ms += row_.attend_ms;
  const auto count_reads = [&](int64_t from, int64_t to) {
    for (int64_t i = from; i < to; ++i) result_.compressed_reads += row_.compressed_reads[static_cast<size_t>(i)];
  };
  switch (phase_) {
    case Phase::kContext:
      result_.time.attend_ms = 0;
      if (held_ < context_tokens()) return;
      cache_->finish_context();
      phase_ = Phase::kQuery;
      return;
    case Phase::kQuery:
      count_reads(fed - static_cast<int64_t>(sample_.query.size()), fed);
      query_just_read_ = true;
      compare_attention();
      return read_query(scores);
    case Phase::kChoice: {
      count_reads(0, fed);
      branch_ = nullptr;
      ChoiceScore& score = result_.output.choices[choice_];
      for (size_t i = 0; i < scores.size(); ++i) {
        score.log_likelihood += scores[i].log_probs[0];
        score.greedy = score.greedy && scores[i].best == sample_.choices[choice_][i + 1];
        result_.kl.push_back(scores[i].kl);
        result_.top1_flips += scores[i].flip;
      }
      choice_positions_ += fed;
      ++choice_;
      return next_choice();
    }
    case Phase::kVerify:
      return verify(scores);
    default:
      count_reads(0, fed);
      if (decide(scores[0])) {
        phase_ = Phase::kDone;
      } else {
        after_decision();
      }
  }
}

void Lane::compare_attention() {
  weights_ = std::move(row_.weights);
  if (weights_.empty()) return;
  const std::vector<at::Tensor>& full = is_reference() ? weights_ : reference_->weights;
  AttentionDrift drift;
  for (size_t i = 0; i < weights_.size(); ++i) {
    const WeightDrift one = compare_weights(full.at(i), weights_[i], kHeaviestTokens);
    const auto share = 1 / static_cast<double>(weights_.size());
    drift.kl += one.kl * share;
    drift.overlap += one.overlap * share;
    drift.oldest += one.oldest * share;
    drift.full_oldest += one.full_oldest * share;
  }
  result_.attention = drift;
}

void Lane::read_query(const std::vector<Scores>& scores) {
  if (!sample_.choices.empty()) {
    for (size_t i = 0; i < sample_.choices.size(); ++i)
      result_.output.choices.push_back(
          {static_cast<double>(scores[0].log_probs[i]), scores[0].best == sample_.choices[i].front()});
    result_.kl.push_back(scores[0].kl);
    result_.top1_flips += scores[0].flip;
    return next_choice();
  }
  if (sample_.max_new_tokens > 0) {
    if (decide(scores[0])) {
      phase_ = Phase::kDone;
    } else {
      after_decision();
    }
    return;
  }
  for (const Scores& one : scores) {
    result_.output.nll.push_back(-one.log_probs[0]);
    result_.kl.push_back(one.kl);
    result_.top1_flips += one.flip;
  }
  phase_ = Phase::kDone;
}

// What the query's last token says of a choice is all there is to a choice of one token.
void Lane::next_choice() {
  while (choice_ < sample_.choices.size() && sample_.choices[choice_].size() == 1) ++choice_;
  phase_ = choice_ < sample_.choices.size() ? Phase::kChoice : Phase::kDone;
}

bool Lane::decide(const Scores& scores) {
  const size_t index = decisions_.size();
  const int32_t token = scores.chosen;
  if (same_prefix_) {
    result_.kl.push_back(scores.kl);
    result_.top1_flips += scores.flip;
    same_prefix_ = is_reference() || token == reference_->decisions[index];
    if (!same_prefix_) result_.first_divergence = static_cast<int64_t>(index);
  }
  decisions_.push_back(token);
  const std::vector<int32_t> ends = tokenizer_.end_tokens();
  const bool ended = std::find(ends.begin(), ends.end(), token) != ends.end();
  if (!ended) result_.output.tokens.push_back(token);
  const std::string text = tokenizer_.decode(result_.output.tokens, true);
  const size_t cut = stop_position(text, sample_.stop);
  result_.output.text = lossy_utf8(text.substr(0, cut));
  return ended || cut != std::string::npos || static_cast<int64_t>(decisions_.size()) >= sample_.max_new_tokens;
}

void Lane::after_decision() {
  phase_ = reuse_ && !is_reference() && same_prefix_ ? Phase::kVerify : Phase::kDecode;
}

void Lane::verify(const std::vector<Scores>& scores) {
  const auto fed = static_cast<int64_t>(scores.size());
  int64_t valid = 0;
  bool ended = false;
  while (valid < fed && !ended && same_prefix_) {
    result_.compressed_reads += row_.compressed_reads[static_cast<size_t>(valid)];
    ended = decide(scores[static_cast<size_t>(valid++)]);
  }
  if (fed > 1) result_.reused_tokens += valid;
  if (valid < fed) roll_back(valid);
  branch_ = nullptr;
  if (ended) {
    phase_ = Phase::kDone;
  } else {
    after_decision();
  }
}

// The cache as if only the first `valid` tokens of the chunk had come.
void Lane::roll_back(int64_t valid) {
  const int64_t start = held_ - static_cast<int64_t>(row_.tokens.size());
  cache_ = std::move(branch_);
  const int64_t slab = scheme_.traits().append_invariant ? valid : 1;
  for (size_t layer = 0; layer < kept_.size(); ++layer)
    for (int64_t at = 0; at < valid; at += slab)
      cache_->append(static_cast<int64_t>(layer),
                     {kept_[layer].k.narrow(1, at, slab), kept_[layer].v.narrow(1, at, slab), start + at});
  held_ = start + valid;
}

void Lane::time_decode() {
  if (held_ + kTimedSteps > llama_.config().max_positions) return;
  const std::unique_ptr<KvCache> cache = cache_->clone();
  std::vector<double> times;
  bool fused = true;
  for (int i = 0; i < kTimedSteps; ++i) {
    check_interrupt();
    Row row;
    row.cache = cache.get();
    row.tokens = {sample_.query.back()};
    row.position = held_ + i;
    row.slabs = {1};
    const Stopwatch watch(llama_.options().device);
    llama_.logits(llama_.step({&row, 1}));
    times.push_back(watch.ms());
    fused = fused && row.fused;
  }
  std::sort(times.begin() + 1, times.end());  // the first step warms up
  result_.time.decode_ms_per_token = times[1 + (kTimedSteps - 1) / 2];
  result_.time.path = fused ? "fused" : "reference";
}

void Lane::finish() {
  const LlamaConfig& config = llama_.config();
  ByteLedger ledger;
  cache_->account(ledger);
  CacheBytes& bytes = result_.bytes;
  for (size_t role = 0; role < kByteRoleNames.size(); ++role)
    if (const int64_t live = ledger.live(static_cast<ByteRole>(role)); live > 0)
      bytes.by_role[std::string(kByteRoleNames[role])] = live;
  bytes.live = ledger.live_bytes();
  bytes.reserved = ledger.reserved_bytes();
  ByteLedger shared;
  scheme_.account_shared(shared);
  bytes.shared = shared.live_bytes();
  bytes.tokens = held_;
  bytes.values = 2 * config.layers * config.kv_heads * config.head_dim * held_;
  result_.compressed_reads /= config.layers;
}

}  // namespace kvsweep
