// Record "phases": each plane of the input taken apart into one plane per position inside the stride, with padding around,
// so that a strided convolution reads them as one of stride 1 does. Every element of the output is written once, but for
// padding that a vector writes and the next row overwrites.
#ifndef PRUNUS_PHASES_H
#define PRUNUS_PHASES_H
#include "run.h"

// A phase is 6 int32: its row and column inside the stride, first and last row and column that the input has.
enum { PHASE_ROW, PHASE_COLUMN, PHASE_TOP, PHASE_BOTTOM, PHASE_LEFT, PHASE_RIGHT, PHASE_SIZE };
enum { PHASES_MOST_PLANES = 16 };  // of a task

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

// Likewise x[0], x[2], ... to `even` and x[1], x[3], ... to `odd`, up to `n` of each.
INLINE void take_both_apart(const float *x, float *even, float *odd, int64_t n, vi real_even, vi real_odd, vf pad) {
  for (int64_t i = 0; i < n; i += VL, x += 2 * VL) {
    const vf a = load(x), b = load(x + VL), e = SHUFFLE(a, b, EVEN_LANES), o = SHUFFLE(a, b, ODD_LANES);
    store(even + i, i + VL < n ? e : choose(real_even, e, pad));
    store(odd + i, i + VL < n ? o : choose(real_odd, o, pad));
  }
}

// The lanes that are elements in the last vector of `n`.
INLINE vi real_lanes(int64_t n) { return first_lanes(n > 0 ? VL - (up_to_vectors(n) - n) : VL); }

INLINE int64_t width_of(const int32_t *p) { return p[PHASE_RIGHT] - p[PHASE_LEFT] + 1; }

// A phase goes with the one behind it where both are of the same rows, one column apart, and as long.
INLINE int goes_with_next(const int32_t *p) {
  const int32_t *q = p + PHASE_SIZE;
  return p[PHASE_ROW] == q[PHASE_ROW] && p[PHASE_COLUMN] == 0 && q[PHASE_COLUMN] == 1 && p[PHASE_TOP] == q[PHASE_TOP] &&
         p[PHASE_BOTTOM] == q[PHASE_BOTTOM] && p[PHASE_LEFT] == q[PHASE_LEFT] && width_of(q) > 0 &&
         up_to_vectors(width_of(p)) == up_to_vectors(width_of(q));
}

// One phase of a plane, or two at once, the second one's plane behind the first one's. `follows`: another plane lies
// behind this one of the input.
INLINE void take_phase(const int64_t *r, const int32_t *p, const float *x, float *out, int follows, const int two) {
  const int64_t plane = r[PHASES_PLANE], pitch = r[PHASES_PITCH], x_pitch = r[PHASES_X_PITCH];
  const int64_t step = r[PHASES_SW] * r[PHASES_X_STEP], row_step = r[PHASES_SH] * x_pitch;
  const int64_t n = width_of(p), whole = up_to_vectors(n);
  const float *row = x + p[PHASE_TOP] * row_step + p[PHASE_ROW] * x_pitch +
                     (p[PHASE_LEFT] * r[PHASES_SW] + p[PHASE_COLUMN]) * r[PHASES_X_STEP];
  const vf pad = (vf)splat_int((int32_t)r[PHASES_PAD]);
  const vi real = real_lanes(n), real_odd = two ? real_lanes(width_of(p + PHASE_SIZE)) : real;
  int64_t start = r[PHASES_LEAD] + p[PHASE_TOP] * pitch + p[PHASE_LEFT], done = 0;
  /* rows in whole vectors, where neither side ends before */
  const int rough = step <= 2 && follows && whole * 2 <= r[PHASES_X_PLANE];
  for (int64_t y = p[PHASE_TOP]; y <= p[PHASE_BOTTOM] && n > 0; y++, row += row_step, start += pitch) {
    if (start > done)
      for (int i = 0; i <= two; i++) fill_words(out + i * plane + done, start - done, r[PHASES_PAD]);
    if (rough && start + whole <= plane) {
      if (two) {
        take_both_apart(row, out + start, out + plane + start, n, real, real_odd, pad);
      } else {
        take_apart_roughly(row, out + start, n, step, real, pad);
      }
      done = start + whole;
    } else {
      for (int i = 0; i <= two; i++) {
        const int64_t own = width_of(p + i * PHASE_SIZE);
        take_apart(row + i * r[PHASES_X_STEP], out + i * plane + start, own, step);
        if (own < n) fill_words(out + i * plane + start + own, n - own, r[PHASES_PAD]);
      }
      done = start + n;
    }
  }
  if (plane > done)
    for (int i = 0; i <= two; i++) fill_words(out + i * plane + done, plane - done, r[PHASES_PAD]);
}

INLINE int64_t phases_planes_per_task(const int64_t *r) {
  const int64_t elements = r[PHASES_PLANE] * r[PHASES_N_PHASES];
  return most(least(GRAIN / elements, PHASES_MOST_PLANES), 1);
}

static void phases_task(void *context, int64_t task, int thread) {
  (void)thread;
  const prunus_run_state *s = context;
  const int64_t *r = s->record, planes = r[PHASES_PLANES], per_task = phases_planes_per_task(r);
  const int64_t blocks = ceil_div(planes, per_task), image = task / blocks, first = task % blocks * per_task;
  const int64_t last = least(first + per_task, planes), n_phases = r[PHASES_N_PHASES];
  const int32_t *table = (const int32_t *)at(s, r[PHASES_TABLE]);
  const float *x = at(s, r[PHASES_X]) + image * r[PHASES_X_BATCH] + first * r[PHASES_X_PLANE];
  float *out = at(s, r[PHASES_OUT]) + image * r[PHASES_OUT_BATCH] + first * n_phases * r[PHASES_PLANE];
  const int pairs = r[PHASES_SW] == 2 && r[PHASES_X_STEP] == 1;
  for (int64_t channel = first; channel < last; channel++, x += r[PHASES_X_PLANE]) {
    for (int64_t i = 0, taken; i < n_phases; i += taken, out += taken * r[PHASES_PLANE]) {
      const int32_t *p = table + i * PHASE_SIZE;
      taken = pairs && i + 1 < n_phases && goes_with_next(p) ? 2 : 1;
      if (taken == 2) {
        take_phase(r, p, x, out, channel + 1 < planes, 1);
      } else {
        take_phase(r, p, x, out, channel + 1 < planes, 0);
      }
    }
  }
}

static int64_t phases_tasks(const int64_t *r) {
  return r[PHASES_IMAGES] * ceil_div(r[PHASES_PLANES], phases_planes_per_task(r));
}
#endif
