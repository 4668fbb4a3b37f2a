// Record "depthwise": one filter per channel, straight over padded planes. A block of output rows and vectors is summed
// in registers: each vector of pixels is loaded once and used in every row whose window it is in, and the filter's
// weights stay in registers or the nearest cache. At stride 2, even and odd pixels are told apart by shuffles within
// 16 bytes; the sums are put in order once, at the end.
#ifndef PRUNUS_DEPTHWISE_H
#define PRUNUS_DEPTHWISE_H
#include "group.h"
#include "run.h"

typedef struct {
  int64_t x_pitch, pitch, residual_pitch, h, w;  // h, w: of the output
  int64_t room;                                  // elements of an output plane from pixel 0 on
  vi real;                                       // all ones in lanes below w
  float bias, low, high;                         // sums are clipped
} prunus_window;

#if VL == 4
#define EVEN_WITHIN 0, 2, 4, 6
#define ODD_WITHIN 1, 3, 5, 7
#define ORDERED 0, 1, 2, 3
#elif VL == 8
#define EVEN_WITHIN 0, 2, 8, 10, 4, 6, 12, 14
#define ODD_WITHIN 1, 3, 9, 11, 5, 7, 13, 15
#define ORDERED 0, 1, 4, 5, 2, 3, 6, 7
#else
#define EVEN_WITHIN 0, 2, 16, 18, 4, 6, 20, 22, 8, 10, 24, 26, 12, 14, 28, 30
#define ODD_WITHIN 1, 3, 17, 19, 5, 7, 21, 23, 9, 11, 25, 27, 13, 15, 29, 31
#define ORDERED 0, 1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15
#endif

// Lanes from w on, where rows are shorter than a vector, become zeros; they may lie over the row below, which is written
// later.
INLINE void store_narrow(const prunus_window *t, float *out, vf a, int64_t at) {
  if (at + VL <= t->room) {
    store(out, (vf)((vi)a & t->real));
  } else {
    for (int i = 0; i < t->w; i++) out[i] = a[i];
  }
}

// R rows x V vectors of output, `step` elements from one vector to the next; x at the window of the first. Input rows go
// by one after the other; the order is kept, or the compiler sums up one output row after another. 25 taps are summed in
// two halves: one after the other they would wait for each other's additions.
#define PRUNUS_WINDOW(KH, KW, S, R, V, NAME)                                                                     \
  INLINE void NAME(const prunus_window *t, const vf *w, const float *x, float *out, const float *residual, int64_t at, \
                   int64_t step) {                                                                               \
    const int64_t x_pitch = t->x_pitch, pitch = t->pitch;                                                        \
    vf acc[R][V], odd[R][V];                                                                                     \
    UNROLL for (int r = 0; r < R; r++) UNROLL for (int v = 0; v < V; v++) acc[r][v] = splat(t->bias), odd[r][v] = (vf){0}; \
    UNROLL for (int i = 0; i < S * (R - 1) + KH; i++) {                                                          \
      const float *p = x + i * x_pitch;                                                                          \
      UNROLL for (int k = 0; k < KW; k += S) {                                                                   \
        vf in[V][2];                                                                                             \
        UNROLL for (int v = 0; v < V; v++) {                                                                     \
          in[v][0] = load(p + v * S * step + k);                                                                 \
          if (S == 2) {                                                                                          \
            const vf low = in[v][0], high = load(p + v * S * step + k + VL);                                     \
            in[v][0] = SHUFFLE(low, high, EVEN_WITHIN);                                                          \
            if (k + 1 < KW) in[v][1] = SHUFFLE(low, high, ODD_WITHIN);                                           \
          }                                                                                                      \
        }                                                                                                        \
        UNROLL for (int r = 0; r < R; r++) {                                                                     \
          const int ky = i - S * r;                                                                              \
          if (ky < 0 || ky >= KH) continue;                                                                      \
          UNROLL for (int j = 0; j < S && k + j < KW; j++) {                                                     \
            const int tap = ky * KW + k + j;                                                                     \
            UNROLL for (int v = 0; v < V; v++) {                                                                 \
              if (KH * KW > 9 && tap % 2) {                                                                      \
                odd[r][v] += w[tap] * in[v][j];                                                                  \
              } else {                                                                                           \
                acc[r][v] += w[tap] * in[v][j];                                                                  \
              }                                                                                                  \
            }                                                                                                    \
          }                                                                                                      \
          AFTER(acc[r][V - 1]);                                                                                  \
          if (KH * KW > 9) AFTER(odd[r][V - 1]);                                                                 \
        }                                                                                                        \
      }                                                                                                          \
      UNROLL for (int r = 0; r < R; r++)                                                                         \
        if (KH * KW > 9 && i == S * r + KH - 1) UNROLL for (int v = 0; v < V; v++) acc[r][v] += odd[r][v];       \
    }                                                                                                            \
    if (S == 2) UNROLL for (int r = 0; r < R; r++) UNROLL for (int v = 0; v < V; v++)                            \
      acc[r][v] = SHUFFLE(acc[r][v], acc[r][v], ORDERED);                                                        \
    if (residual) UNROLL for (int r = 0; r < R; r++) UNROLL for (int v = 0; v < V; v++)                          \
      acc[r][v] += load(residual + r * t->residual_pitch + v * step);                                            \
    UNROLL for (int r = 0; r < R; r++) UNROLL for (int v = 0; v < V; v++)                                        \
      acc[r][v] = min_of(max_of(acc[r][v], splat(t->low)), splat(t->high));                                      \
    if (t->w >= VL) {                                                                                            \
      UNROLL for (int r = 0; r < R; r++) UNROLL for (int v = 0; v < V; v++) store(out + r * pitch + v * step, acc[r][v]); \
    } else {                                                                                                     \
      UNROLL for (int r = 0; r < R; r++) store_narrow(t, out + r * pitch, acc[r][0], at + r * pitch);            \
    }                                                                                                            \
  }

// R rows from row y on, and zeros in the padding behind all but the plane's last. The last vector of a row ends with
// it and may overlap the one before.
#define PRUNUS_WINDOW_ROWS(S, R, V, NAME)                                                                        \
  INLINE void NAME##_rows_##R(const prunus_window *t, const vf *w, const float *x, float *out, \
                              const float *residual, int64_t y) {                                                \
    x += S * y * t->x_pitch, out += y * t->pitch;                                                                \
    if (residual) residual += y * t->residual_pitch;                                                             \
    const int64_t last = most(t->w - VL, 0), at = y * t->pitch;                                                  \
    int64_t c = 0;                                                                                               \
    if (V == 2) {                                                                                                \
      for (; c < last; c += 2 * VL) {                                                                            \
        const int64_t step = least(VL, last - c);                                                                \
        NAME##_##R##x2(t, w, x + S * c, out + c, residual ? residual + c : NULL, at, step);            \
      }                                                                                                          \
      c = c - VL < last ? last : last + 1;                                                                       \
    }                                                                                                            \
    for (; c <= last; c = c < last ? least(c + VL, last) : last + 1)                                             \
      NAME##_##R##x1(t, w, x + S * c, out + c, residual ? residual + c : NULL, at, VL);                \
    for (int64_t r = 0; r < R && y + r < t->h - 1; r++) {                                                        \
      const int cleared = t->w < VL && (y + r) * t->pitch + VL <= t->room; /* by store_narrow */                 \
      for (int64_t i = cleared ? VL : t->w; i < t->pitch; i++) {                                                 \
        out[r * t->pitch + i] = 0;                                                                               \
        KEEP_ORDER(); /* a call of memset would cost more, and the registers */                                  \
      }                                                                                                          \
    }                                                                                                            \
  }

// A plane. Blocks of 4 rows, the last of which may overlap the one before, then of 2 and 1.
#define PRUNUS_DEPTHWISE(KH, KW, S, V, NAME)                                                                     \
  PRUNUS_WINDOW(KH, KW, S, 4, 1, NAME##_4x1)                                                                     \
  PRUNUS_WINDOW(KH, KW, S, 2, 1, NAME##_2x1)                                                                     \
  PRUNUS_WINDOW(KH, KW, S, 1, 1, NAME##_1x1)                                                                     \
  PRUNUS_WINDOW(KH, KW, S, 4, V, NAME##_4x2)                                                                     \
  PRUNUS_WINDOW(KH, KW, S, 2, V, NAME##_2x2)                                                                     \
  PRUNUS_WINDOW(KH, KW, S, 1, V, NAME##_1x2)                                                                     \
  PRUNUS_WINDOW_ROWS(S, 4, V, NAME)                                                                              \
  PRUNUS_WINDOW_ROWS(S, 2, V, NAME)                                                                              \
  PRUNUS_WINDOW_ROWS(S, 1, V, NAME)                                                                              \
  static void NAME(const prunus_window *t, const float *weights, const float *x, float *out, \
                   const float *residual) {                                                                      \
    vf w[KH * KW];                                                                                               \
    UNROLL for (int i = 0; i < KH * KW; i++) w[i] = splat(weights[i]);                                           \
    int64_t y = 0;                                                                                               \
    for (; t->h - y >= 4 || (t->h - y == 3 && y > 0); y = least(y + 4, t->h))                                    \
      NAME##_rows_4(t, w, x, out, residual, least(y, t->h - 4));                                \
    for (; t->h - y >= 2; y += 2) NAME##_rows_2(t, w, x, out, residual, y);                     \
    for (; t->h - y >= 1; y += 1) NAME##_rows_1(t, w, x, out, residual, y);                     \
  }

PRUNUS_DEPTHWISE(3, 3, 1, 1, prunus_f32_depthwise_3x3_1)
PRUNUS_DEPTHWISE(3, 3, 2, 1, prunus_f32_depthwise_3x3_2)
PRUNUS_DEPTHWISE(5, 5, 1, 2, prunus_f32_depthwise_5x5_1)
PRUNUS_DEPTHWISE(5, 5, 2, 1, prunus_f32_depthwise_5x5_2)

typedef void prunus_depthwise_kernel(const prunus_window *t, const float *weights, const float *x,
                                     float *out, const float *residual);
// by kernel size and stride
static prunus_depthwise_kernel *const prunus_depthwise_kernels[6][3] = {
    [3] = {[1] = prunus_f32_depthwise_3x3_1, [2] = prunus_f32_depthwise_3x3_2},
    [5] = {[1] = prunus_f32_depthwise_5x5_1, [2] = prunus_f32_depthwise_5x5_2},
};

// Activations that aren't clipping, while the plane is in cache.
static void activate_plane(const prunus_window *t, float *out, int32_t activation, float p0, float p1) {
  for (int64_t y = 0; y < t->h; y++, out += t->pitch) {
    int64_t c = 0;
    for (; c + VL <= t->w; c += VL) store(out + c, activate(activation, load(out + c), p0, p1));
    if (c == t->w) continue;
    vf rest = {0};
    memcpy(&rest, out + c, (size_t)(t->w - c) * 4);
    rest = activate(activation, rest, p0, p1);
    memcpy(out + c, &rest, (size_t)(t->w - c) * 4);
  }
}

static int64_t depthwise_tasks(const int64_t *r) {
  return r[DEPTHWISE_IMAGES] * ceil_div(r[DEPTHWISE_PLANES], r[DEPTHWISE_PLANES_PER_TASK]);
}

static void depthwise_task(void *context, int64_t task, int thread) {
  (void)thread;
  const prunus_run_state *s = context;
  const int64_t *r = s->record, planes = r[DEPTHWISE_PLANES], per_task = r[DEPTHWISE_PLANES_PER_TASK];
  const int64_t per_image = ceil_div(planes, per_task), image = task / per_image, first = task % per_image * per_task;
  const int64_t kernel = r[DEPTHWISE_KERNEL], per_input = r[DEPTHWISE_PER_INPUT];
  prunus_depthwise_kernel *const run = prunus_depthwise_kernels[kernel][r[DEPTHWISE_STRIDE]];
  prunus_window t = {
      .x_pitch = r[DEPTHWISE_X_PITCH], .pitch = r[DEPTHWISE_PITCH], .residual_pitch = r[DEPTHWISE_RESIDUAL_PITCH],
      .h = r[DEPTHWISE_H], .w = r[DEPTHWISE_W], .room = r[DEPTHWISE_ROOM],
      .low = -__builtin_inff(), .high = __builtin_inff(),
  };
  const int32_t activation = (int32_t)r[DEPTHWISE_ACTIVATION];
  const float p0 = from_bits(r[DEPTHWISE_P0]), p1 = from_bits(r[DEPTHWISE_P1]);
  if (activation == ACT_RELU) t.low = 0;
  if (activation == ACT_CLIP) t.low = p0, t.high = p1;
  for (int i = 0; i < VL; i++) t.real[i] = i < t.w ? -1 : 0;
  const float *weights = at(s, r[DEPTHWISE_WEIGHTS]), *bias = at(s, r[DEPTHWISE_BIAS]), *slope = at(s, r[DEPTHWISE_SLOPE]);
  const float *x = at(s, r[DEPTHWISE_X]) + image * r[DEPTHWISE_X_BATCH];
  float *out = at(s, r[DEPTHWISE_OUT]) + image * r[DEPTHWISE_OUT_BATCH];
  const float *residual = at(s, r[DEPTHWISE_RESIDUAL]);
  if (residual) residual += image * r[DEPTHWISE_RESIDUAL_BATCH];
  for (int64_t c = first, end = least(first + per_task, planes); c < end; c++) {
    float *y = out + c * r[DEPTHWISE_PLANE];
    t.bias = bias ? bias[c] : 0.0f;
    run(&t, weights + c * kernel * kernel, x + c / per_input * r[DEPTHWISE_X_PLANE], y,
        residual ? residual + c * r[DEPTHWISE_RESIDUAL_PLANE] : NULL);
    if (activation && activation != ACT_RELU && activation != ACT_CLIP)
      activate_plane(&t, y, activation, slope ? slope[c] : p0, p1);
  }
}
#endif
