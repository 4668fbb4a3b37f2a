// Records "pool", "global_pool" and "resample": windows over planes. A task is one plane of one image; of "global_pool" it
// is a few.
#ifndef PRUNUS_POOL_H
#define PRUNUS_POOL_H
#include "run.h"

INLINE float greater(float a, float b) { return a > b || a != a ? a : b; }
INLINE vf greater_of(vf a, vf b) { return choose((a < b) | (b != b), b, a); }

// out[i] = the largest, or the sum, of x[i + k * step], k < taps; x may be out.
INLINE void merge_of(float *out, const float *x, int64_t n, int64_t taps, int64_t step, int average) {
  int64_t i = 0;
  for (; i + VL <= n; i += VL) {
    vf a = load(x + i);
    for (int64_t k = 1; k < taps; k++) a = average ? a + load(x + i + k * step) : greater_of(a, load(x + i + k * step));
    store(out + i, a);
  }
  for (; i < n; i++) {
    float a = x[i];
    for (int64_t k = 1; k < taps; k++) a = average ? a + x[i + k * step] : greater(a, x[i + k * step]);
    out[i] = a;
  }
}

// out[i] = the largest, or the sum, of x[2 * i + k * step], k < taps, for `n` >= VL; the last vector overlaps the one
// before.
INLINE void merge_every_other_of(float *out, const float *x, int64_t n, int64_t taps, int64_t step, int average) {
  for (int64_t i = 0; i < n; i += VL) {
    const int64_t from = least(i, n - VL);
    vf a = every_other(x + 2 * from);
    for (int64_t k = 1; k < taps; k++) {
      const vf b = every_other(x + 2 * from + k * step);
      a = average ? a + b : greater_of(a, b);
    }
    store(out + from, a);
  }
}

// The windows that networks have, with loops that the compiler can unroll.
#define PRUNUS_MERGE(NAME)                                                                             \
  static void NAME(float *out, const float *x, int64_t n, int64_t taps, int64_t step, int average) {   \
    if (!average && taps == 2) {                                                                       \
      NAME##_of(out, x, n, 2, step, 0);                                                                \
    } else if (!average && taps == 3) {                                                                \
      NAME##_of(out, x, n, 3, step, 0);                                                                \
    } else if (average) {                                                                              \
      NAME##_of(out, x, n, taps, step, 1);                                                             \
    } else {                                                                                           \
      NAME##_of(out, x, n, taps, step, 0);                                                             \
    }                                                                                                  \
  }
PRUNUS_MERGE(merge)
PRUNUS_MERGE(merge_every_other)

// How many of `n` window positions from `first` on, `step` apart, lie in [low, high).
INLINE int64_t inside(int64_t first, int64_t n, int64_t step, int64_t low, int64_t high) {
  int64_t count = 0;
  for (int64_t k = 0; k < n; k++) count += first + k * step >= low && first + k * step < high;
  return count;
}

// Rows of the window are merged first, into a line with its padding. `behind`: elements from `x` on that are there to read.
static void pool_rows(const int64_t *r, const float *x, float *line, int64_t length, int64_t oy, int64_t behind) {
  const int64_t w = r[POOL_W], left = r[POOL_LEFT], h = r[POOL_H], dh = r[POOL_DH], pitch = r[POOL_X_PITCH];
  const int64_t first = oy * r[POOL_SH] - r[POOL_TOP], average = r[POOL_AVERAGE];
  const int64_t from = first < 0 ? ceil_div(-first, dh) : 0, taps = least(r[POOL_KH], ceil_div(h - first, dh)) - from;
  const int64_t empty = average ? 0 : INT64_C(0xff800000); /* -infinity */
  fill_words(line, taps > 0 ? left : length, empty);
  if (taps <= 0) return;
  const int64_t start = (first + from * dh) * pitch, whole = up_to_vectors(w);
  const int64_t n = start + (taps - 1) * dh * pitch + whole <= behind ? whole : w;  // no lone elements, if they are there
  merge(line + left, x + start, n, taps, dh * pitch, (int)average);
  fill_words(line + left + w, length - left - w, empty);
}

// Then its columns.
static void pool_columns(const int64_t *r, float *line, float *out, int64_t oy) {
  const int64_t ow = r[POOL_OW], kw = r[POOL_KW], sw = r[POOL_SW], dw = r[POOL_DW], left = r[POOL_LEFT];
  const int average = r[POOL_AVERAGE] != 0;
  if (sw == 2 && ow >= VL) {
    merge_every_other(out, line, ow, kw, dw, average);
  } else if (sw == 2) {
    float some[VL];
    merge_every_other(some, line, VL, kw, dw, average);
    store_some(out, load(some), ow);
  } else {
    merge(line, line, up_to_vectors((ow - 1) * sw + 1), kw, dw, average);
    for (int64_t i = 0; i < ow; i++) out[i] = line[i * sw];
  }
  if (!average) return;
  const int64_t include = r[POOL_INCLUDE_PAD], bottom = include ? r[POOL_BOTTOM] : 0;
  const int64_t top = include ? r[POOL_TOP] : 0, first = oy * r[POOL_SH] - r[POOL_TOP];
  const int64_t rows = inside(first, r[POOL_KH], r[POOL_DH], -top, r[POOL_H] + bottom);
  const int64_t low = include ? -left : 0, high = r[POOL_W] + (include ? r[POOL_RIGHT] : 0);
  for (int64_t ox = 0; ox < ow; ox++) out[ox] /= (float)(rows * inside(ox * sw - left, kw, dw, low, high));
}

// Two lines in turn: what has just been stored can't be loaded at once at other bounds. A vector may reach past a line.
static void pool_plane(const int64_t *r, const float *x, float *out, float *lines, int64_t behind) {
  const int64_t reach = (r[POOL_OW] - 1) * r[POOL_SW] + (r[POOL_KW] - 1) * r[POOL_DW] + 1;
  const int64_t length = most(r[POOL_LEFT] + r[POOL_W], reach), next = length + VL, oh = r[POOL_OH];
  if (oh > 0) pool_rows(r, x, lines, length, 0, behind);
  for (int64_t oy = 0; oy < oh; oy++, out += r[POOL_OUT_PITCH]) {
    if (oy + 1 < oh) pool_rows(r, x, lines + (oy + 1) % 2 * next, length, oy + 1, behind);
    pool_columns(r, lines + oy % 2 * next, out, oy);
  }
}

// Are they the largest of 2x2 pixels each, all of them there?
static int halves(const int64_t *r) {
  return !r[POOL_AVERAGE] && r[POOL_KH] == 2 && r[POOL_KW] == 2 && r[POOL_SH] == 2 && r[POOL_SW] == 2 && !r[POOL_TOP] &&
         !r[POOL_LEFT] && r[POOL_DH] == 1 && r[POOL_DW] == 1 && 2 * r[POOL_OH] <= r[POOL_H] && 2 * r[POOL_OW] <= r[POOL_W];
}

static void halve_plane(const int64_t *r, const float *x, float *out, int64_t behind) {
  const int64_t pitch = r[POOL_X_PITCH], ow = r[POOL_OW];
  for (int64_t oy = 0; oy < r[POOL_OH]; oy++, x += 2 * pitch, behind -= 2 * pitch, out += r[POOL_OUT_PITCH]) {
    for (int64_t i = 0; i < ow; i += VL) {
      const float *a = x + 2 * i, *b = a + pitch;
      const int64_t n = least(ow - i, VL), reach = 2 * n > VL ? 2 * VL : VL;
      if (2 * i + pitch + reach > behind) {
        for (int64_t j = 0; j < n; j++)
          out[i + j] = greater(greater(a[2 * j], b[2 * j]), greater(a[2 * j + 1], b[2 * j + 1]));
        continue;
      }
      const vf left = greater_of(load(a), load(b)), right = reach > VL ? greater_of(load(a + VL), load(b + VL)) : left;
      store_some(out + i, greater_of(SHUFFLE(left, right, EVEN_LANES), SHUFFLE(left, right, ODD_LANES)), n);
    }
  }
}

static void pool_task(void *context, int64_t task, int thread) {
  const prunus_run_state *s = context;
  const int64_t *r = s->record, image = task / r[POOL_PLANES], plane = task % r[POOL_PLANES];
  const float *x = at(s, r[POOL_X]) + image * r[POOL_X_BATCH] + plane * r[POOL_X_PLANE];
  float *out = at(s, r[POOL_OUT]) + image * r[POOL_OUT_BATCH] + plane * r[POOL_OUT_PLANE];
  const int64_t own = (r[POOL_H] - 1) * r[POOL_X_PITCH] + r[POOL_W];
  const int64_t behind = (r[POOL_PLANES] - 1 - plane) * r[POOL_X_PLANE] + own;
  if (halves(r)) {
    halve_plane(r, x, out, behind);
  } else {
    pool_plane(r, x, out, s->scratch + thread * s->scratch_elements, behind);
  }
}

enum { POOLED_AT_ONCE = 16 };  // planes of a task

// Of a plane of h x w; `behind`: elements from `x` on that are there to read.
INLINE float mean_of(const float *x, int64_t h, int64_t w, int64_t pitch, int64_t behind) {
  const int64_t whole = w / VL * VL;
  vf sums = {0};
  for (int64_t y = 0; y < h; y++, x += pitch, behind -= pitch) {
    for (int64_t i = 0; i < whole; i += VL) sums += load(x + i);
    if (whole < w) sums += load_some(x + whole, w - whole, whole + VL <= behind);
  }
  return sum_of(sums) / (float)(h * w);
}

static void global_pool_task(void *context, int64_t task, int thread) {
  (void)thread;
  const prunus_run_state *s = context;
  const int64_t *r = s->record, planes = r[GLOBAL_POOL_PLANES], blocks = ceil_div(planes, POOLED_AT_ONCE);
  const int64_t image = task / blocks, first = task % blocks * POOLED_AT_ONCE;
  const int64_t last = least(first + POOLED_AT_ONCE, planes);
  const float *x = at(s, r[GLOBAL_POOL_X]) + image * r[GLOBAL_POOL_X_BATCH] + first * r[GLOBAL_POOL_X_PLANE];
  const int64_t pitch = r[GLOBAL_POOL_X_PITCH], lie_together = pitch == r[GLOBAL_POOL_W];
  const int64_t h = lie_together ? 1 : r[GLOBAL_POOL_H], w = lie_together ? r[GLOBAL_POOL_H] * pitch : r[GLOBAL_POOL_W];
  float *out = at(s, r[GLOBAL_POOL_OUT]) + image * r[GLOBAL_POOL_OUT_BATCH] + first * r[GLOBAL_POOL_OUT_PLANE];
  for (int64_t plane = first; plane < last; plane++, x += r[GLOBAL_POOL_X_PLANE], out += r[GLOBAL_POOL_OUT_PLANE]) {
    if (r[GLOBAL_POOL_AVERAGE]) {
      *out = mean_of(x, h, w, pitch, (planes - 1 - plane) * r[GLOBAL_POOL_X_PLANE] + h * pitch - pitch + w);
      continue;
    }
    float top = x[0];
    for (int64_t y = 0; y < h; y++)
      for (int64_t i = 0; i < w; i++) top = greater(x[y * pitch + i], top);
    *out = top;
  }
}

static int64_t global_pool_tasks(const int64_t *r) {
  return r[GLOBAL_POOL_IMAGES] * ceil_div(r[GLOBAL_POOL_PLANES], POOLED_AT_ONCE);
}

static void resample_task(void *context, int64_t task, int thread) {
  (void)thread;
  const prunus_run_state *s = context;
  const int64_t *r = s->record, image = task / r[RESAMPLE_PLANES], plane = task % r[RESAMPLE_PLANES];
  const float *x = at(s, r[RESAMPLE_X]) + image * r[RESAMPLE_X_BATCH] + plane * r[RESAMPLE_X_PLANE];
  float *out = at(s, r[RESAMPLE_OUT]) + image * r[RESAMPLE_OUT_BATCH] + plane * r[RESAMPLE_OUT_PLANE];
  const int32_t *y0 = (const int32_t *)at(s, r[RESAMPLE_Y0]), *y1 = (const int32_t *)at(s, r[RESAMPLE_Y1]);
  const int32_t *x0 = (const int32_t *)at(s, r[RESAMPLE_X0]), *x1 = (const int32_t *)at(s, r[RESAMPLE_X1]);
  const float *wy = at(s, r[RESAMPLE_WY]), *wx = at(s, r[RESAMPLE_WX]);
  for (int64_t y = 0; y < r[RESAMPLE_OH]; y++, out += r[RESAMPLE_OUT_PITCH]) {
    const float *a = x + y0[y], *b = x + y1[y];
    if (!r[RESAMPLE_BLEND]) {
      for (int64_t i = 0; i < r[RESAMPLE_OW]; i++) out[i] = a[x0[i]];
      continue;
    }
    for (int64_t i = 0; i < r[RESAMPLE_OW]; i++) {
      const float top = a[x0[i]] * (1.0f - wx[i]) + a[x1[i]] * wx[i];
      const float low = b[x0[i]] * (1.0f - wx[i]) + b[x1[i]] * wx[i];
      out[i] = top * (1.0f - wy[y]) + low * wy[y];
    }
  }
}
#endif
