#include "models/gguf_dequant.h"

#include <array>
#include <cstring>
#include <vector>

#include "harness/core/error.h"
#include "harness/files/float_bits.h"

// Compiled with -ffp-contract=off, so that the bits of a weight do not depend on the target.
namespace kvsweep {
namespace {

using DecodeBlock = void (*)(const uint8_t* __restrict block, float* __restrict out);

template <int64_t kValues, int64_t kBytes, DecodeBlock kDecode>
void decode_blocks(const uint8_t* packed, int64_t blocks, float* out) {
  for (int64_t i = 0; i < blocks; ++i) kDecode(packed + i * kBytes, out + i * kValues);
}

float half_at(const uint8_t* bytes) {
  return half_to_float(load_u16(bytes));
}

uint32_t load_u32(const uint8_t* bytes) {
  uint32_t value;
  std::memcpy(&value, bytes, sizeof value);
  return value;
}

// 32 values: d
void decode_q8_0(const uint8_t* __restrict block, float* __restrict out) {
  const float d = half_at(block);
  for (int i = 0; i < 32; ++i) out[i] = d * static_cast<float>(static_cast<int8_t>(block[2 + i]));
}

// 32 values: d; values 0..15 are low nibbles, 16..31 high nibbles
void decode_q4_0(const uint8_t* __restrict block, float* __restrict out) {
  const float d = half_at(block);
  for (int i = 0; i < 16; ++i) {
    out[i] = d * static_cast<float>((block[2 + i] & 15) - 8);
    out[i + 16] = d * static_cast<float>((block[2 + i] >> 4) - 8);
  }
}

// As Q4_0, with a minimum
void decode_q4_1(const uint8_t* __restrict block, float* __restrict out) {
  const float d = half_at(block);
  const float m = half_at(block + 2);
  for (int i = 0; i < 16; ++i) {
    out[i] = d * static_cast<float>(block[4 + i] & 15) + m;
    out[i + 16] = d * static_cast<float>(block[4 + i] >> 4) + m;
  }
}

// As Q4_0, with the fifth bit of value i in bit i of a 32-bit word
void decode_q5_0(const uint8_t* __restrict block, float* __restrict out) {
  const float d = half_at(block);
  const uint32_t high = load_u32(block + 2);
  for (int i = 0; i < 16; ++i) {
    const int low_value = (block[6 + i] & 15) | static_cast<int>((high >> i & 1) << 4);
    const int high_value = (block[6 + i] >> 4) | static_cast<int>((high >> (i + 16) & 1) << 4);
    out[i] = d * static_cast<float>(low_value - 16);
    out[i + 16] = d * static_cast<float>(high_value - 16);
  }
}

void decode_q5_1(const uint8_t* __restrict block, float* __restrict out) {
  const float d = half_at(block);
  const float m = half_at(block + 2);
  const uint32_t high = load_u32(block + 4);
  for (int i = 0; i < 16; ++i) {
    const int low_value = (block[8 + i] & 15) | static_cast<int>((high >> i & 1) << 4);
    const int high_value = (block[8 + i] >> 4) | static_cast<int>((high >> (i + 16) & 1) << 4);
    out[i] = d * static_cast<float>(low_value) + m;
    out[i + 16] = d * static_cast<float>(high_value) + m;
  }
}

// 256 values: 16 scale|minimum nibble pairs, 64 bytes of codes, d, dmin. Codes of K types lie in halves of 128 values:
// bits 2s..2s+1 of byte j are value 32 s + j.
void decode_q2_k(const uint8_t* __restrict block, float* __restrict out) {
  const float d = half_at(block + 80);
  const float dmin = half_at(block + 82);
  for (int run = 0; run < 8; ++run) {
    const uint8_t* codes = block + 16 + 32 * (run / 4);
    for (int sub = 0; sub < 2; ++sub) {
      const float scale = d * static_cast<float>(block[2 * run + sub] & 15);
      const float minimum = dmin * static_cast<float>(block[2 * run + sub] >> 4);
      for (int j = 16 * sub; j < 16 * sub + 16; ++j)
        out[32 * run + j] = scale * static_cast<float>(codes[j] >> 2 * (run % 4) & 3) - minimum;
    }
  }
}

// Scale k of a Q3_K block, 6 bits: low nibbles in 8 bytes (k, then k - 8), high pairs in 4 bytes (k % 4, bits 2 (k /
// 4)).
int q3_k_scale(const uint8_t* scales, int k) {
  const int low = scales[k % 8] >> (k < 8 ? 0 : 4) & 15;
  const int high = scales[8 + k % 4] >> 2 * (k / 4) & 3;
  return (low | high << 4) - 32;
}

// 256 values: 32 bytes of third bits (clear: subtract 4; bit r of byte j belongs to value 32 r + j), 64 bytes of codes
// as in Q2_K, 12 bytes of scales, d
void decode_q3_k(const uint8_t* __restrict block, float* __restrict out) {
  const float d = half_at(block + 108);
  for (int run = 0; run < 8; ++run) {
    const uint8_t* codes = block + 32 + 32 * (run / 4);
    for (int sub = 0; sub < 2; ++sub) {
      const float scale = d * static_cast<float>(q3_k_scale(block + 96, 2 * run + sub));
      for (int j = 16 * sub; j < 16 * sub + 16; ++j) {
        const int low = codes[j] >> 2 * (run % 4) & 3;
        const int offset = 4 - ((block[j] >> run & 1) << 2);
        out[32 * run + j] = scale * static_cast<float>(low - offset);
      }
    }
  }
}

struct ScaleAndMinimum {
  float scale, minimum;
};

// Pair k of the eight of a Q4_K or Q5_K block, 6 bits each in 12 bytes: the first four scales and minima in the low six
// bits of bytes 0..3 and 4..7; the others have their low nibbles in bytes 8..11, their high pairs above the former.
ScaleAndMinimum k_scale(const uint8_t* bytes, int k, float d, float dmin) {
  const int scale = k < 4 ? bytes[k] & 63 : (bytes[k + 4] & 15) | (bytes[k - 4] >> 6) << 4;
  const int minimum = k < 4 ? bytes[k + 4] & 63 : (bytes[k + 4] >> 4) | (bytes[k] >> 6) << 4;
  return {d * static_cast<float>(scale), dmin * static_cast<float>(minimum)};
}

// 256 values: d, dmin, 12 bytes of scales, 128 bytes of nibbles; low nibbles of 32 bytes are one run of 32 values, high
// nibbles the next
void decode_q4_k(const uint8_t* __restrict block, float* __restrict out) {
  const float d = half_at(block);
  const float dmin = half_at(block + 2);
  for (int run = 0; run < 8; ++run) {
    const auto [scale, minimum] = k_scale(block + 4, run, d, dmin);
    const uint8_t* codes = block + 16 + 32 * (run / 2);
    const int shift = 4 * (run % 2);
    for (int j = 0; j < 32; ++j) out[32 * run + j] = scale * static_cast<float>(codes[j] >> shift & 15) - minimum;
  }
}

// As Q4_K, with 32 bytes of fifth bits before the nibbles: bit r of byte j belongs to value 32 r + j
void decode_q5_k(const uint8_t* __restrict block, float* __restrict out) {
  const float d = half_at(block);
  const float dmin = half_at(block + 2);
  for (int run = 0; run < 8; ++run) {
    const auto [scale, minimum] = k_scale(block + 4, run, d, dmin);
    const uint8_t* codes = block + 48 + 32 * (run / 2);
    const int shift = 4 * (run % 2);
    for (int j = 0; j < 32; ++j) {
      const int code = (codes[j] >> shift & 15) | (block[16 + j] >> run & 1) << 4;
      out[32 * run + j] = scale * static_cast<float>(code) - minimum;
    }
  }
}

// 256 values: 128 bytes of low nibbles (of 64 bytes the low ones, then the high ones), 64 bytes of high pairs as in
// Q2_K, 16 signed scales, d
void decode_q6_k(const uint8_t* __restrict block, float* __restrict out) {
  const float d = half_at(block + 208);
  for (int run = 0; run < 8; ++run) {
    const uint8_t* low = block + 64 * (run / 4) + 32 * (run % 2);
    const uint8_t* high = block + 128 + 32 * (run / 4);
    const int low_shift = 4 * (run / 2 % 2);
    const int high_shift = 2 * (run % 4);
    for (int sub = 0; sub < 2; ++sub) {
      const float scale = d * static_cast<float>(static_cast<int8_t>(block[192 + 2 * run + sub]));
      for (int j = 16 * sub; j < 16 * sub + 16; ++j) {
        const int code = (low[j] >> low_shift & 15) | (high[j] >> high_shift & 3) << 4;
        out[32 * run + j] = scale * static_cast<float>(code - 32);
      }
    }
  }
}

// As Q4_0, through a table of levels
void decode_iq4_nl(const uint8_t* __restrict block, float* __restrict out) {
  static constexpr std::array<float, 16> kLevels = {-127, -104, -83, -65, -49, -35, -22, -10,
                                                    1,    13,   25,  38,  53,  69,  89,  113};
  const float d = half_at(block);
  for (int i = 0; i < 16; ++i) {
    out[i] = d * kLevels[block[2 + i] & 15];
    out[i + 16] = d * kLevels[block[2 + i] >> 4];
  }
}

constexpr std::array kTypes = {
    GgufType{0, "F32", 1, 4, copy_f32},
    GgufType{1, "F16", 1, 2, widen_f16},
    GgufType{30, "BF16", 1, 2, widen_bf16},
    GgufType{8, "Q8_0", 32, 34, decode_blocks<32, 34, decode_q8_0>},
    GgufType{2, "Q4_0", 32, 18, decode_blocks<32, 18, decode_q4_0>},
    GgufType{3, "Q4_1", 32, 20, decode_blocks<32, 20, decode_q4_1>},
    GgufType{6, "Q5_0", 32, 22, decode_blocks<32, 22, decode_q5_0>},
    GgufType{7, "Q5_1", 32, 24, decode_blocks<32, 24, decode_q5_1>},
    GgufType{10, "Q2_K", 256, 84, decode_blocks<256, 84, decode_q2_k>},
    GgufType{11, "Q3_K", 256, 110, decode_blocks<256, 110, decode_q3_k>},
    GgufType{12, "Q4_K", 256, 144, decode_blocks<256, 144, decode_q4_k>},
    GgufType{13, "Q5_K", 256, 176, decode_blocks<256, 176, decode_q5_k>},
    GgufType{14, "Q6_K", 256, 210, decode_blocks<256, 210, decode_q6_k>},
    GgufType{20, "IQ4_NL", 32, 18, decode_blocks<32, 18, decode_iq4_nl>},
    // Known by name and size only, so that a file that has them can be listed and checked.
    GgufType{9, "Q8_1", 32, 40},
    GgufType{15, "Q8_K", 256, 292},
    GgufType{16, "IQ2_XXS", 256, 66},
    GgufType{17, "IQ2_XS", 256, 74},
    GgufType{18, "IQ3_XXS", 256, 98},
    GgufType{19, "IQ1_S", 256, 50},
    GgufType{21, "IQ3_S", 256, 110},
    GgufType{22, "IQ2_S", 256, 82},
    GgufType{23, "IQ4_XS", 256, 136},
    GgufType{24, "I8", 1, 1},
    GgufType{25, "I16", 1, 2},
    GgufType{26, "I32", 1, 4},
    GgufType{27, "I64", 1, 8},
    GgufType{28, "F64", 1, 8},
    GgufType{29, "IQ1_M", 256, 56},
    GgufType{34, "TQ1_0", 256, 54},
    GgufType{35, "TQ2_0", 256, 66},
    GgufType{39, "MXFP4", 32, 17},
    GgufType{40, "NVFP4", 64, 36},
    GgufType{41, "Q1_0", 128, 18},
};

}  // namespace

const GgufType* gguf_type(uint32_t id) {
  for (const GgufType& type : kTypes)
    if (type.id == id) return &type;
  return nullptr;
}

std::string gguf_weight_types() {
  std::vector<std::string> names;
  for (const GgufType& type : kTypes)
    if (type.dequantize != nullptr) names.emplace_back(type.name);
  return join(names);
}

void gguf_dequantize(const GgufType& type, std::span<const uint8_t> packed, float* out) {
  const int64_t bytes = static_cast<int64_t>(packed.size());
  if (type.dequantize == nullptr || bytes % type.block_bytes != 0)
    throw DataError(std::string(type.name) + ": " + std::to_string(bytes) +
                    " bytes cannot be dequantized: " + "whole blocks of one of " + gguf_weight_types() + " are needed");
  type.dequantize(packed.data(), bytes / type.block_bytes, out);
}

}  // namespace kvsweep
