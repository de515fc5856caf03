// Four lanes in the compiler's own vectors, which it maps to what the target has. Included inside an anonymous
// namespace; see kernels_inl.h.
#define KVSWEEP_INLINE [[gnu::always_inline]] inline

constexpr int64_t kWidth = 4;
using F [[gnu::vector_size(16)]] = float;
using I [[gnu::vector_size(16)]] = int32_t;
using U [[gnu::vector_size(16)]] = uint32_t;
using Bytes [[gnu::vector_size(16)]] = uint8_t;
constexpr int kKeyTokens[4] = {16, 16, 16, 16};
constexpr int kValueColumns[4] = {4, 2, 2, 2};

KVSWEEP_INLINE F load(const float* from) {
  F x;
  std::memcpy(&x, from, sizeof x);
  return x;
}
KVSWEEP_INLINE U load_words(const void* from) {
  U x;
  std::memcpy(&x, from, sizeof x);
  return x;
}
KVSWEEP_INLINE void store(float* to, F x) {
  std::memcpy(to, &x, sizeof x);
}
KVSWEEP_INLINE void store_words(void* to, U x) {
  std::memcpy(to, &x, sizeof x);
}
KVSWEEP_INLINE F broadcast(const float* from) {
  return F{} + *from;
}
KVSWEEP_INLINE F fma(F a, F b, F c) {
  return a * b + c;
}
KVSWEEP_INLINE F max(F a, F b) {
  return a > b ? a : b;
}
KVSWEEP_INLINE F load_half(const uint16_t* from) {
  F x{};
  for (int i = 0; i < kWidth; ++i) x[i] = c10::detail::fp16_ieee_to_fp32_value(from[i]);
  return x;
}
KVSWEEP_INLINE F load_bfloat16(const uint16_t* from) {
  U x{};
  for (int i = 0; i < kWidth; ++i) x[i] = uint32_t{from[i]} << 16;
  return __builtin_bit_cast(F, x);
}
KVSWEEP_INLINE U load_blocks(const uint8_t* from, int64_t) {
  return load_words(from);
}
KVSWEEP_INLINE U widen_shorts(const void* from) {
  uint16_t x[kWidth];
  std::memcpy(x, from, sizeof x);
  return U{x[0], x[1], x[2], x[3]};
}
KVSWEEP_INLINE U broadcast_block(const void* from) {
  return load_words(from);
}
KVSWEEP_INLINE U shuffle_bytes(U x, U control) {
  const Bytes from = __builtin_bit_cast(Bytes, x), at = __builtin_bit_cast(Bytes, control);
  Bytes to{};
  for (int i = 0; i < 16; ++i) to[i] = from[at[i] % 16];
  return __builtin_bit_cast(U, to);
}
KVSWEEP_INLINE U low_words(U a, U b) {
  return __builtin_shufflevector(a, b, 0, 4, 1, 5);
}
KVSWEEP_INLINE U high_words(U a, U b) {
  return __builtin_shufflevector(a, b, 2, 6, 3, 7);
}
KVSWEEP_INLINE U low_pairs(U a, U b) {
  return __builtin_shufflevector(a, b, 0, 1, 4, 5);
}
KVSWEEP_INLINE U high_pairs(U a, U b) {
  return __builtin_shufflevector(a, b, 2, 3, 6, 7);
}
KVSWEEP_INLINE F evens(F a, F b) {
  return __builtin_shufflevector(a, b, 0, 2, 4, 6);
}
KVSWEEP_INLINE F odds(F a, F b) {
  return __builtin_shufflevector(a, b, 1, 3, 5, 7);
}
