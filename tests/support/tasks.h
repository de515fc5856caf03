#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "harness/core/task.h"

namespace kvsweep::testing {

// The task of this name with parameters as a sweep would give them.
std::unique_ptr<Task> make_task(const std::string& name, const std::map<std::string, std::string>& values);

// The data roots when one of them has `relative`, else the running test is skipped.
DataLocator data_or_skip(const std::string& relative);

// The tokenizer of the embedded model, or the running test is skipped.
std::unique_ptr<Tokenizer> smollm2_tokenizer_or_skip();

// Lines of a file that are not empty.
std::vector<std::string> lines_of(const std::filesystem::path& file);

}  // namespace kvsweep::testing
