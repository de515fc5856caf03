#pragma once

#include <filesystem>
#include <string>
#include <vector>

namespace kvsweep {

// Of KL by position in the analysis that figures are drawn from.
inline constexpr int kFigureBuckets = 32;

// The command that draws: the project's Python and scripts/figures.py.
struct FigureCommand {
  std::filesystem::path python, script;
};

// In the source folder. Throws ConfigError when the script or the Python environment is not there, with the command to
// run; `source_from` says where the folder's name comes from ("$KVSWEEP_SOURCE").
FigureCommand figure_command(const std::filesystem::path& source, const std::string& source_from);

// Starts a program, waits and returns its exit status; 128 + signal when a signal ended it. Throws ConfigError when it
// cannot be started.
int run_and_wait(const std::vector<std::string>& command);

}  // namespace kvsweep
