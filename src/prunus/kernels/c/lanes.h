// Record "lanes": row groups over the pixels of a small map. The lanes run over U * VL rows that share their columns, as in
// gemv.h, or over half a vector of them, and L lines of P pixels are computed side by side: planes of 7x7 or 3x3 pixels would
// leave many lanes of group.h idle. Groups are those of gemv.h, but for runs of columns in place of columns.
#ifndef PRUNUS_LANES_H
#define PRUNUS_LANES_H
#include "layer.h"

enum { LANES_FLAT = 32 };  // elements of the output that are finished together: pixels, and the padding between lines

// The epilogue of `n` rows over `count` <= LANES_FLAT elements from `place` on. sums: by element, of all rows; where `real`
// is zero, so is what comes out: padding is cleared, to its readers it is zero.
INLINE void finish_stretch(const prunus_tile *t, const int32_t *rows, int n, vf *sums, const int32_t *real, int64_t place,
                           int64_t count) {
  for (int64_t from = 0; from < count; from += VL) {
    vf *a = sums + from;
    transpose(a);  // now by row
    const int64_t some = least(count - from, VL), here = place + from;
    const vi kept = load_int(real + from);
    for (int i = 0; i < n && (i == 0 || rows[i] != rows[i - 1]); i++) {  // a row that comes again fills up the group
      const int64_t row = rows[i];
      vf y = a[i];
      if (t->bias) y += splat(t->bias[row]);
      if (t->residual) y += load_some(t->residual + row * t->residual_plane + here, some, 0);
      if (t->activation) y = activate(t->activation, y, t->slope ? t->slope[row] : t->p0, t->p1);
      store_some(t->out + row * t->plane + here, (vf)((vi)y & kept), some);
    }
  }
}

// The epilogue of n rows over `lines` x `pixels`: as a whole where lines are whole, else line by line.
__attribute__((noinline)) static void finish_lines(const prunus_tile *t, const int32_t *rows, const vf *sums, int lines,
                                                   int pixels, int n) {
  vf flat[LANES_FLAT];
  int32_t real[LANES_FLAT];
  const int64_t closed = lines <= t->gaps ? lines : lines - 1;  // lines whose padding is cleared
  const int64_t whole = (lines - 1) * t->pitch + pixels + (closed == lines ? t->gap : 0);
  if (t->gap == t->pitch - pixels && whole <= LANES_FLAT) {
    for (int i = 0; i < up_to_vectors(whole); i++) flat[i] = (vf){0}, real[i] = 0;
    for (int line = 0; line < lines; line++)
      for (int p = 0; p < pixels; p++) flat[line * t->pitch + p] = sums[line * pixels + p], real[line * t->pitch + p] = -1;
    finish_stretch(t, rows, n, flat, real, 0, whole);
    return;
  }
  for (int i = 0; i < LANES_FLAT; i++) real[i] = -1;
  for (int line = 0; line < lines; line++) {
    for (int p = 0; p < pixels; p++) flat[p] = sums[line * pixels + p];
    for (int p = pixels; p % VL; p++) flat[p] = (vf){0};
    finish_stretch(t, rows, n, flat, real, line * t->pitch, pixels);
    if (line < closed)
      for (int i = 0; i < n; i++) {
        float *behind = t->out + rows[i] * t->plane + line * t->pitch + pixels;
        for (int64_t j = 0; j < t->gap; j++) behind[j] = 0.0f;
      }
  }
}

// In `offsets` a group has a run of columns for each part of the tile that they are computed for: LANES_CUT, LANES_RUN, then
// the columns. Cut is what would only meet padding: of the map's first (1) or last (2) line, times 3, and of the first (1) or
// last (2) pixel of each.
enum { LANES_CUT, LANES_RUN, LANES_RUN_HEAD };

// A run over lines [TOP, BOTTOM) and pixels [LEFT, RIGHT) of each.
#define LANES_COLUMNS(T, LOAD, LANES, U, P, STEP, TOP, BOTTOM, LEFT, RIGHT)                            \
  for (int32_t k = 0; k < n; k++, w += (U) * (LANES)) {                                                \
    const float *x = t->x + off[k];                                                                    \
    T weights[U];                                                                                      \
    UNROLL for (int u = 0; u < (U); u++) weights[u] = LOAD(w + u * (LANES));                           \
    UNROLL for (int line = TOP; line < (BOTTOM); line++) UNROLL for (int p = LEFT; p < (RIGHT); p++) { \
      const T a = x[line * pitch + p * (STEP)] - (T){0};                                               \
      UNROLL for (int u = 0; u < (U); u++) sum[u][line * (P) + p] += a * weights[u];                   \
    }                                                                                                  \
  }
// Tiles that may be a whole map have a loop for each cut, others only the one over all pixels.
#define LANES_RUNS_0(T, LOAD, LANES, U, L, P, STEP) LANES_COLUMNS(T, LOAD, LANES, U, P, STEP, 0, L, 0, P)
#define LANES_RUNS_1(T, LOAD, LANES, U, L, P, STEP)                                                          \
  switch (cut) {                                                                                       \
    case 0: LANES_COLUMNS(T, LOAD, LANES, U, P, STEP, 0, L, 0, P) break;                                     \
    case 1: LANES_COLUMNS(T, LOAD, LANES, U, P, STEP, 0, L, 1, P) break;                                     \
    case 2: LANES_COLUMNS(T, LOAD, LANES, U, P, STEP, 0, L, 0, (P) - 1) break;                               \
    case 3: LANES_COLUMNS(T, LOAD, LANES, U, P, STEP, 1, L, 0, P) break;                                     \
    case 4: LANES_COLUMNS(T, LOAD, LANES, U, P, STEP, 1, L, 1, P) break;                                     \
    case 5: LANES_COLUMNS(T, LOAD, LANES, U, P, STEP, 1, L, 0, (P) - 1) break;                               \
    case 6: LANES_COLUMNS(T, LOAD, LANES, U, P, STEP, 0, (L) - 1, 0, P) break;                               \
    case 7: LANES_COLUMNS(T, LOAD, LANES, U, P, STEP, 0, (L) - 1, 1, P) break;                               \
    default: LANES_COLUMNS(T, LOAD, LANES, U, P, STEP, 0, (L) - 1, 0, (P) - 1)                               \
  }

// U vectors of type T, of LANES rows each, over L lines of P pixels, STEP apart in the input.
#define PRUNUS_LANES_OF(T, LOAD, LANES, U, L, P, STEP, CUTS, NAME)                                           \
  static void NAME(const prunus_tile *t, const int32_t *group, int64_t n_groups) {                     \
    for (int64_t g = 0; g < n_groups; g++, group += GROUP_HEAD + (U) * (LANES)) {                      \
      const int32_t *off = t->offsets + group[GROUP_OFFSETS];                                          \
      const float *w = t->weights + group[GROUP_WEIGHTS];                                              \
      const int64_t pitch = t->scratch_pitch;                                                          \
      T sum[U][(L) * (P)];                                                                             \
      UNROLL for (int u = 0; u < (U); u++) UNROLL for (int p = 0; p < (L) * (P); p++) sum[u][p] = (T){0}; \
      for (int32_t run = 0, n; run < group[GROUP_COLUMNS]; run++, off += n) {                          \
        const int32_t cut = off[LANES_CUT];                                                            \
        n = off[LANES_RUN], off += LANES_RUN_HEAD, (void)cut;                                          \
        LANES_RUNS_##CUTS(T, LOAD, LANES, U, L, P, STEP)                                                     \
      }                                                                                                \
      UNROLL for (int u = 0; u < (U); u++) {                                                           \
        const int32_t *rows = group + GROUP_HEAD + u * (LANES);                                        \
        if (u > 0 && rows[0] == rows[-1]) break; /* nothing but a row that comes again */              \
        vf all[(L) * (P)];                                                                             \
        UNROLL for (int p = 0; p < (L) * (P); p++) all[p] = (vf){0}, memcpy(&all[p], &sum[u][p], sizeof(T)); \
        finish_lines(t, rows, all, L, P, LANES);                                                       \
      }                                                                                                \
    }                                                                                                  \
  }
#define PRUNUS_LANES(U, L, P, STEP, CUTS, NAME) PRUNUS_LANES_OF(vf, load, VL, U, L, P, STEP, CUTS, NAME)
#define PRUNUS_LANES_HALF(L, P, STEP, CUTS, NAME) PRUNUS_LANES_OF(vh, load_half, VL / 2, 1, L, P, STEP, CUTS, NAME)

// `count` sums of a single row from `x` on: here pixels are lanes. What is cut is padding, and so zero.
__attribute__((noinline)) static void row_stretch(const float *x, const int32_t *off, const float *w, int32_t runs,
                                                  int64_t count, float *sums) {
  enum { AT_ONCE = 4 };
  for (int64_t from = 0; from < count; from += VL) {
    const int64_t at = count < VL ? 0 : least(from, count - VL), some = least(count, VL);  // reads nothing behind `count`
    const int32_t *place = off;
    const float *weight = w, *start = x + at;
    vf sum[AT_ONCE] = {{0}};
    for (int32_t run = 0, n; run < runs; run++, place += n, weight += n) {
      n = place[LANES_RUN], place += LANES_RUN_HEAD;
      int32_t k = 0;
      for (; k + AT_ONCE <= n; k += AT_ONCE)
        UNROLL for (int i = 0; i < AT_ONCE; i++) sum[i] += splat(weight[k + i]) * load_some(start + place[k + i], some, 0);
      for (; k < n; k++) sum[0] += splat(weight[k]) * load_some(start + place[k], some, 0);
    }
    store_some(sums + at, (sum[0] + sum[1]) + (sum[2] + sum[3]), some);
  }
}

// The same of pixels that lie `step` apart; lines of sums are `pitch` apart.
__attribute__((noinline)) static void row_in_steps(const prunus_tile *t, const int32_t *off, const float *w, int32_t runs,
                                                   int lines, int pixels, int64_t step, float *sums, int64_t pitch) {
  for (int line = 0; line < lines; line++)
    for (int p = 0; p < pixels; p++) sums[line * pitch + p] = 0;
  for (int32_t run = 0, n; run < runs; run++, off += n, w += n) {
    n = off[LANES_RUN], off += LANES_RUN_HEAD;
    for (int32_t k = 0; k < n; k++)
      for (int line = 0; line < lines; line++)
        for (int p = 0; p < pixels; p++)
          sums[line * pitch + p] += w[k] * t->x[off[k] + line * t->scratch_pitch + p * step];
  }
}

// Single rows; of all lines at once where those lie near each other.
#define PRUNUS_LANES_ROW(L, P, STEP, NAME)                                                                   \
  static void NAME(const prunus_tile *t, const int32_t *group, int64_t n_groups) {                     \
    const int64_t all = ((L) - 1) * t->scratch_pitch + (P);                                            \
    const int64_t pitch = all <= LANES_FLAT ? t->scratch_pitch : (P);                                  \
    for (int64_t g = 0; g < n_groups; g++, group += GROUP_HEAD + 1) {                                  \
      const int32_t *off = t->offsets + group[GROUP_OFFSETS];                                          \
      const float *w = t->weights + group[GROUP_WEIGHTS];                                              \
      float flat[LANES_FLAT];                                                                          \
      if ((STEP) > 1) {                                                                                \
        row_in_steps(t, off, w, group[GROUP_COLUMNS], L, P, STEP, flat, pitch);                        \
      } else if (all <= LANES_FLAT) {                                                                  \
        row_stretch(t->x, off, w, group[GROUP_COLUMNS], all, flat);                                    \
      } else {                                                                                         \
        for (int line = 0; line < (L); line++)                                                         \
          row_stretch(t->x + line * t->scratch_pitch, off, w, group[GROUP_COLUMNS], P, flat + line * (P)); \
      }                                                                                                \
      vf sums[(L) * (P)];                                                                              \
      UNROLL for (int line = 0; line < (L); line++) UNROLL for (int p = 0; p < (P); p++)               \
        sums[line * (P) + p] = splat(flat[line * pitch + p]);                                          \
      finish_lines(t, group + GROUP_HEAD, sums, L, P, 1);                                              \
    }                                                                                                  \
  }
#include "lanes_table.h"  // prunus_lanes_kernels[step][lines][pixels][halves of a vector], prunus_lanes_less[pixels]: written with the library

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
          t.x = at(s, r[LANES_X]) + image * r[LANES_X_BATCH] + line * r[LANES_X_PITCH] + i * r[LANES_STEP];
          t.out = at(s, r[LANES_OUT]) + image * r[LANES_OUT_BATCH] + place;
          t.residual = residual ? residual + image * r[LANES_RESIDUAL_BATCH] + place : NULL;
          t.gap = i + pixels == r[LANES_WIDTH] ? r[LANES_OUT_PITCH] - r[LANES_WIDTH] : 0;
          t.gaps = r[LANES_LINES] - 1 - line;  // what is behind the last line "margins" clears, or nobody reads
          prunus_lanes_kernels[r[LANES_STEP]][lines][pixels][c[CALL_HEIGHT] / (VL / 2)](&t, groups + c[CALL_START], c[CALL_GROUPS]);
        }
      }
}
#endif
