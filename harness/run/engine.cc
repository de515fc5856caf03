#include "harness/run/engine.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <numeric>
#include <set>

#include "harness/core/stopwatch.h"
#include "harness/run/fidelity.h"
#include "harness/run/interrupt.h"

namespace kvsweep {
namespace {

// Rows of [positions, vocab] float32 held at once: 64 x 49152 x 4 bytes = 12.6 MB for SmolLM2.
constexpr int64_t kLogitRows = 64;
constexpr int kTimedSteps = 5;

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

struct Engine::Lane {
  const Scheme* scheme = nullptr;
  std::unique_ptr<KvCache> cache;
  int64_t tokens = 0;  // appended so far
  bool generating = true;
  bool same_prefix = true;  // has generated what the reference has generated
  RowResult result;
};

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

Engine::Engine(const Llama& llama, const Tokenizer& tokenizer, const Scheme& reference)
    : llama_(llama), tokenizer_(tokenizer), reference_(reference) {}

std::vector<RowResult> Engine::evaluate(const Sample& sample, const View& view,
                                        const std::vector<const Scheme*>& schemes, bool time_decode) const {
  std::vector<Lane> lanes = make_lanes(sample, schemes);
  feed_context(sample, view, lanes);
  const at::Tensor hidden = feed_query(sample, view, lanes);
  if (time_decode)
    for (Lane& lane : lanes) lane.result.time.decode_ms_per_token = time_decode_alone(lane, sample.query.back());
  if (sample.max_new_tokens > 0) {
    generate(sample, hidden, lanes);
  } else {
    score(sample, hidden, lanes);
  }
  std::vector<RowResult> results;
  size_t lane = 0;
  finish(lanes[0]);
  results.push_back(lanes[0].result);
  for (const Scheme* scheme : schemes) {
    if (!scheme->traits().lossless) finish(lanes[++lane]);
    results.push_back(scheme->traits().lossless ? results[0] : lanes[lane].result);
  }
  return results;
}

std::vector<Engine::Lane> Engine::make_lanes(const Sample& sample, const std::vector<const Scheme*>& schemes) const {
  TORCH_CHECK(!sample.query.empty(), "sample ", sample.id, " has no query: nothing would read the cache");
  TORCH_CHECK(sample.choices.empty() && sample.sampling.temperature == 0, "sample ", sample.id,
              " asks for what this engine does not do: choices or sampling");
  const int64_t expected =
      static_cast<int64_t>(sample.context.size() + sample.query.size()) + sample.max_new_tokens + kTimedSteps;
  std::vector<Lane> lanes(1);
  lanes[0].scheme = &reference_;
  for (const Scheme* scheme : schemes) {
    if (scheme->traits().lossless) continue;
    lanes.emplace_back();
    lanes.back().scheme = scheme;
  }
  for (Lane& lane : lanes) lane.cache = lane.scheme->make_cache(llama_.cache_context(expected));
  return lanes;
}

void Engine::feed_context(const Sample& sample, const View& view, std::vector<Lane>& lanes) const {
  const auto count = static_cast<int64_t>(sample.context.size());
  Stopwatch total(llama_.options().device);
  if (view.chunk_tokens == 0 && count > 0) {
    Stopwatch watch(llama_.options().device);
    const PrefillSink sink = [&](int64_t layer, const KvSlab& slab) {
      check_interrupt();
      for (Lane& lane : lanes) {
        watch.restart();
        lane.cache->append(layer, slab);
        lane.result.time.compress_ms += watch.ms();
      }
    };
    llama_.prefill(sample.context, sink, 0);
    for (Lane& lane : lanes) lane.tokens = count;
  }
  if (view.chunk_tokens > 0) {
    std::vector<Lane*> rows;
    for (Lane& lane : lanes) rows.push_back(&lane);
    for (int64_t begin = 0; begin < count; begin += view.chunk_tokens) {
      const int64_t size = std::min(view.chunk_tokens, count - begin);
      const std::vector<int32_t> chunk(sample.context.begin() + begin, sample.context.begin() + begin + size);
      step(rows, std::vector(rows.size(), chunk), std::vector(rows.size(), std::vector<int64_t>{size}));
    }
  }
  double compress_ms = 0;
  for (Lane& lane : lanes) {
    lane.cache->finish_context();
    compress_ms += lane.result.time.compress_ms;
    lane.result.compressed_reads = 0;  // what the context read of itself is not what is scored
    lane.result.time.attend_ms = 0;
  }
  const double prefill_ms = total.ms() - compress_ms;
  for (Lane& lane : lanes) lane.result.time.prefill_ms = prefill_ms;
}

at::Tensor Engine::feed_query(const Sample& sample, const View& view, std::vector<Lane>& lanes) const {
  const auto context = static_cast<int64_t>(sample.context.size()), count = static_cast<int64_t>(sample.query.size());
  std::vector<Lane*> rows;
  std::vector<std::vector<int64_t>> slabs;
  for (Lane& lane : lanes) {
    rows.push_back(&lane);
    slabs.push_back(view.chunk_tokens > 0
                        ? chunk_slabs(count, view.chunk_tokens)
                        : streaming_slabs(lane.scheme->compressed_from(context, context + count), context, count));
  }
  return step(rows, std::vector(rows.size(), sample.query), slabs);
}

at::Tensor Engine::step(std::vector<Lane*>& lanes, const std::vector<std::vector<int32_t>>& tokens,
                        const std::vector<std::vector<int64_t>>& slabs) const {
  check_interrupt();
  std::vector<Row> rows(lanes.size());
  for (size_t i = 0; i < lanes.size(); ++i) {
    rows[i].cache = lanes[i]->cache.get();
    rows[i].tokens = tokens[i];
    rows[i].position = lanes[i]->tokens;
    rows[i].slabs = slabs[i];
  }
  at::Tensor hidden = llama_.step(rows);
  for (size_t i = 0; i < lanes.size(); ++i) {
    lanes[i]->tokens += static_cast<int64_t>(tokens[i].size());
    lanes[i]->result.compressed_reads += rows[i].compressed_reads;
    lanes[i]->result.time.attend_ms += rows[i].attend_ms;
  }
  return hidden;
}

void Engine::score(const Sample& sample, const at::Tensor& hidden, std::vector<Lane>& lanes) const {
  const auto count = static_cast<int64_t>(sample.query.size());
  const at::Tensor targets = at::tensor(std::vector<int64_t>(sample.query.begin(), sample.query.end()), at::kLong);
  for (int64_t begin = 0; begin < count - 1; begin += kLogitRows) {
    check_interrupt();
    const int64_t size = std::min(kLogitRows, count - 1 - begin);
    at::Tensor reference;
    for (size_t i = 0; i < lanes.size(); ++i) {
      const at::Tensor rows = hidden.narrow(0, static_cast<int64_t>(i) * count + begin, size);
      const at::Tensor log_probs = at::log_softmax(llama_.logits(rows), -1);
      if (i == 0) reference = log_probs;
      RowResult& result = lanes[i].result;
      const std::vector<float> nll = negative_log_likelihood(log_probs, targets.narrow(0, begin + 1, size));
      result.output.nll.insert(result.output.nll.end(), nll.begin(), nll.end());
      const Fidelity fidelity = compare_distributions(reference, log_probs);
      result.kl.insert(result.kl.end(), fidelity.kl.begin(), fidelity.kl.end());
      result.top1_flips += std::count(fidelity.flip.begin(), fidelity.flip.end(), true);
    }
  }
}

void Engine::generate(const Sample& sample, at::Tensor hidden, std::vector<Lane>& lanes) const {
  const std::vector<int32_t> ends = tokenizer_.end_tokens();
  std::vector<Lane*> active;
  std::vector<int64_t> last_rows;
  for (size_t i = 0; i < lanes.size(); ++i) {
    active.push_back(&lanes[i]);
    last_rows.push_back(static_cast<int64_t>((i + 1) * sample.query.size()) - 1);
  }
  hidden = hidden.index_select(0, at::tensor(last_rows, at::kLong).to(hidden.device()));
  at::Tensor reference;
  for (int64_t made = 0;; ++made) {
    const at::Tensor log_probs = at::log_softmax(llama_.logits(hidden), -1);
    const at::Tensor best = log_probs.argmax(-1).to(at::kCPU);
    if (active[0] == &lanes[0]) reference = log_probs.narrow(0, 0, 1);
    std::vector<Lane*> next;
    std::vector<std::vector<int32_t>> tokens;
    for (size_t i = 0; i < active.size(); ++i) {
      Lane& lane = *active[i];
      const auto token = static_cast<int32_t>(best.const_data_ptr<int64_t>()[i]);
      if (lane.same_prefix) {
        const Fidelity fidelity = compare_distributions(reference, log_probs.narrow(0, static_cast<int64_t>(i), 1));
        lane.result.kl.push_back(fidelity.kl[0]);
        lane.same_prefix = !fidelity.flip[0];
        lane.result.top1_flips += fidelity.flip[0] ? 1 : 0;
        if (fidelity.flip[0]) lane.result.first_divergence = made;
      }
      std::vector<int32_t>& output = lane.result.output.tokens;
      const bool ended = std::find(ends.begin(), ends.end(), token) != ends.end();
      if (!ended) output.push_back(token);
      std::string& text = lane.result.output.text;
      text = tokenizer_.decode(output, true);
      const size_t cut = stop_position(text, sample.stop);
      text = lossy_utf8(text.substr(0, cut));
      if (ended || cut != std::string::npos || made + 1 >= sample.max_new_tokens) continue;
      next.push_back(&lane);
      tokens.push_back({token});
    }
    if (next.empty()) return;
    hidden = step(next, tokens, std::vector(next.size(), std::vector<int64_t>{1}));
    active = std::move(next);
  }
}

std::optional<double> Engine::time_decode_alone(const Lane& lane, int32_t token) const {
  if (lane.tokens + kTimedSteps > llama_.config().max_positions) return std::nullopt;
  const std::unique_ptr<KvCache> cache = lane.cache->clone();
  std::vector<double> times;
  for (int i = 0; i < kTimedSteps; ++i) {
    check_interrupt();
    Row row;
    row.cache = cache.get();
    row.tokens = {token};
    row.position = lane.tokens + i;
    row.slabs = {1};
    const Stopwatch watch(llama_.options().device);
    llama_.logits(llama_.step({&row, 1}));
    times.push_back(watch.ms());
  }
  std::sort(times.begin() + 1, times.end());  // the first step warms up
  return times[1 + (kTimedSteps - 1) / 2];
}

void Engine::finish(Lane& lane) const {
  const LlamaConfig& config = llama_.config();
  ByteLedger ledger;
  lane.cache->account(ledger);
  CacheBytes& bytes = lane.result.bytes;
  for (size_t role = 0; role < kByteRoleNames.size(); ++role)
    if (const int64_t live = ledger.live(static_cast<ByteRole>(role)); live > 0)
      bytes.by_role[std::string(kByteRoleNames[role])] = live;
  bytes.live = ledger.live_bytes();
  bytes.reserved = ledger.reserved_bytes();
  ByteLedger shared;
  lane.scheme->account_shared(shared);
  bytes.shared = shared.live_bytes();
  bytes.tokens = lane.tokens;
  bytes.values = 2 * config.layers * config.kv_heads * config.head_dim * lane.tokens;
  lane.result.compressed_reads /= config.layers;
}

}  // namespace kvsweep
