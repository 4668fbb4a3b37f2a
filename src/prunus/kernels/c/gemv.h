// Row groups for one vector of inputs: the lanes run over U * VL rows that share their columns; or, at height 1, a
// single row against gathered inputs. Same groups as group.h (rows listed, but only FINAL groups).
#ifndef PRUNUS_GEMV_H
#define PRUNUS_GEMV_H
#include "group.h"

INLINE void finish_lanes(const prunus_tile *t, const int32_t *rows, vf a, int n) {
  if (n == VL && t->plane == 1 && !t->slope && rows[VL - 1] - rows[0] == VL - 1) {  // neighbours: rows of a group ascend
    if (t->scale) a *= load(t->scale + rows[0]);
    if (t->bias) a += load(t->bias + rows[0]);
    if (t->residual) a += load(t->residual + rows[0]);
    store(t->out + rows[0], t->activation ? activate(t->activation, a, t->p0, t->p1) : a);
    return;
  }
  float lane[VL], slope[VL];
  for (int i = 0; i < n; i++) {
    lane[i] = (t->scale ? a[i] * t->scale[rows[i]] : a[i]) + (t->bias ? t->bias[rows[i]] : 0.0f) + (t->residual ? t->residual[rows[i] * t->plane] : 0.0f);
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

enum { GEMV_AHEAD = 4096 }; /* bytes */

// Asks for weights from `offset` bytes on that come next but don't follow: their own loop would do so too late.
INLINE void expect_weights(const float *weights, int64_t offset) {
  for (int i = 0; i < GEMV_AHEAD; i += 64) __builtin_prefetch((const char *)weights + offset + i, 0, 2);
}

// A kernel by the width of its offsets: two bytes where they suffice, for a column of few rows is little more than that.
#define PRUNUS_BY_INDEX(NAME)                                                                          \
  static void NAME(const prunus_tile *t, const int32_t *group, int64_t n_groups) {                     \
    if (t->narrow) {                                                                                   \
      NAME##_by_16(t, group, n_groups);                                                                \
    } else {                                                                                           \
      NAME##_by_32(t, group, n_groups);                                                                \
    }                                                                                                  \
  }

// U vectors of type T, of LANES rows each, in SUMS sums each, so that additions overlap; weights of type W.
#define PRUNUS_GEMV_OF(T, W, LOAD, LANES, U, SUMS, NAME)                                               \
  PRUNUS_GEMV_INDEXED(uint16_t, T, W, LOAD, LANES, U, SUMS, NAME##_by_16)                              \
  PRUNUS_GEMV_INDEXED(int32_t, T, W, LOAD, LANES, U, SUMS, NAME##_by_32)                               \
  PRUNUS_BY_INDEX(NAME)
#define PRUNUS_GEMV_INDEXED(INDEX, T, W, LOAD, LANES, U, SUMS, NAME)                                   \
  static void NAME(const prunus_tile *t, const int32_t *group, int64_t n_groups) {                     \
    for (int64_t g = 0; g < n_groups; g++, group += GROUP_HEAD + U * LANES) {                          \
      const int32_t n = group[GROUP_COLUMNS];                                                          \
      const INDEX *off = (const INDEX *)t->offsets + group[GROUP_OFFSETS];                             \
      const W *w = (const W *)t->weights + group[GROUP_WEIGHTS];                                       \
      const float *x = t->x;                                                                           \
      T sum[SUMS][U];                                                                                  \
      UNROLL for (int i = 0; i < SUMS; i++) UNROLL for (int u = 0; u < U; u++) sum[i][u] = (T){0};     \
      int32_t k = 0;                                                                                   \
      for (; k + SUMS <= n; k += SUMS, w += SUMS * U * LANES) {                                        \
        UNROLL for (int i = 0; i < SUMS; i++) {                                                        \
          const T a = x[off[k + i]] - (T){0};                                                          \
          UNROLL for (int u = 0; u < U; u++) sum[i][u] += a * LOAD(w + (i * U + u) * LANES); \
        }                                                                                              \
      }                                                                                                \
      for (; k < n; k++, w += U * LANES) {                                                             \
        const T a = x[off[k]] - (T){0};                                                                \
        UNROLL for (int u = 0; u < U; u++) sum[0][u] += a * LOAD(w + u * LANES);                       \
      }                                                                                                \
      UNROLL for (int u = 0; u < U; u++) {                                                             \
        UNROLL for (int i = SUMS / 2; i > 0; i /= 2)                                                   \
          UNROLL for (int j = 0; j < i; j++) sum[j][u] += sum[j + i][u];                               \
        vf all = {0};                                                                                  \
        memcpy(&all, &sum[0][u], sizeof(T));                                                           \
        finish_lanes(t, group + GROUP_HEAD + u * LANES, all, LANES);                                   \
      }                                                                                                \
    }                                                                                                  \
  }
#define PRUNUS_GEMV(U, NAME) PRUNUS_GEMV_OF(vf, float, load, VL, U, 2, NAME)
#define PRUNUS_GEMV_HELD(W, LOAD, U, NAME) PRUNUS_GEMV_OF(vf, W, LOAD, VL, U, 2, NAME)

// Half a vector of rows: blocks of 8 rows on 16 lanes, of 4 on 8.
typedef float vh __attribute__((vector_size(VB / 2)));
typedef float vh_any __attribute__((vector_size(VB / 2), aligned(4), may_alias));
INLINE vh load_half(const float *p) { return *(const vh_any *)p; }
#define PRUNUS_GEMV_HALF(NAME) PRUNUS_GEMV_OF(vh, float, load_half, VL / 2, 1, 4, NAME)

#define PRUNUS_GEMV_ROW(W, LOAD, NAME)                                                                 \
  PRUNUS_GEMV_ROW_INDEXED(uint16_t, W, LOAD, NAME##_by_16)                                             \
  PRUNUS_GEMV_ROW_INDEXED(int32_t, W, LOAD, NAME##_by_32)                                              \
  PRUNUS_BY_INDEX(NAME)
#define PRUNUS_GEMV_ROW_INDEXED(INDEX, W, LOAD, NAME)                                                  \
  static void NAME(const prunus_tile *t, const int32_t *group, int64_t n_groups) {                     \
    for (int64_t g = 0; g < n_groups; g++, group += GROUP_HEAD + 1) {                                  \
      const int32_t n = group[GROUP_COLUMNS];                                                          \
      const INDEX *off = (const INDEX *)t->offsets + group[GROUP_OFFSETS];                             \
      const W *w = (const W *)t->weights + group[GROUP_WEIGHTS];                                       \
      const float *x = t->x;                                                                           \
      float sum[8] = {0};                                                                              \
      int32_t k = 0;                                                                                   \
      for (; k + 8 <= n; k += 8)                                                                       \
        UNROLL for (int i = 0; i < 8; i++) sum[i] += LOAD(w + k + i) * x[off[k + i]];                  \
      for (; k < n; k++) sum[0] += LOAD(w + k) * x[off[k]];                                            \
      vf a = {0};                                                                                      \
      a[0] = ((sum[0] + sum[1]) + (sum[2] + sum[3])) + ((sum[4] + sum[5]) + (sum[6] + sum[7]));        \
      finish_lanes(t, group + GROUP_HEAD, a, 1);                                                       \
    }                                                                                                  \
  }
PRUNUS_GEMV_ROW(float, lone_f32, prunus_f32_gemv_row)
PRUNUS_GEMV_ROW(uint16_t, lone_bf16, prunus_held_2_gemv_row)
PRUNUS_GEMV_ROW(int8_t, lone_int8, prunus_held_1_gemv_row)
#endif
