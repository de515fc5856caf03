#include "schemes/codec/bitpack.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <bit>
#include <cstring>

#include "harness/core/cpu_clones.h"

namespace kvsweep {
namespace {

static_assert(std::endian::native == std::endian::little, "words are loaded as they lie in memory");

constexpr int64_t kParallelCodes = 1 << 16;  // codes below which a second thread costs more than it saves

// The lowest `bits` bits of each of 64 / lane lanes.
constexpr uint64_t lane_mask(int bits, int lane) {
  uint64_t mask = 0;
  for (int at = 0; at < 64; at += lane) mask |= ((uint64_t{1} << bits) - 1) << at;
  return mask;
}

// Eight codes side by side <-> one code in each byte: halves, quarters, eighths move apart.
template <int kBits>
[[gnu::always_inline]] inline uint64_t spread(uint64_t x) {
  if constexpr (kBits == 8) return x;
  x = (x & lane_mask(4 * kBits, 64)) | ((x >> (4 * kBits)) << 32);
  x = (x & lane_mask(2 * kBits, 32)) | ((x & (lane_mask(2 * kBits, 32) << (2 * kBits))) << (16 - 2 * kBits));
  return (x & lane_mask(kBits, 16)) | ((x & (lane_mask(kBits, 16) << kBits)) << (8 - kBits));
}

template <int kBits>
[[gnu::always_inline]] inline uint64_t gather(uint64_t x) {
  if constexpr (kBits == 8) return x;
  x = (x & lane_mask(kBits, 16)) | ((x >> (8 - kBits)) & (lane_mask(kBits, 16) << kBits));
  x = (x & lane_mask(2 * kBits, 32)) | ((x >> (16 - 2 * kBits)) & (lane_mask(2 * kBits, 32) << (2 * kBits)));
  return (x & lane_mask(4 * kBits, 64)) | ((x >> 32) << (4 * kBits));
}

template <int kBits>
[[gnu::always_inline]] inline void unpack_row(const uint8_t* packed, int64_t count, uint8_t* codes) {
  constexpr bool kPowerOfTwo = (kBits & (kBits - 1)) == 0;
  const int64_t whole = count / 8;
  int64_t i = 0;
  // Words of 3, 5, 6 or 7 bytes are loaded with what follows them: put together bytewise they would stall.
  if constexpr (!kPowerOfTwo)
    for (; i * kBits + 8 <= whole * kBits; ++i) {
      uint64_t word = 0;
      std::memcpy(&word, packed + i * kBits, 8);
      word = spread<kBits>(word & lane_mask(8 * kBits, 64));
      std::memcpy(codes + 8 * i, &word, 8);
    }
  for (; i < whole; ++i) {
    uint64_t word = 0;
    std::memcpy(&word, packed + i * kBits, kBits);
    word = spread<kBits>(word);
    std::memcpy(codes + 8 * i, &word, 8);
  }
  const int64_t rest = count % 8;
  if (rest == 0) return;
  uint64_t word = 0;
  std::memcpy(&word, packed + whole * kBits, static_cast<size_t>((rest * kBits + 7) / 8));
  word = spread<kBits>(word);
  std::memcpy(codes + 8 * whole, &word, static_cast<size_t>(rest));
}

template <int kBits>
[[gnu::always_inline]] inline void pack_row(const uint8_t* codes, int64_t count, uint8_t* packed) {
  const int64_t whole = count / 8;
  for (int64_t i = 0; i < whole; ++i) {
    uint64_t word = 0;
    std::memcpy(&word, codes + 8 * i, 8);
    word = gather<kBits>(word);
    std::memcpy(packed + i * kBits, &word, kBits);
  }
  const int64_t rest = count % 8;
  if (rest == 0) return;
  uint64_t word = 0;
  std::memcpy(&word, codes + 8 * whole, static_cast<size_t>(rest));
  word = gather<kBits>(word);
  std::memcpy(packed + whole * kBits, &word, static_cast<size_t>((rest * kBits + 7) / 8));
}

// The same layout with tensor operations: one column of codes, or of bytes, at a time.
at::Tensor pack_with_ops(const at::Tensor& codes, int64_t bits) {
  const int64_t count = codes.size(-1), bytes = packed_bytes(count, bits);
  std::vector<int64_t> sizes = codes.sizes().vec();
  sizes.back() = 8 * bytes;
  at::Tensor stream = at::zeros(sizes, codes.options());
  for (int64_t bit = 0; bit < bits; ++bit)
    stream.slice(-1, bit, count * bits, bits).copy_(codes.bitwise_right_shift(bit).bitwise_and(1));
  at::Tensor packed = stream.slice(-1, 0, 8 * bytes, 8).clone(at::MemoryFormat::Contiguous);
  for (int64_t bit = 1; bit < 8; ++bit) packed.bitwise_or_(stream.slice(-1, bit, 8 * bytes, 8).bitwise_left_shift(bit));
  return packed;
}

at::Tensor unpack_with_ops(const at::Tensor& packed, int64_t bits, int64_t count) {
  std::vector<int64_t> sizes = packed.sizes().vec();
  sizes.back() *= 8;
  at::Tensor stream = at::empty(sizes, packed.options());
  for (int64_t bit = 0; bit < 8; ++bit)
    stream.slice(-1, bit, sizes.back(), 8).copy_(packed.bitwise_right_shift(bit).bitwise_and(1));
  sizes.back() = count;
  at::Tensor codes = at::zeros(sizes, packed.options());
  for (int64_t bit = 0; bit < bits; ++bit)
    codes.bitwise_or_(stream.slice(-1, bit, count * bits, bits).bitwise_left_shift(bit));
  return codes;
}

void check(const at::Tensor& x, int64_t bits) {
  TORCH_CHECK(bits >= 1 && bits <= 8, "bitpack: ", bits, " bits a code is outside [1, 8]");
  TORCH_CHECK(x.scalar_type() == at::kByte && x.dim() >= 1, "bitpack: needs uint8 rows, got ", x.scalar_type(),
              " of sizes ", x.sizes());
}

}  // namespace

int64_t packed_bytes(int64_t codes, int64_t bits) {
  return (codes * bits + 7) / 8;
}

KVSWEEP_CPU_CLONES void pack_rows(const uint8_t* codes, int64_t code_stride, int64_t rows, int64_t count, int64_t bits,
                                  uint8_t* packed, int64_t packed_stride) {
  for (int64_t row = 0; row < rows; ++row, codes += code_stride, packed += packed_stride) {
    switch (bits) {
      case 1:
        pack_row<1>(codes, count, packed);
        break;
      case 2:
        pack_row<2>(codes, count, packed);
        break;
      case 3:
        pack_row<3>(codes, count, packed);
        break;
      case 4:
        pack_row<4>(codes, count, packed);
        break;
      case 5:
        pack_row<5>(codes, count, packed);
        break;
      case 6:
        pack_row<6>(codes, count, packed);
        break;
      case 7:
        pack_row<7>(codes, count, packed);
        break;
      default:
        std::memcpy(packed, codes, static_cast<size_t>(count));
    }
  }
}

KVSWEEP_CPU_CLONES void unpack_rows(const uint8_t* packed, int64_t packed_stride, int64_t rows, int64_t count,
                                    int64_t bits, uint8_t* codes, int64_t code_stride) {
  for (int64_t row = 0; row < rows; ++row, packed += packed_stride, codes += code_stride) {
    switch (bits) {
      case 1:
        unpack_row<1>(packed, count, codes);
        break;
      case 2:
        unpack_row<2>(packed, count, codes);
        break;
      case 3:
        unpack_row<3>(packed, count, codes);
        break;
      case 4:
        unpack_row<4>(packed, count, codes);
        break;
      case 5:
        unpack_row<5>(packed, count, codes);
        break;
      case 6:
        unpack_row<6>(packed, count, codes);
        break;
      case 7:
        unpack_row<7>(packed, count, codes);
        break;
      default:
        std::memcpy(codes, packed, static_cast<size_t>(count));
    }
  }
}

at::Tensor pack_bits(const at::Tensor& codes, int64_t bits) {
  check(codes, bits);
  if (!codes.is_cpu()) return pack_with_ops(codes, bits);
  const at::Tensor from = codes.contiguous();
  const int64_t count = from.size(-1), bytes = packed_bytes(count, bits);
  std::vector<int64_t> sizes = from.sizes().vec();
  sizes.back() = bytes;
  at::Tensor packed = at::empty(sizes, from.options());
  if (packed.numel() == 0) return packed;
  const uint8_t* in = from.const_data_ptr<uint8_t>();
  uint8_t* out = packed.mutable_data_ptr<uint8_t>();
  at::parallel_for(0, from.numel() / count, kParallelCodes / count + 1, [&](int64_t first, int64_t last) {
    pack_rows(in + first * count, count, last - first, count, bits, out + first * bytes, bytes);
  });
  return packed;
}

at::Tensor unpack_bits(const at::Tensor& packed, int64_t bits, int64_t codes) {
  check(packed, bits);
  const int64_t bytes = packed_bytes(codes, bits);
  TORCH_CHECK(packed.size(-1) == bytes, "bitpack: ", codes, " codes of ", bits, " bits are ", bytes, " bytes, not ",
              packed.size(-1));
  if (!packed.is_cpu()) return unpack_with_ops(packed, bits, codes);
  const at::Tensor from = packed.contiguous();
  std::vector<int64_t> sizes = from.sizes().vec();
  sizes.back() = codes;
  at::Tensor out = at::empty(sizes, from.options());
  if (out.numel() == 0) return out;
  const uint8_t* in = from.const_data_ptr<uint8_t>();
  uint8_t* to = out.mutable_data_ptr<uint8_t>();
  at::parallel_for(0, out.numel() / codes, kParallelCodes / codes + 1, [&](int64_t first, int64_t last) {
    unpack_rows(in + first * bytes, bytes, last - first, codes, bits, to + first * codes, codes);
  });
  return out;
}

}  // namespace kvsweep
