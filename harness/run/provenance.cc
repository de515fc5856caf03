#include "harness/run/provenance.h"

#include <ATen/Parallel.h>
#include <fmt/chrono.h>
#include <fmt/format.h>
#include <torch/headeronly/version.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <fstream>

#include "version.inc"

namespace kvsweep {
namespace {

std::string cpu_model() {
  std::ifstream in("/proc/cpuinfo");
  for (std::string line; std::getline(in, line);)
    if (line.starts_with("model name")) return line.substr(line.find(':') + 2);
  return "unknown";
}

}  // namespace

Provenance provenance_of(const LoadedModel& model, const std::string& command) {
  std::array<char, 256> host{};
  gethostname(host.data(), host.size() - 1);
  Provenance env;
  env.version = kVersion;
  env.commit = kCommit;
  env.dirty = kDirty;
  env.torch = TORCH_VERSION;
  env.device = model.llama->options().device.str();
  env.dtype = c10::toString(model.llama->options().dtype);
  env.host = host.data();
  env.cpu = cpu_model();
  env.started_at = fmt::format("{:%Y-%m-%dT%H:%M:%SZ}", fmt::gmtime(std::time(nullptr)));
  env.threads = at::get_num_threads();
  env.deterministic = model.llama->row_invariant();
  env.weights_sha256 = model.weights_sha256;
  env.command = command;
  return env;
}

std::string program_version() {
  return fmt::format("{} (commit {}{})", kVersion, std::string(kCommit).substr(0, 12), kDirty ? ", modified" : "");
}

}  // namespace kvsweep
