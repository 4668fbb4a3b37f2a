// Record "lanes": row groups over the pixels of a small map. The lanes run over U * VL rows that share their columns, as in
// gemv.h, and L lines of P pixels are computed side by side: planes of 7x7 or 3x3 pixels would leave many lanes of group.h
// idle. Groups are those of gemv.h.
#ifndef PRUNUS_LANES_H
#define PRUNUS_LANES_H
#include "layer.h"

enum { LANES_MOST = 14 };  // pixels side by side

// Of VL rows, `n` of them real, what `from` has; zero where it is NULL.
INLINE vf of_rows(const float *from, const int32_t *rows, int n) {
  if (!from) return (vf){0};
  if (n == VL && rows[VL - 1] - rows[0] == VL - 1) return load(from + rows[0]);  // neighbours: rows of a group ascend
  float lane[VL] = {0};
  for (int i = 0; i < n; i++) lane[i] = from[rows[i]];
  return load(lane);
}

// The epilogue of n rows over `lines` x `pixels`. Between lines padding is cleared: to its readers it is zero.
__attribute__((noinline)) static void finish_lines(const prunus_tile *t, const int32_t *rows, const vf *sums, int lines,
                                                   int pixels, int n) {
  const vf bias = of_rows(t->bias, rows, n), slope = of_rows(t->slope, rows, n);
  for (int line = 0; line < lines; line++) {
    float y[LANES_MOST][VL];
    for (int p = 0; p < pixels; p++) {
      vf a = sums[line * pixels + p] + bias;
      if (t->residual) {
        const float *residual = t->residual + line * t->pitch + p;
        float other[VL] = {0};
        for (int i = 0; i < n; i++) other[i] = residual[rows[i] * t->residual_plane];
        a += load(other);
      }
      if (t->slope) {
        a = choose((a < (vf){0}), a * slope, a);
      } else if (t->activation) {
        a = activate(t->activation, a, t->p0, t->p1);
      }
      store(y[p], a);
    }
    for (int i = 0; i < n; i++) {
      float *out = t->out + rows[i] * t->plane + line * t->pitch;
      for (int p = 0; p < pixels; p++) out[p] = y[p][i];
      for (int64_t j = 0; j < t->gap && line < t->gaps; j++) out[pixels + j] = 0.0f;
    }
  }
}

// U vectors of rows over L lines of P pixels.
#define PRUNUS_LANES(U, L, P, NAME)                                                                    \
  static void NAME(const prunus_tile *t, const int32_t *group, int64_t n_groups) {                     \
    for (int64_t g = 0; g < n_groups; g++, group += GROUP_HEAD + (U) * VL) {                           \
      const int32_t n = group[GROUP_COLUMNS], *off = t->offsets + group[GROUP_OFFSETS];                \
      const float *w = t->weights + group[GROUP_WEIGHTS];                                              \
      const int64_t pitch = t->scratch_pitch;                                                          \
      vf sum[U][(L) * (P)];                                                                            \
      UNROLL for (int u = 0; u < (U); u++) UNROLL for (int p = 0; p < (L) * (P); p++) sum[u][p] = (vf){0}; \
      for (int32_t k = 0; k < n; k++, w += (U) * VL) {                                                 \
        const float *x = t->x + off[k];                                                                \
        vf weights[U];                                                                                 \
        UNROLL for (int u = 0; u < (U); u++) weights[u] = load(w + u * VL);                            \
        UNROLL for (int line = 0; line < (L); line++) UNROLL for (int p = 0; p < (P); p++) {           \
          const vf a = splat(x[line * pitch + p]);                                                     \
          UNROLL for (int u = 0; u < (U); u++) sum[u][line * (P) + p] += a * weights[u];               \
        }                                                                                              \
      }                                                                                                \
      UNROLL for (int u = 0; u < (U); u++) finish_lines(t, group + GROUP_HEAD + u * VL, sum[u], L, P, VL); \
    }                                                                                                  \
  }

// Single rows.
#define PRUNUS_LANES_ROW(L, P, NAME)                                                                   \
  static void NAME(const prunus_tile *t, const int32_t *group, int64_t n_groups) {                     \
    for (int64_t g = 0; g < n_groups; g++, group += GROUP_HEAD + 1) {                                  \
      const int32_t n = group[GROUP_COLUMNS], *off = t->offsets + group[GROUP_OFFSETS];                \
      const float *w = t->weights + group[GROUP_WEIGHTS];                                              \
      float sum[(L) * (P)] = {0};                                                                      \
      for (int32_t k = 0; k < n; k++) {                                                                \
        const float *x = t->x + off[k];                                                                \
        UNROLL for (int line = 0; line < (L); line++) UNROLL for (int p = 0; p < (P); p++)             \
          sum[line * (P) + p] += w[k] * x[line * t->scratch_pitch + p];                                \
      }                                                                                                \
      vf all[(L) * (P)];                                                                               \
      UNROLL for (int p = 0; p < (L) * (P); p++) all[p] = splat(sum[p]);                               \
      finish_lines(t, group + GROUP_HEAD, all, L, P, 1);                                               \
    }                                                                                                  \
  }
#include "lanes_table.h"  // prunus_lanes_kernels[lines][pixels][height], prunus_lanes_less[pixels]: written with the library

static void lanes_task(void *context, int64_t task, int thread) {
  (void)thread;
  const prunus_run_state *s = context;
  const int64_t *r = s->record;
  const int32_t *groups = (const int32_t *)at(s, r[LANES_GROUPS]), *calls = (const int32_t *)at(s, r[LANES_CALLS]);
  const int32_t *parts = (const int32_t *)at(s, r[LANES_PARTS]);
  const int32_t *sections = (const int32_t *)at(s, r[LANES_SECTIONS]) + task;
  const int32_t *first = calls + parts[sections[0]] * CALL_SIZE, *last = calls + parts[sections[1]] * CALL_SIZE;
  prunus_tile t = layer_tile(s, r[LANES_WEIGHTS], r[LANES_OFFSETS], r[LANES_BIAS], r[LANES_SLOPE], r[LANES_ACTIVATION],
                             r[LANES_P0], r[LANES_P1]);
  t.plane = r[LANES_PLANE], t.residual_plane = r[LANES_RESIDUAL_PLANE];
  t.pitch = r[LANES_OUT_PITCH], t.scratch_pitch = r[LANES_X_PITCH];
  const float *residual = at(s, r[LANES_RESIDUAL]);
  for (const int32_t *c = first; c < last; c += CALL_SIZE)
    for (int64_t image = 0; image < r[LANES_IMAGES]; image++)
      for (int64_t line = 0, lines; line < r[LANES_LINES]; line += lines) {
        int64_t pixels = r[LANES_TILE];
        lines = line + r[LANES_TILE_LINES] <= r[LANES_LINES] ? r[LANES_TILE_LINES] : 1;
        for (int64_t i = 0; i < r[LANES_WIDTH]; i += pixels) {
          while (pixels > r[LANES_WIDTH] - i) pixels = prunus_lanes_less[pixels];
          const int64_t place = line * r[LANES_OUT_PITCH] + i;
          t.x = at(s, r[LANES_X]) + image * r[LANES_X_BATCH] + line * r[LANES_X_PITCH] + i;
          t.out = at(s, r[LANES_OUT]) + image * r[LANES_OUT_BATCH] + place;
          t.residual = residual ? residual + image * r[LANES_RESIDUAL_BATCH] + place : NULL;
          t.gap = i + pixels == r[LANES_WIDTH] ? r[LANES_OUT_PITCH] - r[LANES_WIDTH] : 0;
          t.gaps = r[LANES_LINES] - 1 - line;  // what is behind the last line "margins" clears, or nobody reads
          prunus_lanes_kernels[lines][pixels][c[CALL_HEIGHT]](&t, groups + c[CALL_START], c[CALL_GROUPS]);
        }
      }
}
#endif
