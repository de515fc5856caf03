// Metrics of two texts: what stands before the first zero byte, and the rest. Run: kvsweep_metrics_fuzz
// -max_total_time=60
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "tests/support/metric_properties.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  const size_t end = bytes.find('\0');
  const std::string_view output = bytes.substr(0, end);
  kvsweep::testing::check_metrics(output, end == std::string_view::npos ? output : bytes.substr(end + 1));
  return 0;
}
