#include "harness/run/runner.h"

#include <ATen/ATen.h>
#include <c10/core/InferenceMode.h>
#include <fmt/format.h>
#include <fnmatch.h>

#include <algorithm>
#include <map>

#include "harness/core/error.h"
#include "harness/core/hash.h"
#include "harness/core/log.h"
#include "harness/report/store.h"
#include "harness/run/engine.h"
#include "harness/run/interrupt.h"
#include "harness/run/plan.h"
#include "harness/run/progress.h"
#include "harness/run/provenance.h"
#include "harness/run/reference.h"
#include "harness/run/sampling.h"
#include "harness/run/sweep.h"
#include "models/load_model.h"
#include "models/weight_source.h"
#include "tasks/data/locate.h"

namespace kvsweep {
namespace {

namespace fs = std::filesystem;

std::string first_line(const std::string& text) {
  return text.substr(0, text.find('\n'));
}

std::string hash_of_prompt(const Sample& sample) {
  return sha256_hex(fmt::format("{}|{}", fmt::join(sample.context, " "), fmt::join(sample.query, " ")));
}

// One group of a sweep while it runs.
struct GroupRun {
  const SweepGroup* group = nullptr;
  int64_t order = 0;  // within the sweep
  std::vector<const SweepPoint*> pending;
  std::vector<Sample> samples;
  Point reference;
  std::string reference_id;
  std::string data_sha256;
  int64_t layers = 0;  // of the model
  GroupPlan plan;
};

class SweepRun {
 public:
  SweepRun(Sweep sweep, RunOptions options)
      : sweep_(std::move(sweep)),
        options_(std::move(options)),
        reference_(find_reference()),
        locator_(default_data_roots(options_.data)) {}

  int run();

 private:
  bool selected(const SweepPoint& point) const;
  std::vector<const SweepPoint*> pending_points(const SweepGroup& group) const;
  int64_t sample_count(const SweepGroup& group) const;
  void check_before_start() const;
  void check_fits_model(const SweepGroup& group) const;
  void run_model(const std::string& model);
  void prepare(GroupRun& run, const LoadedModel& model);
  std::vector<Sample> make_samples(const SweepGroup& group, const LoadedModel& model);
  void print_plan(const std::string& model, const LoadedModel& loaded, const std::vector<GroupRun>& runs) const;
  void run_group(GroupRun& run, const LoadedModel& model, Progress& progress);
  bool own(const GroupRun& run, const Sample& sample) const;
  int64_t own_samples(const GroupRun& run) const;
  bool sample_done(const GroupRun& run, const Sample& sample) const;
  ShardGroup shard_group(const GroupRun& run) const;
  void evaluate_sample(GroupRun& run, const LoadedModel& model, int64_t index);
  std::vector<RowResult> evaluate_or_fail(GroupRun& run, const LoadedModel& model, const Sample& sample, bool timed);
  std::optional<std::string> error_of(const Engine& engine, const Sample& sample, const View& view,
                                      const std::vector<const Scheme*>& schemes, bool timed,
                                      std::vector<RowResult>& results) const;
  void write_records(const GroupRun& run);
  Record blank_record(const GroupRun& run, const SweepPoint& point) const;
  void fail(GroupRun& run, const SweepPoint& point, const std::string& error);
  std::vector<SampleRecord> samples_of(const GroupRun& run, const std::string& point_id) const;

  Sweep sweep_;
  RunOptions options_;
  Reference reference_;
  DataLocator locator_;
  std::unique_ptr<Store> store_;
  Progress* progress_ = nullptr;
  Provenance env_;
  std::vector<std::string> warnings_;
  int64_t failed_ = 0, written_ = 0;
};

int64_t SweepRun::sample_count(const SweepGroup& group) const {
  const int64_t count = group.task->sample_count();
  return options_.limit ? std::min(*options_.limit, count) : count;
}

std::vector<const SweepPoint*> SweepRun::pending_points(const SweepGroup& group) const {
  std::vector<const SweepPoint*> pending;
  for (const SweepPoint& point : group.points) {
    if (!selected(point)) continue;
    if (store_) {
      const auto record = store_->finished().find(point.id);
      if (record != store_->finished().end() && record->second.n == sample_count(group)) continue;
    }
    pending.push_back(&point);
  }
  return pending;
}

// Lengths and shapes, from the model's configuration alone.
void SweepRun::check_fits_model(const SweepGroup& group) const {
  const LlamaConfig config = read_config(resolve_model(group.model).path);
  const int64_t tokens = group.task->tokens(), generated = group.task->generated_tokens();
  if (tokens + generated > config.max_positions)
    throw ConfigError(fmt::format("{}:{}: {}.tokens = {}{}: the model {} allows {} tokens", sweep_.file.string(),
                                  group.task_line, group.points.front().point.task, tokens,
                                  generated > 0 ? fmt::format(" and {} generated", generated) : "", group.model,
                                  config.max_positions));
  CacheContext context;
  context.layers = config.layers;
  context.kv_heads = config.kv_heads;
  context.head_dim = config.head_dim;
  const RopeTable table = rope_table(config.rope, config.head_dim, config.max_positions);
  const Rope rope(table.inv_freq, table.attention_scaling, at::kCPU, 1);
  context.rope = &rope;
  const auto needs_weights = [](const SweepPoint& point) { return point.scheme->traits().calibrated; };
  if (std::any_of(group.points.begin(), group.points.end(), needs_weights))
    context.weights_sha256 = open_weights(resolve_model(group.model).path)->sha256();
  for (const SweepPoint& point : group.points) point.scheme->make_cache(context);
}

// What can be found wrong before anything is written.
void SweepRun::check_before_start() const {
  int64_t points = 0, matched = 0;
  for (const SweepGroup& group : sweep_.groups) {
    check_fits_model(group);
    for (const std::string& data : group.task->data()) locator_.find(data);
    points += std::ssize(group.points);
    matched +=
        std::count_if(group.points.begin(), group.points.end(), [&](const auto& point) { return selected(point); });
  }
  if (matched == 0)
    throw ConfigError(fmt::format("--only '{}' matches none of the {} points, e.g. '{}'", options_.only.value_or(""),
                                  points, sweep_.groups.front().points.front().point.label()));
}

bool SweepRun::selected(const SweepPoint& point) const {
  return !options_.only || fnmatch(options_.only->c_str(), point.point.label().c_str(), 0) == 0;
}

int SweepRun::run() {
  check_before_start();
  const fs::path out = options_.out.value_or(fs::path("results") / sweep_.name);
  if (!options_.dry_run) store_ = std::make_unique<Store>(out, sweep_.ids(), options_.shard);
  std::vector<std::string> models;
  int64_t points = 0, pending = 0;
  for (const SweepGroup& group : sweep_.groups) {
    const int64_t count = std::ssize(pending_points(group));
    points += std::ssize(group.points);
    pending += count;
    if (count > 0 && std::find(models.begin(), models.end(), group.model) == models.end())
      models.push_back(group.model);
  }
  log(fmt::format("{}: {} points in {} groups, {} to run", sweep_.name, points, sweep_.groups.size(), pending));
  for (const std::string& model : models) run_model(model);
  if (options_.dry_run) return kExitOk;
  if (options_.shard)
    log(fmt::format("{}: shard {} is done, {} points failed; `kvsweep merge {}` makes the records of all shards",
                    out.string(), options_.shard->text(), failed_, out.string()));
  else
    log(fmt::format("{}: {} records written, {} failed; `kvsweep report {}` prints the tables", out.string(), written_,
                    failed_, out.string()));
  return failed_ > 0 ? kExitFailedPoints : kExitOk;
}

void SweepRun::run_model(const std::string& model) {
  const LoadedModel loaded = load_model(resolve_model(model));
  env_ = provenance_of(loaded, options_.command);
  warnings_ = loaded.llama->weight_warnings();
  for (const std::string& warning : warnings_) warn(warning);
  const Speed speed = measure_speed(*loaded.llama, *reference_.scheme);
  std::vector<GroupRun> runs;
  for (const SweepGroup& group : sweep_.groups) {
    if (group.model != model) continue;
    GroupRun run;
    run.group = &group;
    run.order = &group - sweep_.groups.data();
    run.layers = loaded.llama->config().layers;
    run.pending = pending_points(group);
    if (run.pending.empty()) continue;
    std::vector<const Scheme*> schemes;
    for (const SweepPoint* point : run.pending) schemes.push_back(point->scheme.get());
    const int64_t shards = options_.shard ? options_.shard->count : 1;
    run.plan = plan_group(group, schemes, *reference_.scheme, *loaded.llama, speed,
                          (sample_count(group) + shards - 1) / shards);
    runs.push_back(std::move(run));
  }
  print_plan(model, loaded, runs);
  if (options_.dry_run) return;
  double seconds = 0;
  int64_t items = 0;
  std::map<std::string, std::string> facts = {{"weights of " + loaded.spec.name, loaded.weights_sha256}};
  for (GroupRun& run : runs) {
    prepare(run, loaded);
    if (!run.data_sha256.empty()) facts["data of " + join(run.group->task->data())] = run.data_sha256;
    seconds += run.plan.seconds_per_sample * static_cast<double>(own_samples(run));
    items += own_samples(run) * std::ssize(run.pending);
  }
  store_->require_facts(facts);
  Progress progress(seconds, items, "samples");
  progress_ = &progress;
  for (GroupRun& run : runs) {
    if (options_.shard && own_samples(run) > 0) store_->append(shard_group(run));
    run_group(run, loaded, progress);
  }
  progress_ = nullptr;
}

void SweepRun::prepare(GroupRun& run, const LoadedModel& model) {
  const SweepGroup& group = *run.group;
  run.samples = make_samples(group, model);
  run.reference = group.points.front().point;
  run.reference.scheme = reference_.name;
  run.reference.scheme_params = reference_.params;
  run.reference_id = run.reference.id();
  run.data_sha256 = data_sha256(locator_, group.task->data());
}

std::vector<Sample> SweepRun::make_samples(const SweepGroup& group, const LoadedModel& model) {
  const ModelText text = [&](int64_t sequences, int64_t tokens, uint64_t seed) {
    return model_texts(model, *reference_.scheme, sequences, tokens, seed);
  };
  const TaskContext context{*model.tokenizer, locator_, text, group.seed};
  std::vector<Sample> samples = group.task->samples(context);
  samples.resize(std::min(samples.size(), static_cast<size_t>(sample_count(group))));
  return samples;
}

void SweepRun::print_plan(const std::string& model, const LoadedModel& loaded,
                          const std::vector<GroupRun>& runs) const {
  FILE* to = options_.dry_run ? stdout : stderr;
  const int64_t weights = loaded.llama->weight_bytes();
  int64_t peak = 0;
  double seconds = 0;
  fmt::print(to, "plan for {} ({}, {} of weights)\n", model, env_.device, human_bytes(static_cast<double>(weights)));
  for (const GroupRun& run : runs) {
    const GroupPlan& plan = run.plan;
    const Point& point = run.group->points.front().point;
    const double group_seconds = plan.seconds_per_sample * static_cast<double>(plan.samples);
    fmt::print(to, "  {} tokens={} view={} seed={}: {} points x {} samples, caches {}, about {}\n", point.task,
               point.tokens, point.view, point.seed, plan.points, plan.samples,
               human_bytes(static_cast<double>(plan.cache_bytes)), human_duration(group_seconds));
    peak = std::max(peak, plan.cache_bytes + plan.transient_bytes);
    seconds += group_seconds;
  }
  fmt::print(to, "  about {} in all, {} of memory at the peak\n", human_duration(seconds),
             human_bytes(static_cast<double>(weights + peak)));
  if (const int64_t available = available_memory_bytes(); loaded.llama->options().device.is_cpu() && peak > available)
    warn(fmt::format("caches and temporaries need {}, {} are free: points may fail for want of memory",
                     human_bytes(static_cast<double>(peak)), human_bytes(static_cast<double>(available))));
}

bool SweepRun::own(const GroupRun& run, const Sample& sample) const {
  return !options_.shard || options_.shard->takes(run.reference_id, sample.id);
}

int64_t SweepRun::own_samples(const GroupRun& run) const {
  return std::count_if(run.samples.begin(), run.samples.end(), [&](const Sample& s) { return own(run, s); });
}

ShardGroup SweepRun::shard_group(const GroupRun& run) const {
  ShardGroup group{run.reference_id, run.order, {}, {}};
  for (const Sample& sample : run.samples) group.samples.push_back(sample.id);
  for (const SweepPoint* point : run.pending) {
    Record record = blank_record(run, *point);
    record.status = "failed";
    record.error = "not measured yet";
    group.points.push_back({point - run.group->points.data(), point->scheme->traits().lossless, std::move(record)});
  }
  return group;
}

bool SweepRun::sample_done(const GroupRun& run, const Sample& sample) const {
  const auto& samples = store_->samples();
  if (!samples.contains({run.reference_id, sample.id})) return false;
  return std::all_of(run.pending.begin(), run.pending.end(), [&](const SweepPoint* point) {
    return samples.contains({point->id, sample.id});
  });
}

void SweepRun::run_group(GroupRun& run, const LoadedModel& model, Progress& progress) {
  const Point& point = run.group->points.front().point;
  progress.label(fmt::format("{} {} {}", point.task, point.tokens, point.view));
  for (size_t i = 0; i < run.samples.size(); ++i) {
    if (!own(run, run.samples[i])) continue;
    const auto items = static_cast<int64_t>(run.pending.size());
    if (sample_done(run, run.samples[i])) {
      progress.skip(run.plan.seconds_per_sample, items);
      continue;
    }
    evaluate_sample(run, model, static_cast<int64_t>(i));
    progress.advance(run.plan.seconds_per_sample, items);
    if (run.pending.empty()) return;
  }
  write_records(run);
}

void SweepRun::evaluate_sample(GroupRun& run, const LoadedModel& model, int64_t index) {
  const Sample& sample = run.samples[static_cast<size_t>(index)];
  const std::vector<RowResult> results = evaluate_or_fail(run, model, sample, index == 0);
  if (run.pending.empty()) return;
  std::vector<SampleRecord> lines;
  for (size_t i = 0; i < results.size(); ++i) {
    const std::string& id = i == 0 ? run.reference_id : run.pending[i - 1]->id;
    const bool listed = std::any_of(lines.begin(), lines.end(), [&](const auto& line) { return line.point_id == id; });
    if (listed || store_->samples().contains({id, sample.id})) continue;
    SampleRecord line;
    line.point_id = id;
    line.sample_id = sample.id;
    line.index = index;
    line.prompt_hash = hash_of_prompt(sample);
    line.context_tokens = static_cast<int64_t>(sample.context.size());
    line.query_tokens = static_cast<int64_t>(sample.query.size());
    line.tags = sample.tags;
    line.output = results[i].output.text;
    line.output_tokens = results[i].output.tokens;
    line.scores = run.group->task->score(sample, results[i].output);
    line.kl = results[i].kl;
    line.top1_flips = results[i].top1_flips;
    line.first_divergence = results[i].first_divergence;
    line.compressed_reads = results[i].compressed_reads;
    line.bytes = results[i].bytes;
    line.time = results[i].time;
    lines.push_back(std::move(line));
  }
  store_->append(lines);
}

std::optional<std::string> SweepRun::error_of(const Engine& engine, const Sample& sample, const View& view,
                                              const std::vector<const Scheme*>& schemes, bool timed,
                                              std::vector<RowResult>& results) const {
  try {
    results = engine.evaluate(sample, view, schemes, timed);
    return std::nullopt;
  } catch (const c10::Error& error) {
    return first_line(error.what_without_backtrace());
  } catch (const Interrupted&) {
    throw;
  } catch (const std::exception& error) {
    return first_line(error.what());
  }
}

// All pending schemes together; when that fails, each alone, to find the ones that fail, then the others together
// again.
std::vector<RowResult> SweepRun::evaluate_or_fail(GroupRun& run, const LoadedModel& model, const Sample& sample,
                                                  bool timed) {
  const Engine engine(*model.llama, *model.tokenizer, *reference_.scheme);
  std::vector<RowResult> results;
  while (!run.pending.empty()) {
    std::vector<const Scheme*> schemes;
    for (const SweepPoint* point : run.pending) schemes.push_back(point->scheme.get());
    const auto error = error_of(engine, sample, run.group->view, schemes, timed, results);
    if (!error) return results;
    const std::vector<const SweepPoint*> all = run.pending;
    for (const SweepPoint* point : all)
      if (const auto own = error_of(engine, sample, run.group->view, {point->scheme.get()}, timed, results))
        fail(run, *point, *own);
    if (run.pending.size() == all.size())  // only together: too little memory for all of them, say
      for (const SweepPoint* point : all) fail(run, *point, *error);
  }
  return results;
}

void SweepRun::fail(GroupRun& run, const SweepPoint& point, const std::string& error) {
  Record record = blank_record(run, point);
  record.status = "failed";
  record.error = error;
  store_->append(record);
  progress_->say(fmt::format("failed: {}: {}", point.point.label(), error));
  std::erase(run.pending, &point);
  ++failed_;
  ++written_;
}

Record SweepRun::blank_record(const GroupRun& run, const SweepPoint& point) const {
  Record record;
  record.id = point.id;
  record.point = point.point;
  const MetricSpec primary = run.group->task->metrics().front();
  record.primary_metric = primary.name;
  record.primary_shown_as = primary.shown_as.empty() ? primary.name : primary.shown_as;
  record.primary_exponential = primary.aggregate == Aggregate::kExpMean;
  const NominalBits nominal = point.scheme->nominal_bits(run.layers);
  record.nominal_k_bits = nominal.k;
  record.nominal_v_bits = nominal.v;
  record.warnings = warnings_;
  record.env = env_;
  record.env.data_sha256 = run.data_sha256;
  return record;
}

std::vector<SampleRecord> SweepRun::samples_of(const GroupRun& run, const std::string& point_id) const {
  std::vector<SampleRecord> samples;
  for (const Sample& sample : run.samples) samples.push_back(store_->samples().at({point_id, sample.id}));
  return samples;
}

void SweepRun::write_records(const GroupRun& run) {
  if (options_.shard) return;
  const std::vector<SampleRecord> reference = samples_of(run, run.reference_id);
  for (const SweepPoint* point : run.pending) {
    Record record = blank_record(run, *point);
    summarize(record, samples_of(run, point->id), reference, point->scheme->traits().lossless);
    store_->append(record);
    ++written_;
  }
}

}  // namespace

int run_sweep(const fs::path& sweep_file, const RunOptions& options) {
  const c10::InferenceMode no_autograd;
  watch_interrupts();
  const SweepTables tables{scheme_table(), task_table(),
                           [](const std::string& argument) { return resolve_model(argument).name; }};
  try {
    return SweepRun(load_sweep(sweep_file, tables), options).run();
  } catch (const Interrupted&) {
    log("interrupted; everything up to the last whole prompt is written, the same command goes on from there");
    return kExitInterrupted;
  }
}

}  // namespace kvsweep
