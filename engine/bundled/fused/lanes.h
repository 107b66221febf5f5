// One register of floats or ints and what decoder.cpp does with it: AVX-512, else AVX2 with FMA and F16C.
//
// Does not know models. A Mask is the first so many lanes; masked loads give zeros elsewhere and touch nothing there.

#pragma once

#include <immintrin.h>

#include <algorithm>
#include <cstdint>
#include <cstring>

#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512DQ__) && defined(__AVX512VL__)

using Floats = __m512;
using Ints = __m512i;
using Mask = __mmask16;
// Lanes of a register, registers of a panel of columns, rows that share one reading of it: sums for all in registers.
constexpr int LANES = 16, VECTORS = 4, ROWS = 6;
constexpr Mask ALL = 0xffff;

inline Mask first_lanes(int n) { return n >= LANES ? ALL : static_cast<Mask>((1u << std::max(n, 0)) - 1); }

inline Floats zeros() { return _mm512_setzero_ps(); }
inline Floats splat(float x) { return _mm512_set1_ps(x); }
inline Ints splat(int x) { return _mm512_set1_epi32(x); }

inline Floats load(const float* p) { return _mm512_loadu_ps(p); }
inline Floats load(const float* p, Mask m) { return _mm512_maskz_loadu_ps(m, p); }
inline Ints load(const int* p) { return _mm512_loadu_si512(p); }
inline Ints load_aligned(const void* p) { return _mm512_load_si512(p); }
inline Ints load_bytes(const uint8_t* p) { return _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i*)p)); }
inline Ints load_bytes(const int8_t* p) { return _mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i*)p)); }
inline Ints load_words(const uint16_t* p, Mask m) { return _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(m, p)); }
inline Floats load_halves_of_fp8(const uint8_t* p) {  // as fp16 with the exponent's bias of fp8: 256 times too small
  __m256i wide = _mm256_cvtepu8_epi16(_mm_loadu_si128((const __m128i*)p));
  __m256i sign = _mm256_slli_epi16(_mm256_and_si256(wide, _mm256_set1_epi16(0x80)), 8);
  return _mm512_cvtph_ps(_mm256_or_si256(_mm256_slli_epi16(_mm256_and_si256(wide, _mm256_set1_epi16(0x7f)), 7), sign));
}

inline void store(float* p, Floats x) { _mm512_storeu_ps(p, x); }
inline void store(float* p, Floats x, Mask m) { _mm512_mask_storeu_ps(p, m, x); }
inline void store_bytes(void* p, Ints x, Mask m) { _mm512_mask_cvtepi32_storeu_epi8(p, m, x); }  // the lowest of each
inline void store_words(uint16_t* p, Ints x, Mask m) { _mm512_mask_cvtepi32_storeu_epi16(p, m, x); }

inline Floats fused(Floats a, Floats b, Floats sum) { return _mm512_fmadd_ps(a, b, sum); }         // a b + sum
inline Floats fused_minus(Floats a, Floats b, Floats sum) { return _mm512_fnmadd_ps(a, b, sum); }  // sum - a b
inline Floats larger(Floats a, Floats b) { return _mm512_max_ps(a, b); }
inline Floats smaller(Floats a, Floats b) { return _mm512_min_ps(a, b); }
inline Floats size_of(Floats x) { return _mm512_abs_ps(x); }
inline Floats whole(Floats x) { return _mm512_roundscale_ps(x, 0); }
inline Floats times_power(Floats x, Floats n) { return _mm512_scalef_ps(x, n); }  // x 2^n, n whole
inline float sum_of(Floats x) { return _mm512_reduce_add_ps(x); }
inline float largest_of(Floats x) { return _mm512_reduce_max_ps(x); }
inline Floats keep(Mask m, Floats x, Floats other) { return _mm512_mask_blend_ps(m, other, x); }  // x in the lanes of m
inline unsigned lanes_above(Floats x, float limit, Mask m) { return _mm512_mask_cmp_ps_mask(m, x, splat(limit), _CMP_GT_OQ); }
inline Ints where_less(Floats a, Floats b, Ints yes, Ints no) { return _mm512_mask_mov_epi32(no, _mm512_cmp_ps_mask(a, b, _CMP_LT_OQ), yes); }

inline Ints bits_of(Floats x) { return _mm512_castps_si512(x); }
inline Floats from_bits(Ints x) { return _mm512_castsi512_ps(x); }
inline Floats to_floats(Ints x) { return _mm512_cvtepi32_ps(x); }
inline Ints to_ints(Floats x) { return _mm512_cvtps_epi32(x); }
inline Ints plus(Ints a, Ints b) { return _mm512_add_epi32(a, b); }
inline Ints minus(Ints a, Ints b) { return _mm512_sub_epi32(a, b); }
inline Ints both(Ints a, Ints b) { return _mm512_and_si512(a, b); }
inline Ints either(Ints a, Ints b) { return _mm512_or_si512(a, b); }
template <int N> Ints left(Ints x) { return _mm512_slli_epi32(x, N); }
template <int N> Ints right(Ints x) { return _mm512_srli_epi32(x, N); }
template <int N> Ints right_signed(Ints x) { return _mm512_srai_epi32(x, N); }
inline Ints multiply_words(Ints a, Ints b) { return _mm512_madd_epi16(a, b); }  // signed 16 bits, neighbours added
inline Ints even_bytes(Ints x) { return _mm512_srai_epi16(_mm512_slli_epi16(x, 8), 8); }
inline Ints odd_bytes(Ints x) { return _mm512_srai_epi16(x, 8); }
inline Ints odd_unsigned_bytes(Ints x) { return _mm512_srli_epi16(x, 8); }

inline void twice(Floats x, Floats out[2]) {  // x0 x0 x1 x1 ...
  const __m512i from = _mm512_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7);
  out[0] = _mm512_permutexvar_ps(from, x);
  out[1] = _mm512_permutexvar_ps(_mm512_add_epi32(from, _mm512_set1_epi32(8)), x);
}
inline Ints join_words(Ints low, Ints high) {  // the low 16 bits of each, those of `low` first
  return _mm512_inserti64x4(_mm512_castsi256_si512(_mm512_cvtepi32_epi16(low)), _mm512_cvtepi32_epi16(high), 1);
}
inline void store_all(void* p, Ints x) { _mm512_storeu_si512(p, x); }

#else

using Floats = __m256;
using Ints = __m256i;
using Mask = int;  // how many lanes
constexpr int LANES = 8, VECTORS = 2, ROWS = 4;
constexpr Mask ALL = LANES;

inline Mask first_lanes(int n) { return std::clamp(n, 0, LANES); }
inline Ints lanes_of(Mask m) {
  alignas(64) static const int table[2 * LANES] = {-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0};
  return _mm256_loadu_si256((const __m256i*)(table + LANES - m));
}

inline Floats zeros() { return _mm256_setzero_ps(); }
inline Floats splat(float x) { return _mm256_set1_ps(x); }
inline Ints splat(int x) { return _mm256_set1_epi32(x); }

inline Floats load(const float* p) { return _mm256_loadu_ps(p); }
inline Floats load(const float* p, Mask m) { return m == ALL ? load(p) : _mm256_maskload_ps(p, lanes_of(m)); }
inline Ints load(const int* p) { return _mm256_loadu_si256((const __m256i*)p); }
inline Ints load_aligned(const void* p) { return _mm256_load_si256((const __m256i*)p); }
inline Ints load_bytes(const uint8_t* p) { return _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i*)p)); }
inline Ints load_bytes(const int8_t* p) { return _mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i*)p)); }
inline Ints load_words(const uint16_t* p, Mask m) {
  if (m == ALL) return _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i*)p));
  alignas(16) uint16_t some[LANES] = {};
  std::memcpy(some, p, m * sizeof *p);
  return _mm256_cvtepu16_epi32(_mm_load_si128((const __m128i*)some));
}
inline Floats load_halves_of_fp8(const uint8_t* p) {
  __m128i wide = _mm_cvtepu8_epi16(_mm_loadl_epi64((const __m128i*)p));
  __m128i sign = _mm_slli_epi16(_mm_and_si128(wide, _mm_set1_epi16(0x80)), 8);
  return _mm256_cvtph_ps(_mm_or_si128(_mm_slli_epi16(_mm_and_si128(wide, _mm_set1_epi16(0x7f)), 7), sign));
}

inline void store(float* p, Floats x) { _mm256_storeu_ps(p, x); }
inline void store(float* p, Floats x, Mask m) {
  if (m == ALL) return store(p, x);
  _mm256_maskstore_ps(p, lanes_of(m), x);
}
inline void store_bytes(void* p, Ints x, Mask m) {
  const __m256i lowest = _mm256_set1_epi32(0x0c080400);  // of each half's four ints
  __m256i four = _mm256_shuffle_epi8(x, lowest);
  int bytes[2] = {_mm256_extract_epi32(four, 0), _mm256_extract_epi32(four, 4)};
  std::memcpy(p, bytes, m);
}
inline Ints join_words(Ints low, Ints high) {
  const __m256i mask = _mm256_set1_epi32(0xffff);
  return _mm256_permute4x64_epi64(_mm256_packus_epi32(_mm256_and_si256(low, mask), _mm256_and_si256(high, mask)), 0xd8);
}
inline void store_words(uint16_t* p, Ints x, Mask m) {
  __m128i words = _mm256_castsi256_si128(join_words(x, x));
  if (m == ALL) return _mm_storeu_si128((__m128i*)p, words);
  std::memcpy(p, &words, m * sizeof *p);
}

inline Floats fused(Floats a, Floats b, Floats sum) { return _mm256_fmadd_ps(a, b, sum); }
inline Floats fused_minus(Floats a, Floats b, Floats sum) { return _mm256_fnmadd_ps(a, b, sum); }
inline Floats larger(Floats a, Floats b) { return _mm256_max_ps(a, b); }
inline Floats smaller(Floats a, Floats b) { return _mm256_min_ps(a, b); }
inline Floats size_of(Floats x) { return _mm256_andnot_ps(_mm256_set1_ps(-0.f), x); }
inline Floats whole(Floats x) { return _mm256_round_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
inline Floats times_power(Floats x, Floats n) {  // in two halves, so that neither leaves the range of an exponent
  __m256i all = _mm256_cvtps_epi32(n), half = _mm256_srai_epi32(all, 1), rest = _mm256_sub_epi32(all, half);
  auto power = [](__m256i m) { return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(m, _mm256_set1_epi32(127)), 23)); };
  return _mm256_mul_ps(_mm256_mul_ps(x, power(half)), power(rest));
}
inline float sum_of(Floats x) {
  __m128 four = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
  __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}
inline float largest_of(Floats x) {
  __m128 four = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
  __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)));
}
inline Floats keep(Mask m, Floats x, Floats other) { return m == ALL ? x : _mm256_blendv_ps(other, x, _mm256_castsi256_ps(lanes_of(m))); }
inline unsigned lanes_above(Floats x, float limit, Mask m) { return _mm256_movemask_ps(_mm256_cmp_ps(x, splat(limit), _CMP_GT_OQ)) & ((1u << m) - 1); }
inline Ints where_less(Floats a, Floats b, Ints yes, Ints no) {
  return _mm256_blendv_epi8(no, yes, _mm256_castps_si256(_mm256_cmp_ps(a, b, _CMP_LT_OQ)));
}

inline Ints bits_of(Floats x) { return _mm256_castps_si256(x); }
inline Floats from_bits(Ints x) { return _mm256_castsi256_ps(x); }
inline Floats to_floats(Ints x) { return _mm256_cvtepi32_ps(x); }
inline Ints to_ints(Floats x) { return _mm256_cvtps_epi32(x); }
inline Ints plus(Ints a, Ints b) { return _mm256_add_epi32(a, b); }
inline Ints minus(Ints a, Ints b) { return _mm256_sub_epi32(a, b); }
inline Ints both(Ints a, Ints b) { return _mm256_and_si256(a, b); }
inline Ints either(Ints a, Ints b) { return _mm256_or_si256(a, b); }
template <int N> Ints left(Ints x) { return _mm256_slli_epi32(x, N); }
template <int N> Ints right(Ints x) { return _mm256_srli_epi32(x, N); }
inline Ints multiply_words(Ints a, Ints b) { return _mm256_madd_epi16(a, b); }
inline Ints even_bytes(Ints x) { return _mm256_srai_epi16(_mm256_slli_epi16(x, 8), 8); }
inline Ints odd_bytes(Ints x) { return _mm256_srai_epi16(x, 8); }
inline Ints odd_unsigned_bytes(Ints x) { return _mm256_srli_epi16(x, 8); }

inline void twice(Floats x, Floats out[2]) {
  out[0] = _mm256_permutevar8x32_ps(x, _mm256_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3));
  out[1] = _mm256_permutevar8x32_ps(x, _mm256_setr_epi32(4, 4, 5, 5, 6, 6, 7, 7));
}
inline void store_all(void* p, Ints x) { _mm256_storeu_si256((__m256i*)p, x); }

#endif

// ---- bf16 and bytes: with the CPU's own products where it has them ------------------------------------------------

#ifdef __AVX512BF16__
inline Ints join_bf16(Floats low, Floats high) { return (__m512i)_mm512_cvtne2ps_pbh(high, low); }
inline void store_bf16(uint16_t* p, Floats x, Mask m) { _mm256_mask_storeu_epi16(p, m, (__m256i)_mm512_cvtneps_pbh(x)); }
inline Floats add_pairs(Floats sum, Ints a, Ints b) { return _mm512_dpbf16_ps(sum, (__m512bh)a, (__m512bh)b); }
#else
inline Ints bf16_words(Floats x) {  // nearest, ties to even
  Ints bits = bits_of(x), odd = both(right<16>(bits), splat(1));
  return right<16>(plus(plus(bits, splat(0x7fff)), odd));
}
inline Ints join_bf16(Floats low, Floats high) { return join_words(bf16_words(low), bf16_words(high)); }
inline void store_bf16(uint16_t* p, Floats x, Mask m) { store_words(p, bf16_words(x), m); }
inline Floats add_pairs(Floats sum, Ints a, Ints b) {  // products of bf16 neighbours, added in float32
  const Ints upper = splat(static_cast<int>(0xffff0000));
  sum = fused(from_bits(left<16>(a)), from_bits(left<16>(b)), sum);
  return fused(from_bits(both(a, upper)), from_bits(both(b, upper)), sum);
}
#endif

#ifdef __AVX512VNNI__
inline Ints add_fours(Ints sum, Ints a, Ints b) { return _mm512_dpbusd_epi32(sum, a, b); }
#else
inline Ints add_fours(Ints sum, Ints a, Ints b) {  // products of four unsigned and four signed bytes
  Ints even = multiply_words(both(a, splat(0x00ff00ff)), even_bytes(b));
  return plus(sum, plus(even, multiply_words(odd_unsigned_bytes(a), odd_bytes(b))));
}
#endif
