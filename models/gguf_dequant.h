#pragma once

#include <cstdint>
#include <span>
#include <string>

namespace kvsweep {

// One of ggml's tensor types: how many values share a block, and the block's bytes.
struct GgufType {
  uint32_t id = 0;
  const char* name = "";
  int64_t block_values = 1;
  int64_t block_bytes = 1;
  // Writes block_values floats a block; null for a type that is no weight type here.
  void (*dequantize)(const uint8_t* packed, int64_t blocks, float* out) = nullptr;
};

// Numbers, names and sizes: gguf 0.19.0, constants.py. Null for a number that is not known.
const GgufType* gguf_type(uint32_t id);

// "F32, F16, Q4_0, ...": the types that can be dequantized.
std::string gguf_weight_types();

// Whole blocks to float32, bit-equal to the gguf package's dequantize() (0.19.0, quants.py): every product and every
// sum is rounded to float32, nothing is fused. `out` has room for packed.size() / block_bytes * block_values values.
void gguf_dequantize(const GgufType& type, std::span<const uint8_t> packed, float* out);

}  // namespace kvsweep
