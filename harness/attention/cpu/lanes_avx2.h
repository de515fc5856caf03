// Eight lanes of AVX2. Included inside a target region and an anonymous namespace; see kernels_inl.h for what is asked.
#define KVSWEEP_INLINE [[gnu::always_inline]] inline

constexpr int64_t kWidth = 8;
using F [[gnu::vector_size(32)]] = float;
using I [[gnu::vector_size(32)]] = int32_t;
using U [[gnu::vector_size(32)]] = uint32_t;
constexpr int kKeyTokens[4] = {64, 32, 32, 16};  // tokens of a block of keys for 1 to 4 rows: 8 to 12 sums in registers
constexpr int kValueColumns[4] = {8, 4, 2, 2};   // columns of values likewise

KVSWEEP_INLINE U as_unsigned(__m256i x) {
  return __builtin_bit_cast(U, x);
}
KVSWEEP_INLINE __m256i as_m256i(U x) {
  return __builtin_bit_cast(__m256i, x);
}

KVSWEEP_INLINE F load(const float* from) {
  return __builtin_bit_cast(F, _mm256_loadu_ps(from));
}
KVSWEEP_INLINE U load_words(const void* from) {
  return as_unsigned(_mm256_loadu_si256(static_cast<const __m256i*>(from)));
}
KVSWEEP_INLINE void store(float* to, F x) {
  _mm256_storeu_ps(to, x);
}
KVSWEEP_INLINE void store_words(void* to, U x) {
  _mm256_storeu_si256(static_cast<__m256i*>(to), as_m256i(x));
}
KVSWEEP_INLINE F broadcast(const float* from) {
  return __builtin_bit_cast(F, _mm256_broadcast_ss(from));
}
KVSWEEP_INLINE F fma(F a, F b, F c) {
  return __builtin_bit_cast(F, _mm256_fmadd_ps(a, b, c));
}
KVSWEEP_INLINE F max(F a, F b) {
  return __builtin_bit_cast(F, _mm256_max_ps(a, b));
}
KVSWEEP_INLINE F load_half(const uint16_t* from) {
  return __builtin_bit_cast(F, _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from))));
}
KVSWEEP_INLINE F load_bfloat16(const uint16_t* from) {
  const __m256i words = _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
  return __builtin_bit_cast(F, _mm256_slli_epi32(words, 16));
}
// 16 bytes each from `from`, from + step, ...
KVSWEEP_INLINE U load_blocks(const uint8_t* from, int64_t step) {
  const __m128i low = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
  const __m128i high = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from + step));
  return as_unsigned(_mm256_inserti128_si256(_mm256_castsi128_si256(low), high, 1));
}
KVSWEEP_INLINE U widen_shorts(const void* from) {
  return as_unsigned(_mm256_cvtepu16_epi32(_mm_loadu_si128(static_cast<const __m128i*>(from))));
}
KVSWEEP_INLINE U broadcast_block(const void* from) {
  return as_unsigned(_mm256_broadcastsi128_si256(_mm_loadu_si128(static_cast<const __m128i*>(from))));
}
KVSWEEP_INLINE U shuffle_bytes(U x, U control) {
  return as_unsigned(_mm256_shuffle_epi8(as_m256i(x), as_m256i(control)));
}
// Within each block of 16 bytes.
KVSWEEP_INLINE U low_words(U a, U b) {
  return as_unsigned(_mm256_unpacklo_epi32(as_m256i(a), as_m256i(b)));
}
KVSWEEP_INLINE U high_words(U a, U b) {
  return as_unsigned(_mm256_unpackhi_epi32(as_m256i(a), as_m256i(b)));
}
KVSWEEP_INLINE U low_pairs(U a, U b) {
  return as_unsigned(_mm256_unpacklo_epi64(as_m256i(a), as_m256i(b)));
}
KVSWEEP_INLINE U high_pairs(U a, U b) {
  return as_unsigned(_mm256_unpackhi_epi64(as_m256i(a), as_m256i(b)));
}
// Every second value of a | b, from the first or from the second.
KVSWEEP_INLINE F evens(F a, F b) {
  const __m256 mixed = _mm256_shuffle_ps(a, b, 0x88);
  return __builtin_bit_cast(F, _mm256_permute4x64_pd(_mm256_castps_pd(mixed), 0xd8));
}
KVSWEEP_INLINE F odds(F a, F b) {
  const __m256 mixed = _mm256_shuffle_ps(a, b, 0xdd);
  return __builtin_bit_cast(F, _mm256_permute4x64_pd(_mm256_castps_pd(mixed), 0xd8));
}
