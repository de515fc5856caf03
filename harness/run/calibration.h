#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "harness/core/calibrator.h"
#include "harness/files/artifact.h"
#include "models/llama.h"

namespace kvsweep {

// After each sequence of a layer and after the layer: the share of it that is done, 1 when it is on disk. What this
// throws ends the calibration; the same call goes on after the last layer that is on disk.
using CalibrationProgress = std::function<void(int64_t layer, double done)>;

// Takes every sequence of `text` (as many tokens each; none for a calibrator that reads no text) through the model in
// full precision, one layer after the other, and writes what the calibrator makes of it to `out`, whole or not at all.
// The header's fields on the model's shape, its weights and the amount of text are filled in here.
//
// "<out>.partial" keeps the finished layers, and hidden states and calibrator before the next one. It is removed in the
// end, and an artifact that was interrupted is bit for bit one that was not. Throws ConfigError that names what differs
// when it was left by another calibration, DataError that names layer and sequence for keys or values that are not
// finite.
void calibrate(const Llama& llama, Calibrator& calibrator, ArtifactHeader header,
               const std::vector<std::vector<int32_t>>& text, const std::filesystem::path& out,
               const CalibrationProgress& progress);

struct CalibrationOptions {
  std::filesystem::path out;                  // the artifact
  std::string text;                           // "model", or a file as named or below a data root; "": not given
  int64_t sequences = 64, tokens = 512;       // of text
  std::optional<std::filesystem::path> data;  // first data root
  bool force = false;                         // an artifact that is there is replaced
};

// `kvsweep calibrate`: makes the artifact of the scheme in `scheme_file` (see load_scheme()) for a model argument,
// prints what the scheme has to say about it. Returns kExitOk or kExitInterrupted. Throws ConfigError or DataError.
int run_calibration(const std::string& model, const std::filesystem::path& scheme_file,
                    const CalibrationOptions& options);

}  // namespace kvsweep
