// Contract: every scheme stores on CUDA what it stores on the CPU, and its cache is on the device alone.
#include <ATen/ATen.h>
#include <c10/core/InferenceMode.h>

#include <catch2/catch_test_macros.hpp>
#include <cmath>

#include "tests/support/torch/scheme_probe.h"

namespace kvsweep::testing {
namespace {

constexpr int64_t kLayers = 2, kHeads = 3, kDim = 64, kTokens = 300, kSlab = 260;

struct Place {
  explicit Place(at::Device device)
      : rope(std::vector<float>(kDim / 2, 0.03F), 1, device, 512), context{kLayers, kHeads, kDim,   at::kFloat,
                                                                           device,  &rope,  kTokens} {}
  Rope rope;
  CacheContext context;

  // A slab, then single tokens; decoded keys and values of all layers.
  std::vector<at::Tensor> stored(const Scheme& scheme, const Trace& trace) const {
    const auto cache = scheme.make_cache(context);
    const auto append = [&](int64_t from, int64_t to) {
      for (int64_t layer = 0; layer < kLayers; ++layer) {
        const auto at = static_cast<size_t>(layer);
        cache->append(layer, {trace.k[at].narrow(1, from, to - from).to(context.device),
                              trace.v[at].narrow(1, from, to - from).to(context.device), from});
      }
    };
    append(0, kSlab);
    cache->finish_context();
    for (int64_t t = kSlab; t < kTokens; ++t) append(t, t + 1);
    std::vector<at::Tensor> decoded;
    for (int64_t layer = 0; layer < kLayers; ++layer) {
      const KvView view = cache->read(layer);
      for (const auto* runs : {&view.keys, &view.values}) {
        for (const KvRun& run : *runs)
          for (const at::Tensor& part : run.parts) CHECK(part.device().type() == context.device.type());
        decoded.push_back(decode_runs(*runs).to(at::kCPU));
      }
    }
    return decoded;
  }
};

// A sum in another order may move a value over the border between two codes: one code in a thousand at most.
TEST_CASE("every scheme stores on CUDA what it stores on the CPU") {
  if (!at::globalContext().hasCUDA()) SKIP("no CUDA device");
  const c10::InferenceMode no_autograd;
  const Place cpu(at::kCPU), gpu(at::Device(at::kCUDA, 0));
  const Trace trace = random_trace(kLayers, kHeads, kTokens, kDim, 21);
  for (const SchemeCase& c : scheme_cases(cpu.context)) {
    INFO(c.label());
    const auto scheme = c.scheme();
    const std::vector<at::Tensor> expected = cpu.stored(*scheme, trace), came = gpu.stored(*scheme, trace);
    REQUIRE(expected.size() == came.size());
    for (size_t i = 0; i < came.size(); ++i) {
      INFO((i % 2 == 0 ? "keys" : "values") << " of layer " << i / 2);
      REQUIRE(came[i].sizes() == expected[i].sizes());
      const double moved = (came[i] - expected[i]).abs().gt(1e-3).to(at::kDouble).mean().item<double>();
      CHECK(moved < 1e-3);
    }
  }
}

}  // namespace
}  // namespace kvsweep::testing
