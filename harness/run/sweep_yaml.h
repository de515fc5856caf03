#pragma once

#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "harness/core/params.h"

namespace kvsweep {

// A sweep file as it is written, before names are looked up and plug-ins are built: who reads YAML is here, what a
// sweep means is in sweep.h.

// One entry of `tasks` or `schemes`: a name and its axes in the order of writing; a single value is an axis of one. A
// value of a scheme may be a map of layers: {default: 4, layers: {0: 8, 28-29: 8}}.
struct PluginEntry {
  ParamValue name;
  std::vector<std::pair<std::string, std::vector<ParamValue>>> axes;

  // The product of the axes, the last varying fastest.
  std::vector<std::map<std::string, ParamValue>> expand() const;
};

struct SweepText {
  std::optional<ParamValue> name, deterministic;
  std::vector<ParamValue> attention_layers;
  std::vector<ParamValue> models, views, seeds;  // views: "exact", "chunked:128"; views and seeds may be empty
  std::vector<PluginEntry> tasks, schemes;
};

// Throws ConfigError "<place>:<line>: ..." for what is not YAML, unknown, duplicate or missing keys, empty or nested
// lists, maps and nulls where values belong, and entries whose product is absurd.
SweepText read_sweep_yaml(const std::string& yaml, const std::string& place);

// One entry of `schemes` as a file of its own: a map with a name, without axes: every value is an axis of one. Throws
// likewise, for a list too.
PluginEntry read_scheme_yaml(const std::string& yaml, const std::string& place);

}  // namespace kvsweep
