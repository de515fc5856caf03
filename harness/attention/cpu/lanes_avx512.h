// Sixteen lanes of AVX-512. Included inside a target region and an anonymous namespace; see kernels_inl.h.
#define KVSWEEP_INLINE [[gnu::always_inline]] inline

constexpr int64_t kWidth = 16;
using F [[gnu::vector_size(64)]] = float;
using I [[gnu::vector_size(64)]] = int32_t;
using U [[gnu::vector_size(64)]] = uint32_t;
constexpr int kKeyTokens[4] = {64, 64, 32, 32};
constexpr int kValueColumns[4] = {8, 4, 4, 2};

KVSWEEP_INLINE U as_unsigned(__m512i x) {
  return __builtin_bit_cast(U, x);
}
KVSWEEP_INLINE __m512i as_m512i(U x) {
  return __builtin_bit_cast(__m512i, x);
}

KVSWEEP_INLINE F load(const float* from) {
  return __builtin_bit_cast(F, _mm512_loadu_ps(from));
}
KVSWEEP_INLINE U load_words(const void* from) {
  return as_unsigned(_mm512_loadu_si512(from));
}
KVSWEEP_INLINE void store(float* to, F x) {
  _mm512_storeu_ps(to, x);
}
KVSWEEP_INLINE void store_words(void* to, U x) {
  _mm512_storeu_si512(to, as_m512i(x));
}
KVSWEEP_INLINE F broadcast(const float* from) {
  return __builtin_bit_cast(F, _mm512_set1_ps(*from));
}
KVSWEEP_INLINE F fma(F a, F b, F c) {
  return __builtin_bit_cast(F, _mm512_fmadd_ps(a, b, c));
}
KVSWEEP_INLINE F max(F a, F b) {
  return a > b ? a : b;
}
KVSWEEP_INLINE F load_half(const uint16_t* from) {
  return __builtin_bit_cast(F, _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from))));
}
KVSWEEP_INLINE F load_bfloat16(const uint16_t* from) {
  const __m512i words = _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
  return __builtin_bit_cast(F, _mm512_slli_epi32(words, 16));
}
KVSWEEP_INLINE U load_blocks(const uint8_t* from, int64_t step) {
  const auto at = [&](int64_t block) { return _mm_loadu_si128(reinterpret_cast<const __m128i*>(from + block * step)); };
  const __m256i low = _mm256_inserti128_si256(_mm256_castsi128_si256(at(0)), at(1), 1);
  const __m256i high = _mm256_inserti128_si256(_mm256_castsi128_si256(at(2)), at(3), 1);
  return as_unsigned(_mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1));
}
KVSWEEP_INLINE U widen_shorts(const void* from) {
  return as_unsigned(_mm512_cvtepu16_epi32(_mm256_loadu_si256(static_cast<const __m256i*>(from))));
}
KVSWEEP_INLINE U broadcast_block(const void* from) {
  return as_unsigned(_mm512_broadcast_i32x4(_mm_loadu_si128(static_cast<const __m128i*>(from))));
}
KVSWEEP_INLINE U shuffle_bytes(U x, U control) {
  return as_unsigned(_mm512_shuffle_epi8(as_m512i(x), as_m512i(control)));
}
KVSWEEP_INLINE U low_words(U a, U b) {
  return as_unsigned(_mm512_unpacklo_epi32(as_m512i(a), as_m512i(b)));
}
KVSWEEP_INLINE U high_words(U a, U b) {
  return as_unsigned(_mm512_unpackhi_epi32(as_m512i(a), as_m512i(b)));
}
KVSWEEP_INLINE U low_pairs(U a, U b) {
  return as_unsigned(_mm512_unpacklo_epi64(as_m512i(a), as_m512i(b)));
}
KVSWEEP_INLINE U high_pairs(U a, U b) {
  return as_unsigned(_mm512_unpackhi_epi64(as_m512i(a), as_m512i(b)));
}
KVSWEEP_INLINE F evens(F a, F b) {
  const U at = {0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30};
  return __builtin_bit_cast(F, _mm512_permutex2var_ps(a, as_m512i(at), b));
}
KVSWEEP_INLINE F odds(F a, F b) {
  const U at = {1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31};
  return __builtin_bit_cast(F, _mm512_permutex2var_ps(a, as_m512i(at), b));
}
