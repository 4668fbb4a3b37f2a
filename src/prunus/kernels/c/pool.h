// Records "pool", "global_pool" and "resample": windows over planes. A task is one plane of one image.
#ifndef PRUNUS_POOL_H
#define PRUNUS_POOL_H
#include "run.h"

INLINE float greater(float a, float b) { return a > b || a != a ? a : b; }

// Rows of the window are merged first (vectorised along the row), then columns.
static void pool_plane(const int64_t *r, const float *x, float *out, float *line) {
  const int64_t w = r[POOL_W], average = r[POOL_AVERAGE], kw = r[POOL_KW], sw = r[POOL_SW], dw = r[POOL_DW];
  const float empty = average ? 0.0f : -__builtin_inff();
  for (int64_t oy = 0; oy < r[POOL_OH]; oy++) {
    int64_t rows = 0;
    for (int64_t i = 0; i < w; i++) line[i] = empty;
    for (int64_t ky = 0; ky < r[POOL_KH]; ky++) {
      const int64_t y = oy * r[POOL_SH] + ky * r[POOL_DH] - r[POOL_TOP];
      if (r[POOL_INCLUDE_PAD] ? y >= -r[POOL_TOP] && y < r[POOL_H] + r[POOL_BOTTOM] : y >= 0 && y < r[POOL_H]) rows++;
      if (y < 0 || y >= r[POOL_H]) continue;
      const float *in = x + y * r[POOL_X_PITCH];
      if (average) {
        for (int64_t i = 0; i < w; i++) line[i] += in[i];
      } else {
        for (int64_t i = 0; i < w; i++) line[i] = in[i] > line[i] || in[i] != in[i] ? in[i] : line[i];
      }
    }
    for (int64_t ox = 0; ox < r[POOL_OW]; ox++) {
      const int64_t first = ox * sw - r[POOL_LEFT];
      float a = empty;
      int64_t columns = 0;
      if (!average && first >= 0 && first + (kw - 1) * dw < w) {
        for (int64_t kx = 0; kx < kw; kx++) a = greater(line[first + kx * dw], a);
      } else {
        for (int64_t kx = 0; kx < kw; kx++) {
          const int64_t i = first + kx * dw;
          if (r[POOL_INCLUDE_PAD] ? i >= -r[POOL_LEFT] && i < w + r[POOL_RIGHT] : i >= 0 && i < w) columns++;
          if (i < 0 || i >= w) continue;
          a = average ? a + line[i] : greater(line[i], a);
        }
      }
      out[oy * r[POOL_OUT_PITCH] + ox] = average ? a / (float)(rows * columns) : a;
    }
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
