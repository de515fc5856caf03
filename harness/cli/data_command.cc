#include "harness/cli/data_command.h"

#include <fmt/format.h>
#include <sys/wait.h>

#include <cstdio>
#include <filesystem>

#include "harness/core/error.h"
#include "harness/core/log.h"
#include "harness/run/runner.h"
#include "tasks/data/locate.h"
#include "tasks/data/manifest.h"

namespace kvsweep {
namespace {

constexpr const char* kScript = "scripts/get_data.py";

struct DataArguments {
  std::vector<std::string> names;
  std::string data, root, endpoint;
};

DataLocator locator(const DataArguments& arguments) {
  std::optional<std::filesystem::path> given;
  if (!arguments.data.empty()) given = arguments.data;
  return DataLocator(default_data_roots(given));
}

std::vector<KnownSet> chosen(const DataArguments& arguments) {
  if (arguments.names.empty()) return known_sets();
  std::vector<KnownSet> sets;
  for (const std::string& name : arguments.names) {
    std::vector<std::string> known;
    for (const KnownSet& set : known_sets()) {
      if (set.folder == name) sets.push_back(set);
      known.push_back(set.folder);
    }
    if (!sets.empty() && sets.back().folder == name) continue;
    const std::string near = nearest_name(name, known);
    throw ConfigError(fmt::format("data set '{}' is not known{}; known: {}", name,
                                  near.empty() ? "" : fmt::format("; did you mean '{}'?", near), join(known)));
  }
  return sets;
}

int list(const DataArguments& arguments) {
  const DataLocator data = locator(arguments);
  for (const KnownSet& set : chosen(arguments)) {
    const SetStatus status = check_set(set, data);
    const size_t files = known_files(set).size();
    fmt::print("{}\n    for       {}\n    licence   {}\n    tested    {} files of {} at {}\n", set.folder, set.tasks,
               set.licence, files, set.repository, set.revision.substr(0, 12));
    if (status.root.empty())
      fmt::print("    not here  `kvsweep data get {}` fetches it\n", set.folder);
    else
      fmt::print("    found     {} of {} files in {}, sha256 {}\n", files - status.missing.size(), files,
                 (status.root / set.folder).string(), status.sha256);
    if (!set.made.empty()) fmt::print("    made      {}: docs/protocols.md says how\n", join(set.made));
  }
  std::vector<std::string> roots;
  for (const std::filesystem::path& root : data.roots()) roots.push_back(root.string());
  fmt::print("looked for in: {}\n", join(roots));
  return kExitOk;
}

// Missing sets matter only when they were asked for by name.
int verify(const DataArguments& arguments) {
  const DataLocator data = locator(arguments);
  bool good = true;
  for (const KnownSet& set : chosen(arguments)) {
    const SetStatus status = check_set(set, data);
    const bool missing = status.root.empty();
    good = good && status.other.empty() && (missing ? arguments.names.empty() : status.missing.empty());
    fmt::print("{:<20} {}\n", set.folder,
               missing                 ? "missing"
               : !status.other.empty() ? "other hash"
               : !status.missing.empty()
                   ? fmt::format("ok, but {} of {} files are missing", status.missing.size(), known_files(set).size())
                   : "ok");
    for (const std::string& path : status.other) fmt::print("    {}: other content than the tested one\n", path);
    if (!missing)
      for (const std::string& path : status.missing) fmt::print("    {}: missing\n", path);
  }
  return good ? kExitOk : kExitFailedPoints;
}

int plan(const DataArguments& arguments) {
  fmt::print("{}\n", fetch_plan(chosen(arguments)));
  return kExitOk;
}

std::string quoted(const std::string& text) {
  std::string out = "'";
  for (const char c : text) out += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return out + "'";
}

int get(const DataArguments& arguments) {
  if (arguments.names.empty()) throw ConfigError("data get: name the data sets; `kvsweep data list` shows them");
  const std::string json = fetch_plan(chosen(arguments));
  if (!std::filesystem::exists(kScript))
    throw ConfigError(fmt::format("{} is not here; run `kvsweep data get` from the source tree", kScript));
  const std::string root = arguments.root.empty() ? default_data_roots(std::nullopt).back().string() : arguments.root;
  std::string command = fmt::format("python3 {} --root {}", kScript, quoted(root));
  if (!arguments.endpoint.empty()) command += " --endpoint " + quoted(arguments.endpoint);
  std::fflush(stdout);
  FILE* script = popen(command.c_str(), "w");
  if (script == nullptr) throw ConfigError("python3 cannot be started");
  std::fwrite(json.data(), 1, json.size(), script);
  const int status = pclose(script);
  return WIFEXITED(status) ? WEXITSTATUS(status) : kExitFailedPoints;
}

}  // namespace

void add_data(CLI::App& app, std::function<int()>& action) {
  static DataArguments arguments;
  CLI::App* data = app.add_subcommand("data", "Data sets that tasks read: what is there, and how to get it");
  data->require_subcommand(1);
  const auto command = [&](const char* name, const char* help, int (*run)(const DataArguments&)) {
    CLI::App* made = data->add_subcommand(name, help);
    made->add_option("names", arguments.names, "Data sets (default: all)");
    made->callback([&action, run] { action = [run] { return run(arguments); }; });
    return made;
  };
  for (CLI::App* looking :
       {command("list", "Every data set: tasks, licence, source, and where it was found", list),
        command("verify", "Compare contents with the tested ones; status 1 when one differs", verify)})
    looking->add_option("--data", arguments.data, "Where data sets lie, before $KVSWEEP_DATA and the other data roots");
  command("plan", "What to fetch from where, as JSON for scripts/get_data.py", plan);
  CLI::App* fetch = command("get", "Fetch data sets with scripts/get_data.py", get);
  fetch->add_option("--root", arguments.root, "Data root to write to (default: data/ in the user's cache)");
  fetch->add_option("--endpoint", arguments.endpoint,
                    "Mirror to fetch from; scripts/get_data.py says how it serves files");
}

}  // namespace kvsweep
