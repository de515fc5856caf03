// contract: a model on a CUDA device shows a calibrator what it shows on the CPU, in CPU tensors.
#include <ATen/ATen.h>
#include <ATen/Context.h>

#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>

#include "harness/run/calibration.h"
#include "harness/run/interrupt.h"
#include "tests/support/golden.h"
#include "tests/support/torch/tiny_model.h"

namespace kvsweep::testing {
namespace {

class KeepingCalibrator : public Calibrator {
 public:
  TensorMap layer(const CalibrationLayer& layer) override {
    shown.push_back(layer);
    return {{"keys", at::stack(layer.keys)}};
  }
  std::vector<CalibrationLayer> shown;
};

}  // namespace

TEST_CASE("calibration on CUDA shows what it shows on the CPU, and goes on where it was stopped") {
  if (!at::globalContext().hasCUDA()) SKIP("no CUDA device");
  const auto [dtype, tolerance] = GENERATE(std::pair{at::kFloat, 2e-3}, std::pair{at::kBFloat16, 0.15});
  const LlamaConfig config = tiny_config();
  const TinyWeights weights(config);
  const Llama cpu(config, weights, {}), gpu(config, weights, {.device = at::Device(at::kCUDA, 0), .dtype = dtype});
  const std::vector<std::vector<int32_t>> texts = {random_tokens(300, 97, 3), random_tokens(300, 97, 4)};
  const TemporaryDirectory directory;
  const CalibrationProgress ignore = [](int64_t, double) {};
  KeepingCalibrator expected, came, stopped, resumed;
  calibrate(cpu, expected, {}, texts, directory.path() / "cpu", ignore);
  calibrate(gpu, came, {}, texts, directory.path() / "gpu", ignore);
  REQUIRE(came.shown.size() == 2);
  for (size_t layer = 0; layer < 2; ++layer) {
    CHECK(came.shown[layer].key_weight.device().is_cpu());
    for (size_t i = 0; i < 2; ++i) {
      const at::Tensor x = expected.shown[layer].keys[i], y = came.shown[layer].keys[i];
      CHECK(y.device().is_cpu());
      CHECK(y.scalar_type() == at::kFloat);
      CHECK((y - x).abs().max().item<double>() < tolerance * x.abs().max().item<double>());
    }
  }
  const CalibrationProgress stop = [](int64_t, double done) {
    if (done == 1) throw Interrupted();
  };
  CHECK_THROWS_AS(calibrate(gpu, stopped, {}, texts, directory.path() / "again", stop), Interrupted);
  calibrate(gpu, resumed, {}, texts, directory.path() / "again", ignore);
  CHECK(read_text(directory.path() / "again") == read_text(directory.path() / "gpu"));
}

}  // namespace kvsweep::testing
