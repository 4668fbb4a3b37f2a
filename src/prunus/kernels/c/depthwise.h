// Record "depthwise": one filter per channel, square, at stride 1 or 2, straight from planes with zero margins. Along a
// row stride 2 takes every other result of stride 1: sums of both are as cheap as taking the input apart.
#ifndef PRUNUS_DEPTHWISE_H
#define PRUNUS_DEPTHWISE_H
#include "packed.h"
#include "run.h"

typedef struct {
  const float *x, *weights;  // the first tap of output pixel (0, 0); the filter, row by row
  float *out;
  const float *residual;  // lies as `out` does, or NULL
  int64_t x_pitch, pitch, residual_pitch, h, w;  // h rows of w pixels of output
  float bias, p0, p1;
  int32_t activation;
} prunus_plane;

typedef void prunus_depthwise_kernel(const prunus_plane *p);

INLINE vf depthwise_epilogue(const prunus_plane *p, vf a, const float *residual) {
  if (residual) a += load(residual);
  if (p->activation == ACT_NONE) return a;
  if (p->activation == ACT_RELU) return max_of(a, (vf){0});
  if (p->activation == ACT_CLIP) return min_of(max_of(a, splat(p->p0)), splat(p->p1));
  return activate(p->activation, a, p->p0, p->p1);
}

INLINE vf even_lanes(vf a, vf b) { return (vf)even_words((vi)a, (vi)b); }

// ROWS rows of one vector of output at once, so that an input row that several of them need is read once. A row's last
// vector starts early enough to end with it; a row shorter than a vector is written lane by lane. Then the gap behind it
// is zeroed.
#define PRUNUS_DEPTHWISE(K, S, ROWS, NAME)                                                             \
  INLINE void NAME##_at(const prunus_plane *p, const vf *w, int64_t y, int64_t x, int rows) {          \
    const float *in = p->x + y * S * p->x_pitch + x * S;                                               \
    vf sum[ROWS][S];                                                                                   \
    UNROLL for (int r = 0; r < rows; r++) UNROLL for (int s = 0; s < S; s++) sum[r][s] = splat(p->bias); \
    UNROLL for (int i = 0; i < (rows - 1) * S + K; i++, in += p->x_pitch)                              \
      UNROLL for (int j = 0; j < K; j++)                                                               \
        UNROLL for (int s = 0; s < S; s++) {                                                           \
          const vf a = load(in + j + s * VL);                                                          \
          UNROLL for (int r = 0; r < rows; r++)                                                        \
            if (i >= r * S && i < r * S + K) sum[r][s] += a * w[(i - r * S) * K + j];                  \
        }                                                                                              \
    UNROLL for (int r = 0; r < rows; r++) {                                                            \
      vf a = S == 1 ? sum[r][0] : even_lanes(sum[r][0], sum[r][S - 1]);                                \
      const float *z = p->residual ? p->residual + (y + r) * p->residual_pitch + x : NULL;             \
      a = depthwise_epilogue(p, a, z);                                                                 \
      float *out = p->out + (y + r) * p->pitch + x;                                                    \
      if (p->w >= VL) {                                                                                \
        store(out, a);                                                                                 \
      } else {                                                                                         \
        for (int64_t i = 0; i < p->w; i++) out[i] = a[i];                                              \
      }                                                                                                \
    }                                                                                                  \
  }                                                                                                    \
  static void NAME(const prunus_plane *plane) {                                                        \
    const prunus_plane own = *plane, *p = &own; /* nothing that is stored changes it */                \
    vf w[K * K];                                                                                       \
    UNROLL for (int i = 0; i < K * K; i++) w[i] = splat(p->weights[i]);                                \
    const int64_t last = most(p->w - VL, 0);                                                           \
    for (int64_t y = 0; y < p->h; y += ROWS) {                                                         \
      const int64_t rows = least(ROWS, p->h - y);                                                      \
      if (rows == ROWS) {                                                                              \
        for (int64_t x = 0; x < last; x += VL) NAME##_at(p, w, y, x, ROWS);                            \
        NAME##_at(p, w, y, last, ROWS);                                                                \
      } else {                                                                                         \
        for (int64_t i = y; i < p->h; i++) {                                                           \
          for (int64_t x = 0; x < last; x += VL) NAME##_at(p, w, i, x, 1);                             \
          NAME##_at(p, w, i, last, 1);                                                                 \
        }                                                                                              \
      }                                                                                                \
      for (int64_t i = y; i < y + rows && i < p->h - 1; i++)                                           \
        for (int64_t x = p->w; x < p->pitch; x++) p->out[i * p->pitch + x] = 0;                        \
    }                                                                                                  \
  }
PRUNUS_DEPTHWISE(3, 1, 4, prunus_f32_depthwise_3s1)
PRUNUS_DEPTHWISE(3, 2, 1, prunus_f32_depthwise_3s2)
PRUNUS_DEPTHWISE(5, 1, 3, prunus_f32_depthwise_5s1)
PRUNUS_DEPTHWISE(5, 2, 1, prunus_f32_depthwise_5s2)

static prunus_depthwise_kernel *const prunus_depthwise_kernels[6][3] = {
    [3] = {[1] = prunus_f32_depthwise_3s1, [2] = prunus_f32_depthwise_3s2},
    [5] = {[1] = prunus_f32_depthwise_5s1, [2] = prunus_f32_depthwise_5s2},
};

static void depthwise_task(void *context, int64_t task, int thread) {
  (void)thread;
  const prunus_run_state *s = context;
  const int64_t *r = s->record, image = task / r[DEPTHWISE_PLANES], channel = task % r[DEPTHWISE_PLANES];
  const int64_t kernel = r[DEPTHWISE_KERNEL];
  const float *bias = at(s, r[DEPTHWISE_BIAS]), *slope = at(s, r[DEPTHWISE_SLOPE]), *z = at(s, r[DEPTHWISE_RESIDUAL]);
  prunus_depthwise_kernels[kernel][r[DEPTHWISE_STRIDE]](&(prunus_plane){
      .x = at(s, r[DEPTHWISE_X]) + image * r[DEPTHWISE_X_BATCH] + channel * r[DEPTHWISE_X_PLANE] - r[DEPTHWISE_BEFORE],
      .weights = at(s, r[DEPTHWISE_WEIGHTS]) + channel * kernel * kernel,
      .out = at(s, r[DEPTHWISE_OUT]) + image * r[DEPTHWISE_OUT_BATCH] + channel * r[DEPTHWISE_PLANE],
      .residual = z ? z + image * r[DEPTHWISE_RESIDUAL_BATCH] + channel * r[DEPTHWISE_RESIDUAL_PLANE] : NULL,
      .x_pitch = r[DEPTHWISE_X_PITCH], .pitch = r[DEPTHWISE_PITCH], .residual_pitch = r[DEPTHWISE_RESIDUAL_PITCH],
      .h = r[DEPTHWISE_OH], .w = r[DEPTHWISE_OW], .bias = bias ? bias[channel] : 0.0f,
      .activation = (int32_t)r[DEPTHWISE_ACTIVATION],
      .p0 = slope ? slope[channel] : from_bits(r[DEPTHWISE_P0]), .p1 = from_bits(r[DEPTHWISE_P1])});
}
#endif
