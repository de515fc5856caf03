// Answers, calculations and repetition in any bytes. Run: kvsweep_extraction_fuzz -max_total_time=60
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "tests/support/metric_properties.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  kvsweep::testing::check_extraction({reinterpret_cast<const char*>(data), size});
  return 0;
}
