#pragma once

#include <cstdint>
#include <vector>

namespace kvsweep {

struct LatticeSearch;

// The loops of HiggsCodec over CPU memory; lattice.h states the arithmetic and the letters.
struct HiggsLoops {
  int64_t channels = 0, padded = 0;  // C and P
  int64_t group = 0;                 // h
  int64_t dim = 0, code_bits = 0;
  bool half_norms = false, saturate = true;
  const float* grid = nullptr;  // [points, dim]
  float largest = 0;            // magnitude in it
  const LatticeSearch* search = nullptr;
};

// What a thread works in: grows where it is needed.
struct HiggsScratch {
  std::vector<float> values, transform;
  std::vector<double> squares;
  std::vector<uint8_t> codes;
};

// x: [tokens, C]. Writes packed [tokens, packed_bytes(P / d, code_bits)] and norms [tokens, P / h], which are float32
// here, rounded to their stored type.
void higgs_encode_tokens(const HiggsLoops& loops, const float* x, int64_t tokens, uint8_t* packed, float* norms,
                         HiggsScratch& scratch);
// Consecutive blocks of each of `tokens` tokens. Codes of a token's first block, `packed`, and its norms lie
// packed_stride bytes and norm_stride norms apart; norms are as they are stored. Writes [tokens, columns]: the first
// channels of those blocks.
struct HiggsBlocks {
  const uint8_t* packed = nullptr;
  const void* norms = nullptr;
  int64_t packed_stride = 0, norm_stride = 0;
  int64_t tokens = 0, blocks = 0, columns = 0;
};
void higgs_decode_blocks(const HiggsLoops& loops, const HiggsBlocks& from, float* out, HiggsScratch& scratch);

}  // namespace kvsweep
