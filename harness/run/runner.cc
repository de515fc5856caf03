#include "harness/run/runner.h"

#include <ATen/ATen.h>
#include <c10/core/InferenceMode.h>
#include <fmt/format.h>
#include <fnmatch.h>

#include <algorithm>
#include <map>
#include <set>

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
#include "tasks/data/manifest.h"

namespace kvsweep {
namespace {

namespace fs = std::filesystem;

std::string hash_of_prompt(const Sample& sample) {
  return sha256_hex(fmt::format("{}|{}", fmt::join(sample.context, " "), fmt::join(sample.query, " ")));
}

// What a row made of a sample, without point and scores.
SampleRecord line_of(const Sample& sample, int64_t index, const RowResult& result) {
  SampleRecord line;
  line.sample_id = sample.id;
  line.index = index;
  line.prompt_hash = hash_of_prompt(sample);
  line.context_tokens = std::ssize(sample.context);
  line.query_tokens = std::ssize(sample.query);
  line.tags = sample.tags;
  line.output = result.output.text;
  line.output_tokens = result.output.tokens;
  line.kl = result.kl;
  line.top1_flips = result.top1_flips;
  line.first_divergence = result.first_divergence;
  line.reused_tokens = result.reused_tokens;
  line.compressed_reads = result.compressed_reads;
  line.attention = result.attention;
  line.bytes = result.bytes;
  line.time = result.time;
  return line;
}

Noise noise_of(const RowResult& row) {
  Noise noise;
  noise.positions = std::ssize(row.kl);
  noise.top1_flips = row.top1_flips;
  for (const float kl : row.kl) {
    noise.kl += static_cast<double>(kl) / static_cast<double>(noise.positions);
    noise.kl_max = std::max(noise.kl_max, static_cast<double>(kl));
  }
  return noise;
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
  std::vector<std::string> warnings;  // of its data
  int64_t layers = 0;                 // of the model
  GroupPlan plan;
  int64_t context_tokens = 0, prefilled_tokens = 0;  // of the samples that have been run
};

// What a watch waits for is decided.
struct Decided {};

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
  ShardGroup shard_group(const GroupRun& run, const std::vector<const SweepPoint*>& points) const;
  void begin_watch(const std::vector<GroupRun>& runs, const LoadedModel& model);
  int64_t cache_budget(const GroupRun& run, const Llama& llama) const;
  void check_memory(const std::vector<GroupRun>& runs, const Llama& llama) const;
  EngineOptions engine_options(const GroupRun& run, const LoadedModel& model) const;
  void store_sample(GroupRun& run, const std::vector<const SweepPoint*>& points, int64_t index,
                    SampleOutcome&& outcome);
  void write_records(const GroupRun& run);
  void say_reuse(const GroupRun& run, const std::vector<Record>& records) const;
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
  const int64_t tokens = group.task->tokens();
  const int64_t needed = group.task->prompt_tokens() + group.task->generated_tokens();
  if (needed > config.max_positions)
    throw ConfigError(fmt::format("{}:{}: {}.tokens = {}{}: the model {} allows {} tokens", sweep_.file.string(),
                                  group.task_line, group.points.front().point.task, tokens,
                                  needed > tokens ? fmt::format(" and {} generated", needed - tokens) : "", group.model,
                                  config.max_positions));
  for (const int64_t layer : sweep_.attention_layers)
    if (layer >= config.layers)
      throw ConfigError(fmt::format("{}: attention_layers names layer {}; {} has layers 0 to {}", sweep_.file.string(),
                                    layer, group.model, config.layers - 1));
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
  std::set<std::string> models;
  for (const SweepGroup& group : sweep_.groups) {
    models.insert(group.model);
    check_fits_model(group);
    for (const std::string& data : group.task->data()) locator_.find(data);
    points += std::ssize(group.points);
    matched +=
        std::count_if(group.points.begin(), group.points.end(), [&](const auto& point) { return selected(point); });
  }
  if (options_.watch != nullptr && models.size() > 1)
    throw ConfigError(
        fmt::format("{}: a gate can watch sweeps of one model, this one has {}", sweep_.file.string(), models.size()));
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
  ModelSpec spec = resolve_model(model);
  spec.deterministic = sweep_.deterministic;
  const LoadedModel loaded = load_model(spec);
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
  check_memory(runs, *loaded.llama);
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
  if (options_.watch != nullptr) begin_watch(runs, loaded);
  Progress progress(seconds, items, "samples");
  progress_ = &progress;
  for (const GroupRun& run : runs)
    if (options_.shard && own_samples(run) > 0) store_->append(shard_group(run, run.pending));
  for (GroupRun& run : runs) run_group(run, loaded, progress);
  progress_ = nullptr;
}

// Points and groups that have their records already are watched too: rules ask for them.
void SweepRun::begin_watch(const std::vector<GroupRun>& runs, const LoadedModel& model) {
  std::vector<ShardGroup> groups;
  for (const SweepGroup& group : sweep_.groups) {
    std::vector<const SweepPoint*> points;
    for (const SweepPoint& point : group.points)
      if (selected(point) || store_->finished().contains(point.id)) points.push_back(&point);
    if (points.empty()) continue;
    const auto pending =
        std::find_if(runs.begin(), runs.end(), [&](const GroupRun& run) { return run.group == &group; });
    GroupRun finished;
    if (pending == runs.end()) {
      finished.group = &group;
      finished.layers = model.llama->config().layers;
      prepare(finished, model);
    }
    groups.push_back(shard_group(pending == runs.end() ? finished : *pending, points));
  }
  options_.watch->begin(groups);
  std::vector<SampleRecord> samples;
  for (const auto& [unused, sample] : store_->samples()) samples.push_back(sample);
  if (options_.watch->decided(samples)) throw Decided();
}

void SweepRun::prepare(GroupRun& run, const LoadedModel& model) {
  const SweepGroup& group = *run.group;
  run.samples = make_samples(group, model);
  run.reference = group.points.front().point;
  run.reference.scheme = reference_.name;
  run.reference.scheme_params = reference_.params;
  run.reference_id = run.reference.id();
  run.data_sha256 = data_sha256(locator_, group.task->data());
  run.warnings = data_warnings(locator_, group.task->data());
  for (const std::string& warning : run.warnings) warn(warning);
}

std::vector<Sample> SweepRun::make_samples(const SweepGroup& group, const LoadedModel& model) {
  const ModelText text = [&](int64_t sequences, int64_t tokens, uint64_t seed) {
    return model_texts(model, *reference_.scheme, sequences, tokens, seed);
  };
  ChatPrompt chat;
  if (model.chat)
    chat = [&](const std::string& message) { return chat_prompt(*model.chat, *model.tokenizer, message); };
  const TaskContext context{*model.tokenizer, locator_, text, group.seed, chat};
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
               human_bytes(static_cast<double>(plan.cache_bytes())), human_duration(group_seconds));
    peak = std::max(peak, plan.smallest_bytes() + plan.transient_bytes);
    seconds += group_seconds;
  }
  fmt::print(to, "  about {} in all; {} of memory for one row at a time, more is used where there is more\n",
             human_duration(seconds), human_bytes(static_cast<double>(weights + peak)));
  if (const int64_t available = available_memory_bytes(); loaded.llama->options().device.is_cpu() && peak > available)
    warn(fmt::format("one row needs {} of caches and temporaries, {} are free: points may fail for want of memory",
                     human_bytes(static_cast<double>(peak)), human_bytes(static_cast<double>(available))));
}

bool SweepRun::own(const GroupRun& run, const Sample& sample) const {
  return !options_.shard || options_.shard->takes(run.reference_id, sample.id);
}

int64_t SweepRun::own_samples(const GroupRun& run) const {
  return std::count_if(run.samples.begin(), run.samples.end(), [&](const Sample& s) { return own(run, s); });
}

ShardGroup SweepRun::shard_group(const GroupRun& run, const std::vector<const SweepPoint*>& points) const {
  ShardGroup group{run.reference_id, run.order, {}, {}};
  for (const Sample& sample : run.samples) group.samples.push_back(sample.id);
  for (const SweepPoint* point : points) {
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
  const std::vector<const SweepPoint*> points = run.pending;
  EngineWork work{{}, run.group->view, {}, run.plan.row_bytes};
  std::vector<int64_t> indices;
  for (size_t i = 0; i < run.samples.size(); ++i) {
    if (!own(run, run.samples[i])) continue;
    if (sample_done(run, run.samples[i])) {
      progress.skip(run.plan.seconds_per_sample, std::ssize(points));
      continue;
    }
    work.samples.push_back(&run.samples[i]);
    indices.push_back(static_cast<int64_t>(i));
  }
  for (const SweepPoint* pending : points) work.schemes.push_back(pending->scheme.get());
  const Engine engine(*model.llama, *model.tokenizer, *reference_.scheme);
  engine.run(work, engine_options(run, model), [&](SampleOutcome&& outcome) {
    store_sample(run, points, indices[outcome.sample], std::move(outcome));
    progress.advance(run.plan.seconds_per_sample, std::ssize(points));
  });
  write_records(run);
}

EngineOptions SweepRun::engine_options(const GroupRun& run, const LoadedModel& model) const {
  EngineOptions options;
  options.greedy_reuse = options_.greedy_reuse;
  options.alone = options_.alone;
  options.time_first = true;
  options.attention_layers = sweep_.attention_layers;
  options.cache_budget = cache_budget(run, *model.llama);
  return options;
}

// Of --memory, or of what the machine has free, what weights and temporaries leave for prefills and caches.
int64_t SweepRun::cache_budget(const GroupRun& run, const Llama& llama) const {
  const int64_t fixed = llama.weight_bytes() + run.plan.transient_bytes;
  if (options_.memory) return *options_.memory - fixed;
  const int64_t available = llama.options().device.is_cpu() ? available_memory_bytes() : 0;
  if (available == 0) return 0;
  return std::max(run.plan.smallest_bytes(), available * 4 / 5 - run.plan.transient_bytes);
}

void SweepRun::check_memory(const std::vector<GroupRun>& runs, const Llama& llama) const {
  if (!options_.memory) return;
  for (const GroupRun& run : runs) {
    const int64_t smallest = llama.weight_bytes() + run.plan.transient_bytes + run.plan.smallest_bytes();
    if (*options_.memory >= smallest) continue;
    throw ConfigError(
        fmt::format("--memory {}: one row of {} needs {} ({} of weights, {} of temporaries, {} of one "
                    "prefill and its largest cache); the smallest that works is {} MiB",
                    human_bytes(static_cast<double>(*options_.memory)), run.group->points.front().point.task,
                    human_bytes(static_cast<double>(smallest)), human_bytes(static_cast<double>(llama.weight_bytes())),
                    human_bytes(static_cast<double>(run.plan.transient_bytes)),
                    human_bytes(static_cast<double>(run.plan.smallest_bytes())), (smallest >> 20) + 1));
  }
}

// A sample's lines, as one write; the records of points that failed on it.
void SweepRun::store_sample(GroupRun& run, const std::vector<const SweepPoint*>& points, int64_t index,
                            SampleOutcome&& outcome) {
  const Sample& sample = run.samples[static_cast<size_t>(index)];
  run.context_tokens += std::ssize(sample.context);
  run.prefilled_tokens += outcome.prefilled_tokens;
  std::vector<SampleRecord> lines;
  for (size_t i = 0; i < outcome.rows.size(); ++i) {
    const RowOutcome& row = outcome.rows[i];
    const SweepPoint* point = i == 0 ? nullptr : points[i - 1];
    const bool pending =
        point == nullptr || std::find(run.pending.begin(), run.pending.end(), point) != run.pending.end();
    if (!pending) continue;
    if (!row.error.empty()) {
      if (point != nullptr) fail(run, *point, row.error);
      continue;
    }
    const std::string& id = point == nullptr ? run.reference_id : point->id;
    const bool listed = std::any_of(lines.begin(), lines.end(), [&](const auto& line) { return line.point_id == id; });
    if (listed || store_->samples().contains({id, sample.id})) continue;
    SampleRecord& line = lines.emplace_back(line_of(sample, index, row.result));
    line.point_id = id;
    line.scores = run.group->task->score(sample, row.result.output);
    if (i == 0 && outcome.noise) line.noise = noise_of(*outcome.noise);
  }
  if (lines.empty()) return;
  store_->append(lines);
  if (options_.watch != nullptr && options_.watch->decided(lines)) throw Decided();
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
  for (const MetricSpec& spec : run.group->task->metrics()) {
    if (record.primary_metric.empty()) record.primary_metric = spec.name;
    record.metric_info[spec.name] = {spec.shown_as.empty() ? spec.name : spec.shown_as,
                                     spec.aggregate == Aggregate::kExpMean, spec.higher_is_better, spec.failure};
  }
  record.breakdown = run.group->task->breakdown();
  record.task_kind = run.group->task->kind();
  record.reference_id = run.reference_id;
  const NominalBits nominal = point.scheme->nominal_bits(run.layers);
  record.nominal_k_bits = nominal.k;
  record.nominal_v_bits = nominal.v;
  record.warnings = warnings_;
  const auto cut = std::count_if(run.samples.begin(), run.samples.end(),
                                 [](const Sample& sample) { return sample.tags.contains("truncated_from"); });
  if (cut > 0)
    record.warnings.push_back(fmt::format("{} of {} prompts were longer than {} tokens and have been cut", cut,
                                          run.samples.size(), run.group->task->tokens()));
  record.warnings.insert(record.warnings.end(), run.warnings.begin(), run.warnings.end());
  if (run.group->view.as_decoded && !point.scheme->traits().one_pass)
    record.warnings.push_back(
        "read token by token: what this scheme has stored changes again, so that its streaming "
        "has no one-pass form");
  record.env = env_;
  record.env.data_sha256 = run.data_sha256;
  return record;
}

std::vector<SampleRecord> SweepRun::samples_of(const GroupRun& run, const std::string& point_id) const {
  std::vector<SampleRecord> samples;
  for (const Sample& sample : run.samples) samples.push_back(store_->samples().at({point_id, sample.id}));
  return samples;
}

void SweepRun::say_reuse(const GroupRun& run, const std::vector<Record>& records) const {
  if (run.prefilled_tokens > 0 && run.prefilled_tokens < run.context_tokens)
    progress_->say(fmt::format("{} of {} context tokens were prefilled, the others came with a prompt before",
                               run.prefilled_tokens, run.context_tokens));
  int64_t generated = 0, reused = 0;
  for (const Record& record : records) {
    generated += record.generated_tokens;
    reused += record.reused_tokens;
  }
  if (reused == 0) return;
  progress_->say(fmt::format("{} of {} generated tokens were full precision's, checked in chunks instead of decoded",
                             reused, generated));
}

void SweepRun::write_records(const GroupRun& run) {
  if (options_.shard) return;
  const std::vector<SampleRecord> reference = samples_of(run, run.reference_id);
  std::vector<Record> records;
  for (const SweepPoint* point : run.pending) {
    Record record = blank_record(run, *point);
    summarize(record, samples_of(run, point->id), reference, point->scheme->traits().lossless);
    store_->append(record);
    ++written_;
    records.push_back(std::move(record));
  }
  say_reuse(run, records);
}

}  // namespace

int run_sweep(const fs::path& sweep_file, const RunOptions& options) {
  const c10::InferenceMode no_autograd;
  watch_interrupts();
  const SweepTables tables{scheme_table(), task_table(),
                           [](const std::string& argument) { return resolve_model(argument).name; }};
  try {
    return SweepRun(load_sweep(sweep_file, tables), options).run();
  } catch (const Decided&) {
    log("what the run is watched for is decided; the same command without it measures the rest");
    return kExitOk;
  } catch (const Interrupted&) {
    log("interrupted; everything up to the last whole prompt is written, the same command goes on from there");
    return kExitInterrupted;
  }
}

}  // namespace kvsweep
