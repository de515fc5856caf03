#pragma once

#include <string>
#include <vector>

#include "harness/core/scheme.h"
#include "harness/core/task.h"

namespace kvsweep {

// What `kvsweep list` prints: each plug-in with its summary, then one line for each parameter with type, default,
// allowed values and help, from the factories' own declarations.
std::string scheme_help(const std::vector<SchemeEntry>& table);
std::string task_help(const std::vector<TaskEntry>& table);

}  // namespace kvsweep
