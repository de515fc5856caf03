#pragma once

#include <string>

#include "harness/report/record.h"
#include "models/load_model.h"

namespace kvsweep {

// Program, commit, machine and model of a run, for its records. data_sha256 is the task's and left empty.
Provenance provenance_of(const LoadedModel& model, const std::string& command);

// "0.1.0 (commit abc, modified)"
std::string program_version();

}  // namespace kvsweep
