#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "harness/core/scheme.h"
#include "harness/core/task.h"
#include "harness/report/record.h"

namespace kvsweep {

// When the compressed cache is read. Every token of query and answer reads it; the views differ in how the context
// gets there.
struct View {
  int64_t chunk_tokens = 0;  // 0: "exact", full precision first, compressed once; else the context in chunks of this
                             // many tokens that read what the cache made of those before
  bool as_decoded = false;   // instead: every token reads what token-by-token decoding would have left it
  std::string text() const;  // "exact", "chunked:128", "as_decoded"
};

// One configuration of a scheme within a group.
struct SweepPoint {
  Point point;
  std::string id;  // point.id()
  std::shared_ptr<const Scheme> scheme;
  int line = 0;  // of the scheme's entry in the sweep file, for messages
};

// Points that run on the same samples: same model, task with its parameters, view and seed.
struct SweepGroup {
  std::string model;                 // as written: what resolve_model() takes
  std::shared_ptr<const Task> task;  // name, version and parameters are in the points
  int task_line = 0;
  View view;
  uint64_t seed = 0;
  std::vector<SweepPoint> points;  // at least one, schemes as written
};

struct Sweep {
  std::string name;                       // letters, digits and . _ -: the name of its results directory
  std::filesystem::path file;             // "" when it came as text
  std::vector<SweepGroup> groups;         // models, tasks, views, seeds, each as written; the last varies fastest
  bool deterministic = true;              // ModelOptions::deterministic
  std::vector<int64_t> attention_layers;  // EngineOptions::attention_layers
  std::string hash;  // SHA-256 of the sorted point ids: the same points have the same hash in any order

  // id -> label of every point, as Store takes them.
  std::map<std::string, std::string> ids() const;
};

// What a sweep's names stand for.
struct SweepTables {
  const std::vector<SchemeEntry>& schemes;
  const std::vector<TaskEntry>& tasks;
  // Name of a model argument for Point::model; throws what resolve_model() throws. The product's:
  // [](const std::string& argument) { return resolve_model(argument).name; }
  std::function<std::string(const std::string& argument)> model_name;
};

// Reads a sweep:
//   name: text                       optional; else the stem of the file
//   model: text or list of texts
//   tasks: list of maps, each with `name` and the task's own keys
//   view: exact | as_decoded | chunked:<n> | {chunked: <n>}, or a list; default exact
//   seed: integer >= 0, or a list; default 17
//   deterministic: true | false; default true: a row's bits do not depend on the rows beside it, on a CPU
//   schemes: list of maps, each with `name` and the scheme's own keys
//   attention_layers: integer or list: record how far the attention of the last query token drifts in these layers
// A list as the value of a plug-in's key is an axis: entries expand to the product of their axes, the last written key
// varying fastest. Every plug-in is built, so whatever its factory rejects is found here, before anything runs.
// Throws ConfigError "<file>:<line>: ..." for anything else: unknown names (with the nearest known one), duplicate
// keys, nested or empty lists, values out of range, and points that are the same once resolved (with both lines).
Sweep parse_sweep(const std::string& yaml, const std::string& place, const SweepTables& tables);

// The same of a file. DataError when it cannot be read.
Sweep load_sweep(const std::filesystem::path& file, const SweepTables& tables);

// One configuration of a scheme in a file of its own: a map as in a sweep's `schemes`, without axes.
struct SchemeText {
  const SchemeEntry* entry = nullptr;  // of the table
  Params params;                       // nothing read yet
};

// Throws like load_sweep().
SchemeText load_scheme(const std::filesystem::path& file, const std::vector<SchemeEntry>& schemes);

}  // namespace kvsweep
