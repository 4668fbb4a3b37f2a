// Record "phases": each plane of the input taken apart into one plane per position inside the stride, with padding around,
// so that a strided convolution reads them as one of stride 1 does. Every element of the output is written once.
#ifndef PRUNUS_PHASES_H
#define PRUNUS_PHASES_H
#include "run.h"

// A phase is 6 int32: its row and column inside the stride, first and last row and column that the input has.
enum { PHASE_ROW, PHASE_COLUMN, PHASE_TOP, PHASE_BOTTOM, PHASE_LEFT, PHASE_RIGHT, PHASE_SIZE };

// x[0], x[step], ... of `n`. Rows at least a vector long end with one that overlaps the one before.
static void take_apart(const float *x, float *out, int64_t n, int64_t step) {
  if (step == 1) {
    memcpy(out, x, (size_t)n * 4);
  } else if (step == 2 && n >= VL) {
    for (int64_t i = 0; i + VL < n; i += VL) store(out + i, every_other(x + 2 * i));
    store(out + n - VL, every_other(x + 2 * (n - VL)));
  } else if (step == 2) {
    for (int64_t i = 0; i < n; i++) out[i] = x[2 * i];
  } else {
    for (int64_t i = 0; i < n; i++) out[i] = x[i * step];
  }
}

// As many of `x` and `out` as whole vectors take: what is written past `n` is padding, and what is read past it is there
// to read. `real`: the lanes of the last vector that are elements.
INLINE void take_apart_roughly(const float *x, float *out, int64_t n, int64_t step, vi real, vf pad) {
  for (int64_t i = 0; i < n; i += VL) {
    const vf a = step == 1 ? load(x + i) : every_other(x + 2 * i);
    store(out + i, i + VL < n ? a : choose(real, a, pad));
  }
}

static void phases_task(void *context, int64_t task, int thread) {
  (void)thread;
  const prunus_run_state *s = context;
  const int64_t *r = s->record, image = task / r[PHASES_PLANES], channel = task % r[PHASES_PLANES];
  const int64_t plane = r[PHASES_PLANE], pitch = r[PHASES_PITCH], n_phases = r[PHASES_N_PHASES];
  const int64_t step = r[PHASES_SW] * r[PHASES_X_STEP], row_step = r[PHASES_SH] * r[PHASES_X_PITCH];
  const float *x = at(s, r[PHASES_X]) + image * r[PHASES_X_BATCH] + channel * r[PHASES_X_PLANE];
  float *out = at(s, r[PHASES_OUT]) + image * r[PHASES_OUT_BATCH] + channel * n_phases * plane;
  const int32_t *p = (const int32_t *)at(s, r[PHASES_TABLE]);
  const int follows = channel + 1 < r[PHASES_PLANES]; /* another plane lies behind this one of the input */
  const vf pad = (vf)splat_int((int32_t)r[PHASES_PAD]);
  for (int64_t i = 0; i < n_phases; i++, p += PHASE_SIZE, out += plane) {
    const int64_t n = p[PHASE_RIGHT] - p[PHASE_LEFT] + 1, whole = up_to_vectors(n);
    const float *row = x + p[PHASE_TOP] * row_step + p[PHASE_ROW] * r[PHASES_X_PITCH] +
                       (p[PHASE_LEFT] * r[PHASES_SW] + p[PHASE_COLUMN]) * r[PHASES_X_STEP];
    int64_t start = r[PHASES_LEAD] + p[PHASE_TOP] * pitch + p[PHASE_LEFT], done = 0;
    /* rows in whole vectors, where neither side ends before */
    const int rough = step <= 2 && follows && whole * 2 <= r[PHASES_X_PLANE];
    int32_t lanes[VL]; /* the same for all rows */
    for (int64_t j = 0; rough && j < VL; j++) lanes[j] = whole - VL + j < n ? -1 : 0;
    const vi real = rough ? load_int(lanes) : (vi){0};
    for (int64_t y = p[PHASE_TOP]; y <= p[PHASE_BOTTOM] && n > 0; y++, row += row_step, start += pitch) {
      if (start > done) fill_words(out + done, start - done, r[PHASES_PAD]);
      if (rough && start + whole <= plane) {
        take_apart_roughly(row, out + start, n, step, real, pad);
        done = start + whole;
      } else {
        take_apart(row, out + start, n, step);
        done = start + n;
      }
    }
    if (plane > done) fill_words(out + done, plane - done, r[PHASES_PAD]);
  }
}
#endif
