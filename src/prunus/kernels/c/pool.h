// Records "pool", "global_pool" and "resample": windows over planes. A task is one plane of one image.
#ifndef PRUNUS_POOL_H
#define PRUNUS_POOL_H
#include "run.h"

INLINE float greater(float a, float b) { return a > b || a != a ? a : b; }
INLINE vf greater_of(vf a, vf b) { return choose((a < b) | (b != b), b, a); }

// out[i] = the largest, or the sum, of x[i + k * step], k < taps; x may be out.
INLINE void merge(float *out, const float *x, int64_t n, int64_t taps, int64_t step, int average) {
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

// How many of `n` window positions from `first` on, `step` apart, lie in [low, high).
INLINE int64_t inside(int64_t first, int64_t n, int64_t step, int64_t low, int64_t high) {
  int64_t count = 0;
  for (int64_t k = 0; k < n; k++) count += first + k * step >= low && first + k * step < high;
  return count;
}

// Rows of the window are merged first into a line with its padding, then columns.
static void pool_plane(const int64_t *r, const float *x, float *out, float *line) {
  const int64_t w = r[POOL_W], ow = r[POOL_OW], kw = r[POOL_KW], sw = r[POOL_SW], dw = r[POOL_DW], left = r[POOL_LEFT];
  const int64_t h = r[POOL_H], top = r[POOL_TOP], bottom = r[POOL_INCLUDE_PAD] ? r[POOL_BOTTOM] : 0;
  const int64_t pitch = r[POOL_X_PITCH], sh = r[POOL_SH], dh = r[POOL_DH], kh = r[POOL_KH];
  const int average = r[POOL_AVERAGE] != 0;
  const float empty = average ? 0.0f : -__builtin_inff();
  const int64_t length = most(left + w, (ow - 1) * sw + (kw - 1) * dw + 1);
  for (int64_t oy = 0; oy < r[POOL_OH]; oy++, out += r[POOL_OUT_PITCH]) {
    const int64_t first = oy * sh - top;
    const int64_t from = first < 0 ? ceil_div(-first, dh) : 0, taps = least(kh, ceil_div(h - first, dh)) - from;
    for (int64_t i = 0; i < length; i++) line[i] = empty;
    if (taps > 0) merge(line + left, x + (first + from * dh) * pitch, w, taps, dh * pitch, average);
    merge(line, line, (ow - 1) * sw + 1, kw, dw, average);
    if (sw == 2) {
      for (int64_t i = 0; i < ow; i++) out[i] = line[2 * i];
    } else {
      for (int64_t i = 0; i < ow; i++) out[i] = line[i * sw];
    }
    if (!average) continue;
    const int64_t rows = inside(first, kh, dh, r[POOL_INCLUDE_PAD] ? -top : 0, h + bottom);
    const int64_t low = r[POOL_INCLUDE_PAD] ? -left : 0, high = w + (r[POOL_INCLUDE_PAD] ? r[POOL_RIGHT] : 0);
    for (int64_t ox = 0; ox < ow; ox++) out[ox] /= (float)(rows * inside(ox * sw - left, kw, dw, low, high));
  }
}

static void pool_task(void *context, int64_t task, int thread) {
  const prunus_run_state *s = context;
  const int64_t *r = s->record, image = task / r[POOL_PLANES], plane = task % r[POOL_PLANES];
  pool_plane(r, at(s, r[POOL_X]) + image * r[POOL_X_BATCH] + plane * r[POOL_X_PLANE],
             at(s, r[POOL_OUT]) + image * r[POOL_OUT_BATCH] + plane * r[POOL_OUT_PLANE],
             s->scratch + thread * s->scratch_elements);
}

static void global_pool_task(void *context, int64_t task, int thread) {
  (void)thread;
  const prunus_run_state *s = context;
  const int64_t *r = s->record, image = task / r[GLOBAL_POOL_PLANES], plane = task % r[GLOBAL_POOL_PLANES];
  const float *x = at(s, r[GLOBAL_POOL_X]) + image * r[GLOBAL_POOL_X_BATCH] + plane * r[GLOBAL_POOL_X_PLANE];
  const int64_t h = r[GLOBAL_POOL_H], w = r[GLOBAL_POOL_W], pitch = r[GLOBAL_POOL_X_PITCH];
  double sum = 0;
  float top = x[0];
  for (int64_t y = 0; y < h; y++, x += pitch) {
    float part[8] = {0};
    int64_t i = 0;
    if (r[GLOBAL_POOL_AVERAGE]) {
      for (; i + 8 <= w; i += 8)
        for (int k = 0; k < 8; k++) part[k] += x[i + k];
      for (; i < w; i++) part[0] += x[i];
      sum += (double)(((part[0] + part[1]) + (part[2] + part[3])) + ((part[4] + part[5]) + (part[6] + part[7])));
    } else {
      for (; i < w; i++) top = greater(x[i], top);
    }
  }
  at(s, r[GLOBAL_POOL_OUT])[image * r[GLOBAL_POOL_OUT_BATCH] + plane * r[GLOBAL_POOL_OUT_PLANE]] =
      r[GLOBAL_POOL_AVERAGE] ? (float)(sum / (double)(h * w)) : top;
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
