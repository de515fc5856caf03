#include "harness/report/export/figures.h"

#include <fmt/format.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "harness/core/error.h"

namespace kvsweep {

namespace fs = std::filesystem;

FigureCommand figure_command(const fs::path& source, const std::string& source_from) {
  const FigureCommand command{source / ".venv/bin/python", source / "scripts/figures.py"};
  std::error_code unused;
  if (!fs::exists(command.script, unused))
    throw ConfigError(fmt::format("{} is not there ({} is {}); set KVSWEEP_SOURCE to the source folder of kvsweep",
                                  command.script.string(), source_from, source.string()));
  if (!fs::exists(command.python, unused))
    throw ConfigError(
        fmt::format("{} is not there; run {}", command.python.string(), (source / "scripts/bootstrap.sh").string()));
  return command;
}

int run_and_wait(const std::vector<std::string>& command) {
  std::vector<char*> arguments;
  for (const std::string& argument : command) arguments.push_back(const_cast<char*>(argument.c_str()));
  arguments.push_back(nullptr);
  pid_t child = 0;
  if (const int error = posix_spawn(&child, arguments[0], nullptr, nullptr, arguments.data(), environ); error != 0)
    throw ConfigError(fmt::format("{} cannot be started: {}", command.front(), std::strerror(error)));
  int status = 0;
  while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

}  // namespace kvsweep
