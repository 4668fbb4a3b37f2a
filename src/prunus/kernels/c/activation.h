// Element-wise functions: of an epilogue, or of a node of their own.
#ifndef PRUNUS_ACTIVATION_H
#define PRUNUS_ACTIVATION_H
#include "records.h"
#include "vector.h"

INLINE vf abs_of(vf a) { return (vf)((vi)a & 0x7fffffff); }

// log(1 + y) for 0 <= y <= 1: log of the rounded sum, corrected for what rounding lost (Kahan's trick), where the
// log comes from the series of atanh on s = (u - 1) / (u + 1), |s| <= 1/3, to 1e-7.
INLINE vf log1p_of(vf y) {
  vf s = y / (y + splat(2.0f)), q = s * s;
  vf p = splat(2.0f / 17);
  p = p * q + splat(2.0f / 15);
  p = p * q + splat(2.0f / 13);
  p = p * q + splat(2.0f / 11);
  p = p * q + splat(2.0f / 9);
  p = p * q + splat(2.0f / 7);
  p = p * q + splat(2.0f / 5);
  p = p * q + splat(2.0f / 3);
  p = p * q + splat(2.0f);
  return p * s;
}

// (e^a - 1) without cancellation near 0: e^a - 1 = tanh(a/2) (e^a + 1); below 0.5 in size by the odd series of tanh.
INLINE vf tanh_of(vf a) {
  vf m = abs_of(a), e = exp_of(m * splat(-2.0f));
  vf far = (splat(1.0f) - e) / (splat(1.0f) + e);
  vf q = a * a, p = splat(-5.70498872745e-3f);  // Cephes tanhf
  p = p * q + splat(2.06390887954e-2f);
  p = p * q + splat(-5.37397155531e-2f);
  p = p * q + splat(1.33314422036e-1f);
  p = p * q + splat(-3.33332819422e-1f);
  vf near = p * q * a + a;
  far = choose((a < splat(0.0f)), -far, far);
  return choose((m < splat(0.625f)), near, choose((a != a), a, far));
}

// Abramowitz and Stegun 7.1.26 has 1.5e-7 absolute error; near 0 the Maclaurin series keeps the relative one.
INLINE vf erf_of(vf a) {
  vf m = abs_of(a), t = splat(1.0f) / (splat(1.0f) + splat(0.3275911f) * m);
  vf p = splat(1.061405429f);
  p = p * t + splat(-1.453152027f);
  p = p * t + splat(1.421413741f);
  p = p * t + splat(-0.284496736f);
  p = p * t + splat(0.254829592f);
  vf far = splat(1.0f) - p * t * exp_of(-m * m);
  far = choose((a < splat(0.0f)), -far, far);
  vf q = a * a, s = splat(-1.0f / 42);
  s = s * q + splat(0.1f);
  s = s * q + splat(-1.0f / 3);
  s = s * q + splat(1.0f);
  return choose((m < splat(0.3f)), splat(1.12837917f) * a * s, far);
}

INLINE vf sqrt_of(vf a) {
  for (int i = 0; i < VL; i++) a[i] = __builtin_sqrtf(a[i]);
  return a;
}

__attribute__((noinline)) static vf activate(int32_t kind, vf a, float p0, float p1) {
  const vf zero = {0}, one = splat(1.0f);
  switch (kind) {
    case ACT_RELU: return max_of(a, zero);
    case ACT_CLIP: return min_of(max_of(a, splat(p0)), splat(p1));
    case ACT_LEAKY_RELU: return choose((a < zero), a * p0, a);  // and prelu: p0 is the channel's slope
    case ACT_SIGMOID: return sigmoid_of(a);
    case ACT_HARD_SIGMOID: return min_of(max_of(a * p0 + p1, zero), one);
    case ACT_HARD_SWISH: return a * min_of(max_of(a * splat(1.0f / 6) + splat(0.5f), zero), one);
    case ACT_SILU: return a * sigmoid_of(a);
    case ACT_TANH: return tanh_of(a);
    case ACT_ELU: {
      vf half = tanh_of(a * splat(0.5f));  // e^a - 1 = 2 t / (1 - t)
      return choose((a < zero), splat(p0) * (half + half) / (one - half), a);
    }
    case ACT_SOFTPLUS: return max_of(a, zero) + log1p_of(exp_of(-abs_of(a)));
    case ACT_EXP: return exp_of(a);
    case ACT_SQRT: return sqrt_of(a);
    case ACT_ABS: return abs_of(a);
    case ACT_NEG: return -a;
    case ACT_ERF: return erf_of(a);
    case ACT_AFFINE: return a * p0 + p1;
    case ACT_THRESHOLDED_RELU: return choose((a <= p0), zero, a);  // NaN stays
    case ACT_SCALED_TANH: return splat(p0) * tanh_of(a * p1);
    case ACT_SOFTSIGN: return a / (one + abs_of(a));
    case ACT_GELU: return splat(0.5f) * a * (one + erf_of(a * splat(0.70710678f)));
  }
  return a;
}
#endif
