#include "harness/cli/list_command.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>

#include "harness/core/error.h"
#include "harness/run/plugin_help.h"
#include "harness/run/runner.h"
#include "models/load_model.h"

namespace kvsweep {
namespace {

int list_models(const std::string& folder) {
  namespace fs = std::filesystem;
  if (!fs::is_directory(folder)) throw DataError(fmt::format("{}: no such directory of model files", folder));
  std::vector<fs::path> files;
  for (const auto& entry : fs::directory_iterator(folder))
    if (entry.path().extension() == ".yaml") files.push_back(entry.path());
  std::sort(files.begin(), files.end());
  for (const fs::path& file : files) {
    try {
      const ModelSpec spec = resolve_model(file.string());
      fmt::print("{}\n    {} -> {}\n", spec.name, file.string(), spec.path.string());
    } catch (const DataError& error) {
      fmt::print("{}\n    not here: {}\n", file.string(), error.what());
    }
  }
  return kExitOk;
}

}  // namespace

void add_list(CLI::App& app, std::function<int()>& action) {
  static std::string folder = "configs/models";
  CLI::App* list = app.add_subcommand("list", "Schemes, tasks and models, with every parameter");
  list->require_subcommand(1);
  list->add_subcommand("schemes", "Every scheme with its parameters")->callback([&] {
    action = [] {
      fmt::print("{}", scheme_help(scheme_table()));
      return kExitOk;
    };
  });
  list->add_subcommand("tasks", "Every task with its parameters")->callback([&] {
    action = [] {
      fmt::print("{}", task_help(task_table()));
      return kExitOk;
    };
  });
  CLI::App* models = list->add_subcommand("models", "Model files of a folder and where their weights lie");
  models->add_option("folder", folder, "Folder of model YAML files (default: configs/models)");
  models->callback([&] { action = [] { return list_models(folder); }; });
}

}  // namespace kvsweep
