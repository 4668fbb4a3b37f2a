// Vectors of float32 and the few functions on them that every kernel uses. GCC/clang vector types only: the same text
// serves every ISA; VB (bytes per vector) comes from the compiler's command line.
#ifndef PRUNUS_VECTOR_H
#define PRUNUS_VECTOR_H
#include <stdint.h>
#include <string.h>

#define VL (VB / 4)  // lanes
#define INLINE static inline __attribute__((always_inline))
#if defined(__clang__)
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 64")
#endif

typedef float vf __attribute__((vector_size(VB)));
typedef int32_t vi __attribute__((vector_size(VB)));
typedef float vf_any __attribute__((vector_size(VB), aligned(4), may_alias));
typedef int32_t vi_any __attribute__((vector_size(VB), aligned(4), may_alias));

#if defined(__clang__)
#define SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define SHUFFLE(a, b, ...) __builtin_shuffle(a, b, (vi){__VA_ARGS__})
#endif

// Weights held in fewer bits than they are computed in: bfloat16, and steps of a row's scale.
typedef uint16_t vf_bf16 __attribute__((vector_size(VB / 2), aligned(2), may_alias));
typedef int8_t vf_int8 __attribute__((vector_size(VB / 4), aligned(1), may_alias));
typedef uint32_t vf_bits __attribute__((vector_size(VB)));
INLINE vf load_bf16(const uint16_t *p) { return (vf)(__builtin_convertvector(*(const vf_bf16 *)p, vf_bits) << 16); }
INLINE vf load_int8(const int8_t *p) {
  return __builtin_convertvector(__builtin_convertvector(*(const vf_int8 *)p, vi), vf);
}
INLINE float lone_f32(const float *p) { return *p; }
INLINE float lone_bf16(const uint16_t *p) {
  const uint32_t bits = (uint32_t)*p << 16;
  float a;
  memcpy(&a, &bits, 4);
  return a;
}
INLINE float lone_int8(const int8_t *p) { return *p; }

INLINE vf load(const float *p) { return *(const vf_any *)p; }
INLINE void store(float *p, vf a) { *(vf_any *)p = a; }
INLINE vi load_int(const int32_t *p) { return *(const vi_any *)p; }
INLINE vf splat(float a) { return a - (vf){0}; }
INLINE vi splat_int(int32_t a) { return a - (vi){0}; }
static const int32_t ones_and_zeros[2 * VL] = {[0 ... VL - 1] = -1};
// All ones in the first `n` <= VL lanes.
INLINE vi first_lanes(int64_t n) { return load_int(ones_and_zeros + VL - n); }
INLINE vf choose(vi mask, vf a, vf b) { return (vf)((mask & (vi)a) | (~mask & (vi)b)); }

// The first `n` <= VL lanes. What is behind them stays; comes as zero. `whole`: a vector is there to read.
#if defined(__AVX512F__) && VB == 64
#include <immintrin.h>
INLINE vf load_some(const float *p, int64_t n, int whole) {
  (void)whole;
  return (vf)_mm512_maskz_loadu_ps((__mmask16)((UINT32_C(1) << n) - 1), p);
}
INLINE void store_some(float *p, vf a, int64_t n) {
  _mm512_mask_storeu_ps(p, (__mmask16)((UINT32_C(1) << n) - 1), (__m512)a);
}
#else
INLINE void store_some(float *p, vf a, int64_t n) {
  if (n == VL) {
    store(p, a);
    return;
  }
  float lane[VL];
  store(lane, a);
  int64_t i = 0;
  UNROLL for (int part = VL / 2; part; part /= 2) {
    if (n & part) memcpy(p + i, lane + i, sizeof(float) * (size_t)part), i += part;
  }
}
INLINE vf load_some(const float *p, int64_t n, int whole) {
  if (whole || n == VL) return (vf)((vi)load(p) & first_lanes(n));
  float lane[VL] = {0};
  for (int64_t i = 0; i < n; i++) lane[i] = p[i];
  return load(lane);
}
#endif

// Of two vectors side by side.
#if VL == 4
#define EVEN_LANES 0, 2, 4, 6
#define ODD_LANES 1, 3, 5, 7
#elif VL == 8
#define EVEN_LANES 0, 2, 4, 6, 8, 10, 12, 14
#define ODD_LANES 1, 3, 5, 7, 9, 11, 13, 15
#else
#define EVEN_LANES 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30
#define ODD_LANES 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31
#endif

#if VL == 4
#define LOW_LANES 0, 4, 1, 5
#define HIGH_LANES 2, 6, 3, 7
#elif VL == 8
#define LOW_LANES 0, 8, 1, 9, 2, 10, 3, 11
#define HIGH_LANES 4, 12, 5, 13, 6, 14, 7, 15
#else
#define LOW_LANES 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23
#define HIGH_LANES 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31
#endif

// VL vectors: lane j of the i-th becomes lane i of the j-th. Each round moves the highest bit of the vector's number behind
// the lane's, and the lane's highest behind the vector's.
INLINE void transpose(vf *a) {
  vf b[VL];
  UNROLL for (int round = 1; round < VL; round *= 2) {
    UNROLL for (int i = 0; i < VL / 2; i++) {
      b[2 * i] = SHUFFLE(a[i], a[i + VL / 2], LOW_LANES);
      b[2 * i + 1] = SHUFFLE(a[i], a[i + VL / 2], HIGH_LANES);
    }
    UNROLL for (int i = 0; i < VL; i++) a[i] = b[i];
  }
}

// Elements 0, 2, 4, ... of the 2 * VL - 1 from p on: nothing is read behind the last one wanted.
INLINE vf every_other(const float *p) {
  const vf a = load(p), b = load(p + VL - 1);
#if VL == 16
  return SHUFFLE(a, b, 0, 2, 4, 6, 8, 10, 12, 14, 17, 19, 21, 23, 25, 27, 29, 31);
#elif VL == 8
  return SHUFFLE(a, b, 0, 2, 4, 6, 9, 11, 13, 15);
#else
  return SHUFFLE(a, b, 0, 2, 5, 7);
#endif
}

// The sum of all lanes, by halves.
INLINE float sum_of(vf a) {
#if VL == 16
  a += SHUFFLE(a, a, 8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7);
  a += SHUFFLE(a, a, 4, 5, 6, 7, 0, 1, 2, 3, 12, 13, 14, 15, 8, 9, 10, 11);
  a += SHUFFLE(a, a, 2, 3, 0, 1, 6, 7, 4, 5, 10, 11, 8, 9, 14, 15, 12, 13);
#elif VL == 8
  a += SHUFFLE(a, a, 4, 5, 6, 7, 0, 1, 2, 3);
  a += SHUFFLE(a, a, 2, 3, 0, 1, 6, 7, 4, 5);
#else
  a += SHUFFLE(a, a, 2, 3, 0, 1);
#endif
  return a[0] + a[1];
}

// NaN travels through the first argument of both, as in numpy.
INLINE vf max_of(vf a, vf b) { return choose((a < b), b, a); }
INLINE vf min_of(vf a, vf b) { return choose((a > b), b, a); }
// The same where `real` is all ones; zero where it is zero.
#if defined(__AVX512F__) && VB == 64
INLINE vf max_where(vi real, vf a, vf b) {
  return (vf)_mm512_maskz_max_ps(_mm512_movepi32_mask((__m512i)real), (__m512)b, (__m512)a);
}
INLINE vf min_where(vi real, vf a, vf b) {
  return (vf)_mm512_maskz_min_ps(_mm512_movepi32_mask((__m512i)real), (__m512)b, (__m512)a);
}
#else
INLINE vf max_where(vi real, vf a, vf b) { return (vf)((vi)max_of(a, b) & real); }
INLINE vf min_where(vi real, vf a, vf b) { return (vf)((vi)min_of(a, b) & real); }
#endif

// e^a to 2 ulp: 2^n * p(r) with a = n ln 2 + r, |r| <= ln 2 / 2; polynomial of degree 6 (Cephes expf's scheme).
INLINE vf exp_of(vf a) {
  vi is_nan = (a != a);
  vf x = min_of(max_of(a, splat(-87.33654f)), splat(88.72283f));
  vf magic = splat(12582912.0f);  // 1.5 * 2^23: adding it rounds to an integer
  vf n = (x * splat(1.44269504f) + magic) - magic;
  vf r = x - n * splat(0.693359375f) - n * splat(-2.12194440e-4f);
  vf p = splat(1.9875691500e-4f);
  p = p * r + splat(1.3981999507e-3f);
  p = p * r + splat(8.3334519073e-3f);
  p = p * r + splat(4.1665795894e-2f);
  p = p * r + splat(1.6666665459e-1f);
  p = p * r + splat(5.0000001201e-1f);
  p = p * r * r + r + splat(1.0f);
  vi power = __builtin_convertvector(n, vi);  // in -126 .. 128; two factors, for 2^128 is no float
  vi half = power >> 1;
  vf low = (vf)((half + 127) << 23), high = (vf)((power - half + 127) << 23);
  vf y = p * low * high;
  y = choose((a < splat(-103.97f)), splat(0.0f), y);
  return choose(is_nan, a, y);
}
INLINE vf sigmoid_of(vf a) {
  vf e = exp_of(-a);
  return splat(1.0f) / (splat(1.0f) + e);
}
#endif
