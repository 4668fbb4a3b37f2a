// Words: vectors of 32-bit lanes that hold one pixel of several channels each, two bfloat16 (pairs) or four uint8
// (quads), and their products with words of weights. The generic text is the definition; an ISA that has an instruction
// for it uses that.
#ifndef PRUNUS_WORDS_H
#define PRUNUS_WORDS_H
#include "vector.h"
#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

typedef uint32_t vu __attribute__((vector_size(VB)));
typedef int16_t vs __attribute__((vector_size(VB)));
typedef uint8_t vb __attribute__((vector_size(VB)));

INLINE void store_int(int32_t *p, vi a) { *(vi_any *)p = a; }
INLINE vi byte_of(vi words, int i) { return (vi)((vu)words >> (8 * i)) & 255; }
// Byte i of each word where one instruction leaves it, and what one of its steps is worth there.
INLINE vi byte_in_place(vi words, int i) { return i == 3 ? (vi)((vu)words >> 24) : words & (255 << (8 * i)); }
INLINE float worth_of(int i) { return i == 1 ? 0x1p-8f : i == 2 ? 0x1p-16f : 1.0f; }
INLINE vf low_half(vi words) { return (vf)((vu)words << 16); }
INLINE vf high_half(vi words) { return (vf)((vu)words & 0xffff0000u); }

// sum + the dot product of two int16 in each lane
INLINE vi madd_halves(vi sum, vi a, vi b) {
#if defined(__AVX512BW__) && VB == 64
  return sum + (vi)_mm512_madd_epi16((__m512i)a, (__m512i)b);
#elif defined(__AVX2__) && VB == 32
  return sum + (vi)_mm256_madd_epi16((__m256i)a, (__m256i)b);
#elif defined(__SSE2__) && VB == 16
  return sum + (vi)_mm_madd_epi16((__m128i)a, (__m128i)b);
#else
  return sum + ((vi)((vu)a << 16) >> 16) * ((vi)((vu)b << 16) >> 16) + (a >> 16) * (b >> 16);
#endif
}

// sum + the dot product of four uint8 of x with four int8 of w in each lane. Without VNNI, AVX2 and AVX-512 add two
// products in 16 bits, which saturates: the compiler splits weights so that it can't (sparsity/words.py).
INLINE vi dot_quads(vi sum, vi x, vi w) {
#if defined(__AVX512VNNI__) && VB == 64
  return (vi)_mm512_dpbusd_epi32((__m512i)sum, (__m512i)x, (__m512i)w);
#elif defined(__AVX512BW__) && VB == 64
  return sum + (vi)_mm512_madd_epi16(_mm512_maddubs_epi16((__m512i)x, (__m512i)w), _mm512_set1_epi16(1));
#elif defined(__AVX2__) && VB == 32
  return sum + (vi)_mm256_madd_epi16(_mm256_maddubs_epi16((__m256i)x, (__m256i)w), _mm256_set1_epi16(1));
#elif defined(__ARM_FEATURE_MATMUL_INT8) && VB == 16
  return (vi)vusdotq_s32((int32x4_t)sum, (uint8x16_t)x, (int8x16_t)w);
#else
  const vi even = (vi)((vu)x & 0x00ff00ffu), odd = (vi)((vu)x >> 8 & 0x00ff00ffu);
  return madd_halves(madd_halves(sum, even, (vi)((vs)((vu)w << 8) >> 8)), odd, (vi)((vs)w >> 8));
#endif
}

// sum + the dot product of two bfloat16 in each lane
INLINE vf dot_pairs(vf sum, vi x, vi w) {
#if defined(__AVX512BF16__) && VB == 64
  return (vf)_mm512_dpbf16_ps((__m512)sum, (__m512bh)x, (__m512bh)w);
#elif defined(__ARM_FEATURE_BF16_VECTOR_ARITHMETIC) && VB == 16
  return (vf)vbfdotq_f32((float32x4_t)sum, (bfloat16x8_t)x, (bfloat16x8_t)w);
#else
  return sum + low_half(x) * low_half(w) + high_half(x) * high_half(w);
#endif
}

// Bits 0..15: the nearest bfloat16, ties to even; NaN stays NaN.
INLINE vi to_bf16(vf a) {
  const vu bits = (vu)a, rounded = (bits + 0x7fffu + (bits >> 16 & 1)) >> 16;
  const vi is_nan = (a != a);
  return ((vi)rounded & ~is_nan) | (is_nan & 0x7fc0);
}

// Words of the nearest bfloat16 of two channels. What converts in one instruction makes zero of numbers below 2^-126, as
// `dot_pairs` does.
INLINE vi to_pairs(vf low, vf high) {
#if defined(__AVX512BF16__) && VB == 64
  const __m512i all = (__m512i)_mm512_cvtne2ps_pbh((__m512)high, (__m512)low);  // 16 of `low`, 16 of `high`
  const __m512i order = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8,  //
                                         23, 7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
  return (vi)_mm512_permutexvar_epi16(order, all);
#else
  return to_bf16(low) | (vi)((vu)to_bf16(high) << 16);
#endif
}

// Words of the nearest integers, ties to even, of four channels, clipped to 0 .. 255, of numbers that int32 holds.
INLINE vi to_quads(vf a, vf b, vf c, vf d) {
#if defined(__AVX512BW__) && VB == 64
  const __m512i order = _mm512_broadcast_i32x4(_mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15));
#define INTEGERS(x) _mm512_cvtps_epi32((__m512)(x))
  const __m512i low = _mm512_packs_epi32(INTEGERS(a), INTEGERS(b)), high = _mm512_packs_epi32(INTEGERS(c), INTEGERS(d));
  return (vi)_mm512_shuffle_epi8(_mm512_packus_epi16(low, high), order);
#undef INTEGERS
#elif defined(__AVX2__) && VB == 32
  const __m256i order = _mm256_broadcastsi128_si256(_mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15));
#define INTEGERS(x) _mm256_cvtps_epi32((__m256)(x))
  const __m256i low = _mm256_packs_epi32(INTEGERS(a), INTEGERS(b)), high = _mm256_packs_epi32(INTEGERS(c), INTEGERS(d));
  return (vi)_mm256_shuffle_epi8(_mm256_packus_epi16(low, high), order);
#undef INTEGERS
#else
  const vf all[4] = {a, b, c, d};
  vi word = {0};
  UNROLL for (int i = 0; i < 4; i++) {  // adding 1.5 * 2^23 leaves the integer in the low bits
    const vf clipped = min_of(max_of(all[i], (vf){0}), splat(255.0f));
    word |= (vi)(((vu)(clipped + splat(12582912.0f)) & 255u) << (8 * i));
  }
  return word;
#endif
}

// Every other word of two vectors.
INLINE vi even_words(vi a, vi b) {
#if VL == 16
  return SHUFFLE(a, b, 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
#elif VL == 8
  return SHUFFLE(a, b, 0, 2, 4, 6, 8, 10, 12, 14);
#else
  return SHUFFLE(a, b, 0, 2, 4, 6);
#endif
}

INLINE vb least_bytes(vb a, vb b) {
  const vb mask = (vb)(a < b);
  return (a & mask) | (b & ~mask);
}
INLINE vb most_bytes(vb a, vb b) {
  const vb mask = (vb)(a > b);
  return (a & mask) | (b & ~mask);
}
#endif
