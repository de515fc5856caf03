#include "harness/run/engine.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <c10/util/Exception.h>
#include <fmt/format.h>

#include <algorithm>
#include <deque>
#include <list>
#include <memory>
#include <new>

#include "harness/core/random.h"
#include "harness/core/shared_tasks.h"
#include "harness/core/stopwatch.h"
#include "harness/run/fidelity.h"
#include "harness/run/interrupt.h"
#include "harness/run/lane.h"
#include "harness/run/prefills.h"

namespace kvsweep {
namespace {

// Rows of [positions, vocab] float32 held at once: 64 x 49152 x 4 bytes = 12.6 MB for SmolLM2.
constexpr size_t kLogitRows = 64;
// Tokens that pass through the model in one step, if one row alone does not have more.
constexpr int64_t kStepTokens = 4096;
// Rows from which a larger batch gains nothing: on a CPU products are bound by arithmetic, on a GPU by launches.
constexpr int64_t kCpuRows = 64, kGpuRows = 512;
// Prefilled contexts that are held at least, memory allowing, for rows that wait for their turn. A batch is full as
// long as there are such rows, so the next contexts are prefilled, and read in full precision, before it needs them.
constexpr int64_t kHeldSamples = 4;
// Tokens of contexts beyond which no more than that are held: what is prefilled ahead is lost when a run is stopped.
constexpr int64_t kHeldTokens = 32768;

// What went wrong, for a record; whether it was memory.
struct Failure {
  std::string message;
  bool memory = false;
};

std::string first_line(const std::string& text) {
  return text.substr(0, text.find('\n'));
}

Failure failure_of(const std::exception_ptr& error) {
  try {
    std::rethrow_exception(error);
  } catch (const Interrupted&) {
    throw;
  } catch (const c10::OutOfMemoryError& thrown) {
    return {first_line(thrown.what_without_backtrace()), true};
  } catch (const c10::Error& thrown) {
    const std::string message = first_line(thrown.what_without_backtrace());
    return {message, message.find("not enough memory") != std::string::npos};  // the CPU's allocator
  } catch (const std::bad_alloc&) {
    return {"out of memory", true};
  } catch (const std::exception& thrown) {
    return {first_line(thrown.what()), false};
  }
}

// Runs `work`; what it throws, other than Interrupted.
template <class F>
std::optional<Failure> attempt(const F& work) {
  try {
    work();
    return std::nullopt;
  } catch (...) {
    return failure_of(std::current_exception());
  }
}

// The token that a random number picks, u uniform in [0, 1): the first at which the probabilities, largest first, add
// up to more than u of those within top_p.
int32_t sampled(const at::Tensor& log_probs, const Sampling& sampling, double u) {
  const at::Tensor probs = at::softmax(log_probs.to(at::kCPU, at::kDouble) / sampling.temperature, -1);
  const auto [sorted, tokens] = probs.sort(/*stable=*/true, -1, /*descending=*/true);
  const double* p = sorted.const_data_ptr<double>();
  int64_t kept = 0;
  double total = 0;
  while (kept < sorted.numel() && (kept == 0 || total < sampling.top_p)) total += p[kept++];
  double sum = 0;
  int64_t at = 0;
  while (at + 1 < kept && (sum += p[at]) <= u * total) ++at;
  return static_cast<int32_t>(tokens.const_data_ptr<int64_t>()[at]);
}

}  // namespace

// One call of Engine::run().
class EngineRun {
 public:
  EngineRun(const Engine& engine, const EngineWork& work, const EngineOptions& options, const Engine::Done& done)
      : engine_(engine),
        work_(work),
        options_(options),
        done_(done),
        errors_(work.schemes.size() + 1),
        prefills_(engine.llama_, work.samples) {
    limit_ = options.rows > 0 ? options.rows : engine.llama_.options().device.is_cpu() ? kCpuRows : kGpuRows;
    // With few schemes half of the rows or so are full precision's, whose contexts are held.
    held_limit_ = std::max(kHeldSamples, limit_ / (1 + std::ssize(work.schemes)));
  }

  void run() {
    while (true) {
      while (may_open()) open();
      admit();
      if (!active_.empty())
        step();
      else if (queue_.empty() && next_ >= work_.samples.size())
        break;
    }
  }

 private:
  // A sample in flight. Row 0 is full precision, then the schemes; the last may be the noise row.
  struct Job {
    const Sample* sample = nullptr;
    PrefillTrace trace;
    double prefill_ms = 0;
    ReferenceRun reference;
    SampleOutcome outcome;
    int64_t waiting = 0;   // rows that have no cache yet
    int64_t open = 0;      // rows that have no result yet
    bool started = false;  // every row has had its cache
  };
  struct Pending {
    Job* job;
    size_t row;
    bool again = false;  // has failed for want of memory before
  };
  struct Active {
    Pending what;
    int64_t bytes;
    std::unique_ptr<Lane> lane;
    std::vector<Scores> scores;         // of the step
    std::unique_ptr<PrefillTrace> own;  // of this row alone, until it has started
  };
  struct Item {
    Active* active;
    size_t slot;  // among the scores of its lane
    ScoredToken token;
    int64_t hidden_row;
  };

  const Llama& llama() const { return engine_.llama_; }
  size_t noise_row() const { return work_.schemes.size() + 1; }
  bool with_noise() const { return !llama().row_invariant() && !options_.alone; }
  const Scheme& scheme_of(size_t row) const {
    return row == 0 || row == noise_row() ? engine_.reference_ : *work_.schemes[row - 1];
  }
  bool failed(size_t row) const { return row < errors_.size() && !errors_[row].empty(); }
  bool replayed() const { return work_.view.chunk_tokens == 0 && !work_.view.as_decoded; }

  int64_t bytes_of(const Sample& sample, size_t row) const {
    if (work_.cache_bytes.empty()) return 0;
    const int64_t bytes = work_.cache_bytes[row == noise_row() ? 0 : row];
    const bool branches = row > 0 && (sample.max_new_tokens > 1 ? options_.greedy_reuse : !sample.choices.empty());
    return branches ? 2 * bytes : bytes;
  }
  bool fits(int64_t more) const {
    return options_.cache_budget == 0 || used_ + prefills_.held_bytes() + more <= options_.cache_budget;
  }

  bool may_open() const {
    if (next_ >= work_.samples.size()) return false;
    if (jobs_.empty()) return true;
    const int64_t held = held_samples();
    if (held >= held_limit_ || (held >= kHeldSamples && held_tokens() >= kHeldTokens)) return false;
    const int64_t trace = work_.cache_bytes.empty() ? 0 : work_.cache_bytes[0];
    return fits(3 * trace);  // its prefill, its rows' first caches
  }

  int64_t held_samples() const {
    return std::count_if(jobs_.begin(), jobs_.end(), [](const Job& job) { return !job.started; });
  }
  int64_t held_tokens() const {
    int64_t tokens = 0;
    for (const Job& job : jobs_) tokens += job.started ? 0 : std::ssize(job.sample->context);
    return tokens;
  }

  void open() {
    Job& job = jobs_.emplace_back();
    job.sample = work_.samples[next_];
    job.outcome.sample = next_++;
    job.outcome.rows.resize(work_.schemes.size() + 1);
    if (replayed()) {
      const Stopwatch watch(llama().options().device);
      Prefills::Context context;
      if (const auto failure = attempt([&] { context = prefills_.of(job.outcome.sample); })) {
        const bool beside = jobs_.size() > 1;
        if (failure->memory && (beside || prefills_.held_bytes() > 0)) {
          if (beside) held_limit_ = held_samples() - 1;  // when the samples before it are done
          prefills_.release();
          --next_;
          jobs_.pop_back();
          return;
        }
        for (RowOutcome& row : job.outcome.rows) row.error = failure->message;
        return close(job);
      }
      job.prefill_ms = watch.ms();
      job.trace = std::move(context.trace);
      job.outcome.prefilled_tokens = context.prefilled;
      used_ += job.trace.bytes();
    }
    job.waiting = job.open = 1;
    queue_.push_front({&job, 0});
  }

  // After the full-precision row, the rows that are compared with it.
  void queue_rows(Job& job) {
    for (size_t row = 1; row <= work_.schemes.size(); ++row) {
      if (work_.schemes[row - 1]->traits().lossless || failed(row)) continue;
      queue_.push_back({&job, row});
      ++job.waiting;
      ++job.open;
    }
    if (with_noise()) {
      queue_.push_back({&job, noise_row()});
      ++job.waiting;
      ++job.open;
    }
  }

  void admit() {
    std::vector<Active*> fresh;
    while (!queue_.empty() && static_cast<int64_t>(active_.size()) < limit_) {
      const Pending next = queue_.front();
      const int64_t bytes = bytes_of(*next.job->sample, next.row);
      if (!fits(bytes)) {
        if (!active_.empty()) break;
        prefills_.release();
      }
      queue_.pop_front();
      if (failed(next.row)) {
        if (--next.job->waiting == 0) all_started(*next.job);
        leave(*next.job);
        continue;
      }
      fresh.push_back(&active_.emplace_back(Active{next, bytes, nullptr, {}, {}}));
      used_ += bytes;
    }
    start(fresh);
  }

  // Calls work(active) for all of them side by side, since a layer of one cache is too little work to share; takes out
  // those for which it throws.
  template <class F>
  void for_each(std::vector<Active*>& all, const F& work) {
    std::vector<std::optional<Failure>> failures(all.size());
    for_each_task(std::ssize(all), llama().options().device.is_cpu() ? at::get_num_threads() : 1, [&](int64_t task) {
      const auto i = static_cast<size_t>(task);
      failures[i] = attempt([&] { work(*all[i]); });
    });
    std::vector<Active*> whole;
    for (size_t i = 0; i < all.size(); ++i)
      if (failures[i])
        failures_.emplace_back(all[i], *failures[i]);
      else
        whole.push_back(all[i]);
    all = std::move(whole);
  }

  void start(const std::vector<Active*>& fresh) {
    std::vector<Active*> whole;
    for (Active* active : fresh)
      if (const auto failure = attempt([&] { make_lane(*active); }))
        failures_.emplace_back(active, *failure);
      else
        whole.push_back(active);
    for_each(whole, [&](Active& active) {
      const PrefillTrace* trace = active.own ? active.own.get() : &active.what.job->trace;
      active.lane->start(replayed() ? trace : nullptr);
    });
    for (Active* active : fresh) {
      Job& job = *active->what.job;
      active->own.reset();
      --job.waiting;
      // The full-precision row is followed by the others.
      if (active->what.row > 0 && job.waiting == 0) all_started(job);
    }
    settle();
  }

  void make_lane(Active& active) {
    const auto& [job, row, again] = active.what;
    active.lane = std::make_unique<Lane>(*job->sample, work_.view, scheme_of(row), llama(), engine_.tokenizer_);
    if (row > 0) active.lane->compare_with(&job->reference, options_.greedy_reuse);
    active.lane->probe(options_.attention_layers);
    active.lane->result().time.prefill_ms = job->prefill_ms;
    // The trace is gone when every row has had it once.
    if (replayed() && again && job->trace.k.empty())
      active.own = std::make_unique<PrefillTrace>(prefills_.of(job->outcome.sample).trace);
  }

  void all_started(Job& job) {
    used_ -= job.trace.bytes();
    job.trace = {};
    job.started = true;
  }

  void step() {
    check_interrupt();
    std::vector<Active*> waiting, lanes;
    for (Active& active : active_) waiting.push_back(&active);
    for_each(waiting, [](Active& active) { active.lane->branch(); });
    std::vector<Row> rows;
    int64_t tokens = 0;
    for (Active* active : waiting) {
      if (tokens >= kStepTokens) break;
      const auto failure = attempt([&] { rows.push_back(active->lane->feed()); });
      if (failure) {
        failures_.emplace_back(active, *failure);
      } else {
        lanes.push_back(active);
        tokens += std::ssize(rows.back().tokens);
      }
    }
    if (!lanes.empty()) {
      at::Tensor hidden;
      if (const auto failure = attempt([&] { hidden = llama().try_step(rows); })) {
        for (Active* lane : lanes) failures_.emplace_back(lane, *failure);
      } else {
        take(lanes, rows, hidden);
      }
    }
    settle();
  }

  void take(const std::vector<Active*>& lanes, std::vector<Row>& rows, const at::Tensor& hidden) {
    std::vector<Item> items;
    std::vector<size_t> whole;
    int64_t first = 0;
    for (size_t i = 0; i < lanes.size(); ++i) {
      const int64_t begin = first;
      first += static_cast<int64_t>(rows[i].tokens.size());
      if (rows[i].error) {
        failures_.emplace_back(lanes[i], failure_of(rows[i].error));
        continue;
      }
      whole.push_back(i);
      for (const ScoredToken& token : lanes[i]->lane->scored()) {
        const size_t slot = lanes[i]->scores.size();
        const int64_t row = begin + token.token;
        lanes[i]->scores.emplace_back();
        if (lanes[i]->what.row == 0) lanes[i]->what.job->reference.hidden.push_back(hidden.narrow(0, row, 1).clone());
        items.push_back({lanes[i], slot, token, row});
      }
    }
    score(items, hidden);
    for (const size_t i : whole) {
      Active& active = *lanes[i];
      Lane& lane = *active.lane;
      const auto failure = attempt([&] {
        lane.take(rows[i], active.scores);
        if (active.what.row == 0 && lane.query_just_read()) active.what.job->reference.weights = lane.weights();
        active.scores.clear();
        const bool timed = options_.time_first && active.what.job->outcome.sample == 0 && lane.query_just_read();
        if (timed && active.what.row != noise_row()) lane.time_decode();
        if (lane.done()) lane.finish();
      });
      if (failure) failures_.emplace_back(&active, *failure);
    }
  }

  // Positions of one sample together, so that rows share the reference's logits.
  void score(std::vector<Item>& items, const at::Tensor& hidden) const {
    const auto key = [](const Item& item) {
      return std::pair(item.active->what.job->outcome.sample, item.token.position);
    };
    std::stable_sort(items.begin(), items.end(), [&](const Item& a, const Item& b) { return key(a) < key(b); });
    for (size_t begin = 0; begin < items.size();) {
      check_interrupt();
      std::vector<int64_t> step_rows, own, reference;
      std::vector<at::Tensor> references;
      const Item* latest = nullptr;  // whose reference was added last
      size_t end = begin;
      for (; end < items.size() && step_rows.size() + references.size() + 2 <= kLogitRows; ++end) {
        const Item& item = items[end];
        own.push_back(static_cast<int64_t>(step_rows.size()));
        step_rows.push_back(item.hidden_row);
        const bool compared = item.token.compared && item.active->what.row > 0;
        if (compared && (latest == nullptr || key(item) != key(*latest))) {
          references.push_back(item.active->what.job->reference.hidden.at(static_cast<size_t>(item.token.position)));
          latest = &item;
        }
        reference.push_back(compared ? -static_cast<int64_t>(references.size()) : own.back());
      }
      for (int64_t& row : reference)
        if (row < 0) row = static_cast<int64_t>(step_rows.size()) - row - 1;
      references.insert(references.begin(),
                        hidden.index_select(0, at::tensor(step_rows, at::kLong).to(hidden.device())));
      const at::Tensor log_probs = at::log_softmax(llama().logits(at::cat(references)), -1);
      read_scores({items.data() + begin, end - begin}, log_probs, own, reference);
      begin = end;
    }
  }

  static void read_scores(std::span<Item> items, const at::Tensor& log_probs, const std::vector<int64_t>& own,
                          const std::vector<int64_t>& reference) {
    const Fidelity fidelity = compare_rows(log_probs, own, reference);
    std::vector<int64_t> rows, tokens;
    for (size_t i = 0; i < items.size(); ++i)
      for (const int32_t token : items[i].token.wanted) {
        rows.push_back(own[i]);
        tokens.push_back(token);
      }
    const std::vector<float> wanted = log_probs_of(log_probs, rows, tokens);
    auto next = wanted.begin();
    for (size_t i = 0; i < items.size(); ++i) {
      const Item& item = items[i];
      const Sampling& sampling = item.active->what.job->sample->sampling;
      Scores& scores = item.active->scores[item.slot];
      scores.kl = fidelity.kl[i];
      scores.flip = fidelity.flip[i];
      scores.best = scores.chosen = fidelity.best[i];
      if (sampling.temperature > 0) {
        Rng rng(derive_seed(sampling.seed, fmt::format("token/{}", item.token.position)));
        scores.chosen = sampled(log_probs.select(0, own[i]), sampling, rng.uniform());
      }
      scores.log_probs.assign(next, next + std::ssize(item.token.wanted));
      next += std::ssize(item.token.wanted);
    }
  }

  // Takes away what has finished or failed.
  void settle() {
    const auto beside = static_cast<int64_t>(active_.size());
    for (const auto& [active, failure] : failures_) {
      if (failure.memory) prefills_.release();
      if (failure.memory && beside > 1) {
        limit_ = std::max<int64_t>(1, beside / 2);
        try_again(*active);
      } else {
        fail(*active, failure);
      }
    }
    failures_.clear();
    for (auto at = active_.begin(); at != active_.end();) {
      Active& active = *at++;
      if (active.lane != nullptr && active.lane->done()) complete(active);
    }
  }

  void try_again(Active& active) {
    Pending what = active.what;
    what.again = true;
    ++what.job->waiting;
    remove(active);
    if (what.row == 0) {
      what.job->reference = {};
      queue_.push_front(what);
    } else {
      queue_.push_back(what);
    }
  }

  void remove(Active& active) {
    used_ -= active.bytes;
    active_.remove_if([&](const Active& one) { return &one == &active; });
  }

  void fail(Active& active, const Failure& failure) {
    Job& job = *active.what.job;
    const size_t row = active.what.row;
    remove(active);
    if (row == 0)
      for (RowOutcome& outcome : job.outcome.rows) outcome.error = "full precision: " + failure.message;
    if (row > 0 && row < errors_.size() && !failed(row))
      errors_[row] = fmt::format("sample {}: {}", job.sample->id, failure.message);
    leave(job);
  }

  void complete(Active& active) {
    Job& job = *active.what.job;
    const size_t row = active.what.row;
    if (row == 0) {
      job.reference.decisions = active.lane->decisions();
      job.outcome.rows[0].result = std::move(active.lane->result());
      remove(active);
      queue_rows(job);
      if (job.waiting == 0) all_started(job);
    } else {
      if (row == noise_row())
        job.outcome.noise = std::move(active.lane->result());
      else
        job.outcome.rows[row].result = std::move(active.lane->result());
      remove(active);
    }
    leave(job);
  }

  void leave(Job& job) {
    if (--job.open == 0) close(job);
  }

  void close(Job& job) {
    all_started(job);
    for (size_t row = 1; row <= work_.schemes.size(); ++row) {
      RowOutcome& outcome = job.outcome.rows[row];
      if (work_.schemes[row - 1]->traits().lossless) outcome = job.outcome.rows[0];
      if (failed(row)) outcome.error = errors_[row];
    }
    done_(std::move(job.outcome));
    jobs_.remove_if([&](const Job& one) { return &one == &job; });
  }

  const Engine& engine_;
  const EngineWork& work_;
  const EngineOptions& options_;
  const Engine::Done& done_;
  int64_t limit_ = 1;       // rows of a batch
  int64_t held_limit_ = 0;  // contexts at once
  size_t next_ = 0;         // sample to be opened
  int64_t used_ = 0;        // bytes of traces and planned bytes of caches
  std::list<Job> jobs_;
  std::deque<Pending> queue_;
  std::list<Active> active_;
  std::vector<std::pair<Active*, Failure>> failures_;  // of this step
  std::vector<std::string> errors_;                    // by row: of schemes that have failed
  Prefills prefills_;
};

Engine::Engine(const Llama& llama, const Tokenizer& tokenizer, const Scheme& reference)
    : llama_(llama), tokenizer_(tokenizer), reference_(reference) {}

void Engine::run(const EngineWork& work, const EngineOptions& options, const Done& done) const {
  if (options.alone) return run_alone(work, options, done);
  EngineRun(*this, work, options, done).run();
}

void Engine::run_alone(const EngineWork& work, EngineOptions options, const Done& done) const {
  options.rows = 1;
  options.greedy_reuse = false;
  std::vector<std::string> errors(work.schemes.size());  // of schemes that have failed
  for (size_t sample = 0; sample < work.samples.size(); ++sample) {
    SampleOutcome all;
    all.sample = sample;
    all.rows.resize(work.schemes.size() + 1);
    bool read = false;  // in full precision
    const auto run_one = [&](std::span<const Scheme* const> scheme, size_t row) {
      EngineWork one{{work.samples[sample]}, work.view, {scheme.begin(), scheme.end()}, {}};
      if (!work.cache_bytes.empty()) one.cache_bytes = {work.cache_bytes[0], work.cache_bytes[row]};
      EngineRun(*this, one, options, [&](SampleOutcome&& outcome) {
        if (row > 0) all.rows[row] = std::move(outcome.rows[1]);
        all.rows[0] = std::move(outcome.rows[0]);
        all.prefilled_tokens = outcome.prefilled_tokens;
        read = all.rows[0].error.empty();
      }).run();
    };
    for (size_t i = 0; i < work.schemes.size(); ++i) {
      RowOutcome& row = all.rows[i + 1];
      if (errors[i].empty())
        run_one({&work.schemes[i], 1}, i + 1);
      else
        row.error = errors[i];
      if (read) errors[i] = row.error;
    }
    if (!read) run_one({}, 0);
    options.time_first = false;
    done(std::move(all));
  }
}

}  // namespace kvsweep
