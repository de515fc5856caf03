#include "harness/cli/calibrate_command.h"

#include <fmt/format.h>

#include "harness/files/artifact.h"
#include "harness/run/calibration.h"
#include "harness/run/progress.h"
#include "harness/run/runner.h"

namespace kvsweep {
namespace {

int print_artifact(const std::string& file) {
  const ArtifactHeader header = read_artifact_header(file);
  const auto line = [](const std::string& key, const std::string& value) { fmt::print("{:<18}{}\n", key, value); };
  line("scheme", header.scheme);
  for (const auto& [key, value] : header.params) line("  " + key, value);
  line("model", header.model);
  line("weights sha256", header.weights_sha256);
  line("shape",
       fmt::format("{} layers, {} key-value heads, head dim {}", header.layers, header.kv_heads, header.head_dim));
  if (header.text.empty()) {
    line("text", "none: made from weights");
  } else {
    line("text", fmt::format("{}, {} sequences of {} tokens", header.text, header.sequences, header.tokens));
    line("text sha256", header.text_sha256);
  }
  line("made by", header.program);
  line("size", human_bytes(static_cast<double>(std::filesystem::file_size(file))));
  return kExitOk;
}

}  // namespace

void add_calibrate(CLI::App& app, std::function<int()>& action) {
  static std::string model, scheme, out, data, file;
  static CalibrationOptions options;
  CLI::App* calibrate = app.add_subcommand("calibrate", "Make the artifact that a scheme needs for a model");
  calibrate->add_option("model", model, "Model YAML, .gguf file or Hugging Face directory")->required();
  calibrate->add_option("scheme", scheme, "YAML file of one scheme, as in {name: aqua_kv, bits: 2}")->required();
  calibrate->add_option("--out", out, "The artifact")->required();
  calibrate->add_option("--text", options.text,
                        "model (sampled from it), or a text file as named or below a data root; not the text that is "
                        "scored later");
  calibrate->add_option("--sequences", options.sequences, "Sequences of text (default: 64)")
      ->check(CLI::Range(1, 1000000));
  calibrate->add_option("--tokens", options.tokens, "Tokens of a sequence (default: 512)")
      ->check(CLI::Range(1, 1000000));
  calibrate->add_option("--data", data, "Where texts lie, before $KVSWEEP_DATA, ../shared/data and the user's cache");
  calibrate->add_flag("--force", options.force, "Replace an artifact that is there");
  calibrate->callback([&action] {
    options.out = out;
    if (!data.empty()) options.data = data;
    action = [] { return run_calibration(model, scheme, options); };
  });
  CLI::App* artifact = app.add_subcommand("artifact", "What an artifact was made for and from");
  artifact->add_option("file", file, "The artifact")->required();
  artifact->callback([&action] { action = [] { return print_artifact(file); }; });
}

}  // namespace kvsweep
