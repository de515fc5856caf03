#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "harness/core/error.h"

namespace kvsweep {

using Fields = std::vector<std::pair<std::string, std::string>>;  // resolved parameters, in order of declaration

// "k_bits=4 v_bits=2"; of a name with parameters "uniform k_bits=4 v_bits=2".
std::string params_text(const Fields& params);
std::string with_params(std::string name, const Fields& params);

// The line of an error that tables show: the first.
std::string error_line(const std::string& error);

// One point of a sweep, resolved: what was asked for. Its id is the first 16 hex digits of the SHA-256 of its canonical
// JSON, so equal points have equal ids on every machine.
struct Point {
  std::string model;  // name from the model's YAML, or the file's stem
  std::string task;
  int task_version = 1;
  Fields task_params;
  int64_t tokens = 0;  // the task's length axis
  std::string scheme;
  Fields scheme_params;
  std::string view;  // "exact", "chunked:128"
  uint64_t seed = 0;

  std::string canonical_json() const;
  std::string id() const;
  // "smollm2 | needle tokens=1024 | uniform k_bits=4 v_bits=2 | exact | seed 17": for people; differs where ids differ.
  std::string label() const;
};

// Bytes of one cache at the end of a sample.
struct CacheBytes {
  std::map<std::string, int64_t> by_role;  // live bytes; names of kByteRoleNames, zeros left out
  int64_t live = 0, reserved = 0, shared = 0;
  int64_t tokens = 0;  // tokens appended
  int64_t values = 0;  // 2 * L * H * D * tokens: the denominator of effective bits
};

// Where the time of one sample went. Only `decode_ms_per_token` is of this scheme alone; prefill is shared by all
// schemes of the sample and leaves out what a context before it had in common with it.
struct SampleTime {
  double prefill_ms = 0;
  double compress_ms = 0;                     // append of the context, all layers
  double attend_ms = 0;                       // append + read + attention of query and answer
  std::optional<double> decode_ms_per_token;  // batch 1, this scheme alone, on a clone; first sample of a point only
  std::string path;                           // of decode_ms_per_token: attention "fused" or "reference"; "": not timed
};

// Full precision against itself, as two rows of different batches: what moves without any compression.
struct Noise {
  double kl = 0, kl_max = 0;  // mean over positions, nats; the largest
  int64_t positions = 0, top1_flips = 0;
};

// Attention of the last query token against full precision's, means over heads and the layers that the sweep names.
struct AttentionDrift {
  double kl = 0;           // KL(full || own) of the weights, nats
  double overlap = 0;      // share of full precision's 32 heaviest tokens that are among the own 32 heaviest
  double oldest = 0;       // weight on the oldest tenth of the tokens
  double full_oldest = 0;  // full precision's
};

// One sample of one point: a line of samples.jsonl.
struct SampleRecord {
  std::string point_id;
  std::string sample_id;
  int64_t index = 0;        // position in the task's order
  std::string prompt_hash;  // SHA-256 of context and query ids
  int64_t context_tokens = 0, query_tokens = 0;
  std::map<std::string, std::string> tags;
  std::string output;  // generated text (valid UTF-8)
  std::vector<int32_t> output_tokens;
  std::map<std::string, double> scores;  // the task's metrics
  // Against the full-precision row of the same batch, over positions where both have read the same tokens.
  std::vector<float> kl;          // per position, nats
  int64_t top1_flips = 0;         // positions whose most likely token differs
  int64_t first_divergence = -1;  // generated token index, -1: none
  int64_t reused_tokens = 0;      // generated tokens that were checked in chunks instead of decoded
  int64_t compressed_reads = 0;   // per layer: (query, token) pairs read from a lossy codec
  std::optional<Noise> noise;     // of the full-precision row only, where rows depend on their batch
  std::optional<AttentionDrift> attention;
  CacheBytes bytes;
  SampleTime time;
};

// How tables show a metric and what a comparison may ask of it.
struct MetricInfo {
  std::string shown_as;      // column title: "perplexity"
  bool exponential = false;  // shown as exp(mean)
  bool higher_is_better = true;
  std::string failure;  // failure mode that a worse value of a sample is evidence of, "": none
};

struct Summary {
  double mean = 0;
  double standard_error = 0;  // of the mean; 0 for one sample
  int64_t n = 0;
};

// Paired difference to the full-precision row on the same samples.
struct Paired {
  std::string versus = "full";
  std::string metric;
  double delta = 0, standard_error = 0;
  int64_t lost = 0, gained = 0;  // samples whose 0/1 score went down, up; 0 for graded metrics
  // Of an exponential metric: exp(mean difference of the samples' values), a ratio of perplexities, whose uncertainty
  // is a fraction of each perplexity's own.
  std::optional<double> ratio, ratio_standard_error;
};

struct Provenance {
  std::string version, commit;
  bool dirty = false;
  std::string torch, device, dtype, host, cpu, started_at;  // started_at: ISO 8601, UTC
  int threads = 0;
  bool deterministic = false;  // a row is bit for bit the row alone, whatever batch it is in
  std::string weights_sha256, data_sha256, command;
};

inline constexpr int kRecordSchema = 3;

// One line of records.jsonl: everything needed to redraw any table.
struct Record {
  int schema = kRecordSchema;
  std::string id;
  std::string status;  // "ok", "not_engaged" (no scored token read a compressed entry), "failed"
  std::string error;   // first line, when failed, else ""
  Point point;
  int64_t n = 0;
  std::map<std::string, Summary> metrics;  // the task's metrics; what tables show of an exponential one they derive
  std::string primary_metric;              // the one that tables show
  std::map<std::string, MetricInfo> metric_info;  // of every metric of the task
  std::vector<std::string> breakdown;             // tags that the metrics are broken down by (Task::breakdown())
  std::string task_kind;                          // of kTaskKinds
  std::string reference_id;                       // the full-precision point that the samples are paired with
  Summary kl;                                     // mean over samples of the mean over positions
  double kl_p99 = 0, kl_max = 0;                  // over positions of all samples; p99 by nearest rank
  Summary top1_flips;                             // mean over samples of the share of positions, 0 to 1
  std::optional<Noise> noise;               // over all samples; none: rows do not depend on their batch, bit for bit
  double kl_median = 0;                     // over positions of all samples, as kl_p99
  std::optional<AttentionDrift> attention;  // means over samples
  std::optional<double> divergence_share;   // samples whose text differs from full precision's; none: no text
  int64_t generated_tokens = 0, reused_tokens = 0;  // sums over samples; the latter were checked in chunks
  std::optional<Paired> paired;
  double nominal_k_bits = 16, nominal_v_bits = 16;
  double effective_bits = 16;              // 8 * live bytes / values, mean over samples
  double bytes_per_token = 0;              // live / tokens, mean over samples
  CacheBytes bytes;                        // of the longest sample
  int64_t compressed_reads = 0;            // sum over samples
  double prefill_ms = 0, compress_ms = 0;  // means over samples
  std::optional<double> decode_ms_per_token;
  std::string path;  // of decode_ms_per_token: attention "fused" or "reference"; "": not timed
  std::vector<std::string> warnings;
  Provenance env;

  // Of the primary metric. Throws DataError when the record lacks it.
  const MetricInfo& primary_info() const;
};

struct StaleRecord : DataError {
  StaleRecord(std::string of_what, const std::string& remedy, std::string of_id)
      : DataError(of_what + "; " + remedy), fault(std::move(of_what)), id(std::move(of_id)) {}
  std::string fault;  // what() without the remedy
  std::string id;
};

// JSON lines, without the newline. Keys are in a fixed order; numbers read back as the same number (NaN and infinities
// are written as texts); text that is not valid UTF-8 gets replacement characters.
std::string to_json_line(const Record& record);
std::string to_json_line(const SampleRecord& sample);
// Throws DataError "<place>: <key> ..." on a line that is not a whole record of this schema. Keys that this version
// does not know are ignored; every field above is required, of optional ones null stands for "none". A record of an
// older schema is a StaleRecord: samples have not changed since schema 2, so the run that wrote it makes it again.
Record record_from_json(const std::string& line, const std::string& place);
SampleRecord sample_from_json(const std::string& line, const std::string& place);

// The record of a point from all of its samples and the full-precision row's samples (same order; may be the same).
// Fills n, metrics (with their means by record.breakdown), kl, top1_flips, paired (on primary_metric, which is set
// before, as metric_info and breakdown are), bytes, compressed_reads, time, status ("ok", or "not_engaged" when no
// sample read a compressed entry and the scheme is not lossless), and a warning when compressed entries were read and
// KL is 0 at every position. Throws DataError naming point and sample when there is none, when a sample lacks a metric,
// or when the reference is not of the same prompts.
void summarize(Record& record, const std::vector<SampleRecord>& samples, const std::vector<SampleRecord>& reference,
               bool lossless);

}  // namespace kvsweep
