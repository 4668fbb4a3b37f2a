// Row groups for one vector of inputs: the lanes run over U * VL rows that share their columns; or, at height 1, a
// single row against gathered inputs. Same groups as group.h (rows listed, but only FINAL groups).
#ifndef PRUNUS_GEMV_H
#define PRUNUS_GEMV_H
#include "group.h"

INLINE void finish_lanes(const prunus_tile *t, const int32_t *rows, vf a, int n) {
  float lane[VL], slope[VL];
  for (int i = 0; i < n; i++) {
    lane[i] = a[i] + (t->bias ? t->bias[rows[i]] : 0.0f) + (t->residual ? t->residual[rows[i] * t->plane] : 0.0f);
    slope[i] = t->slope ? t->slope[rows[i]] : t->p0;
  }
  for (int i = n; i < VL; i++) lane[i] = 0, slope[i] = 0;
  vf y = load(lane);
  if (t->slope) {
    y = choose((y < (vf){0}), y * load(slope), y);
  } else if (t->activation) {
    y = activate(t->activation, y, t->p0, t->p1);
  }
  for (int i = 0; i < n; i++) t->out[rows[i] * t->plane] = y[i];
}

#define PRUNUS_GEMV(U, NAME)                                                                           \
  static void NAME(const prunus_tile *t, const int32_t *group, int64_t n_groups) {                            \
    for (int64_t g = 0; g < n_groups; g++, group += GROUP_HEAD + U * VL) {                             \
      const int32_t n = group[GROUP_COLUMNS], *off = t->offsets + group[GROUP_OFFSETS];                \
      const float *w = t->weights + group[GROUP_WEIGHTS], *x = t->x;                                   \
      vf even[U], odd[U]; /* two sums each, so that additions overlap */                               \
      UNROLL for (int u = 0; u < U; u++) even[u] = odd[u] = (vf){0};                                   \
      int32_t k = 0;                                                                                   \
      for (; k + 2 <= n; k += 2, w += 2 * U * VL) {                                                    \
        const vf a = splat(x[off[k]]), b = splat(x[off[k + 1]]);                                       \
        UNROLL for (int u = 0; u < U; u++) even[u] += a * load(w + u * VL);                            \
        UNROLL for (int u = 0; u < U; u++) odd[u] += b * load(w + (U + u) * VL);                       \
      }                                                                                                \
      if (k < n) {                                                                                     \
        const vf a = splat(x[off[k]]);                                                                 \
        UNROLL for (int u = 0; u < U; u++) even[u] += a * load(w + u * VL);                            \
      }                                                                                                \
      UNROLL for (int u = 0; u < U; u++)                                                               \
        finish_lanes(t, group + GROUP_HEAD + u * VL, even[u] + odd[u], VL);                            \
    }                                                                                                  \
  }

static void prunus_f32_gemv_row(const prunus_tile *t, const int32_t *group, int64_t n_groups) {
  for (int64_t g = 0; g < n_groups; g++, group += GROUP_HEAD + 1) {
    const int32_t n = group[GROUP_COLUMNS], *off = t->offsets + group[GROUP_OFFSETS];
    const float *w = t->weights + group[GROUP_WEIGHTS], *x = t->x;
    float sum[8] = {0};
    int32_t k = 0;
    for (; k + 8 <= n; k += 8)
      UNROLL for (int i = 0; i < 8; i++) sum[i] += w[k + i] * x[off[k + i]];
    for (; k < n; k++) sum[0] += w[k] * x[off[k]];
    vf a = {0};
    a[0] = ((sum[0] + sum[1]) + (sum[2] + sum[3])) + ((sum[4] + sum[5]) + (sum[6] + sum[7]));
    finish_lanes(t, group + GROUP_HEAD, a, 1);
  }
}
#endif
