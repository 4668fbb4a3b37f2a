// The micro-kernel over packed channels: group.h's loop with words for pixels and weights, so that a column is a pair or
// quad of channels; see words.h. Groups are FINAL and own whole pairs or quads of rows, which the epilogue packs again:
// real = sum * scale[row] + bias[row], + residual, activation; for quads then clipped in steps of the output.
#ifndef PRUNUS_PACKED_H
#define PRUNUS_PACKED_H
#include "group.h"
#include "words.h"

enum { PAIRS = 2, QUADS = 4 };

INLINE vf apply_activation(const prunus_tile *t, int32_t row, vf a) {
  const float p0 = t->slope ? t->slope[row] : t->p0;
  if (t->activation == ACT_RELU) return max_of(a, (vf){0});
  if (t->activation == ACT_CLIP) return min_of(max_of(a, splat(p0)), splat(t->p1));
  return activate(t->activation, a, p0, t->p1);
}

// An integer sum in steps of the output, not yet rounded.
INLINE vf requantised(const prunus_tile *t, int32_t row, vi sum, vi other) {
  vf a = __builtin_convertvector(sum, vf) * splat(t->scale[row]) + splat(t->bias[row]);
  if (t->residual) a += __builtin_convertvector(other, vf) * splat(t->residual_scale);
  if (t->activation) a = apply_activation(t, row, a) * splat(t->post_scale) + splat(t->post_shift);
  return min_of(max_of(a, splat(t->low)), splat(t->high));
}

INLINE vi padded(const prunus_tile *t, int at, vi word) {
  if (!t->mask) return word;
  const vi mask = load_int(t->mask + at);
  return (word & mask) | (splat_int(t->pad) & ~mask);
}

// SUMS(i) is row + i's sum at this vector.
#define FINISH_QUADS(t, row, at, SUMS)                                                                             \
  {                                                                                                                \
    const int64_t plane = (row) / QUADS;                                                                           \
    const vi other = (t)->residual ? load_int((const int32_t *)(t)->residual + plane * (t)->residual_plane + (at)) \
                                   : (vi){0};                                                                      \
    vi word = {0};                                                                                                 \
    UNROLL for (int i = 0; i < QUADS; i++)                                                                         \
      word |= (vi)((vu)to_byte(requantised(t, (row) + i, SUMS(i), byte_of(other, i))) << (8 * i));                 \
    store_int((int32_t *)(t)->out + plane * (t)->plane + (at), padded(t, at, word));                               \
  }

#define FINISH_PAIRS(t, row, at, SUMS)                                                                             \
  {                                                                                                                \
    const int64_t plane = (row) / PAIRS;                                                                           \
    vf low = SUMS(0) + splat((t)->bias ? (t)->bias[row] : 0.0f);                                                   \
    vf high = SUMS(1) + splat((t)->bias ? (t)->bias[(row) + 1] : 0.0f);                                            \
    if ((t)->residual) {                                                                                           \
      const vi other = load_int((const int32_t *)(t)->residual + plane * (t)->residual_plane + (at));              \
      low += low_half(other), high += high_half(other);                                                            \
    }                                                                                                              \
    if ((t)->activation) low = apply_activation(t, row, low), high = apply_activation(t, (row) + 1, high);         \
    const vi word = to_bf16(low) | (vi)((vu)to_bf16(high) << 16);                                                  \
    store_int((int32_t *)(t)->out + plane * (t)->plane + (at), padded(t, at, word));                               \
  }

#define PRUNUS_PACKED(CHANNELS, R, V, SUM, DOT, FINISH, NAME)                                          \
  static void NAME(const prunus_tile *t, const int32_t *group, int64_t n_groups) {                     \
    for (const int32_t *end = group + n_groups * (GROUP_HEAD + R); group < end; group += GROUP_HEAD + R) { \
      const int32_t n = group[GROUP_COLUMNS], *rows = group + GROUP_HEAD;                              \
      const int32_t *off = t->offsets + group[GROUP_OFFSETS];                                          \
      const int32_t *w = (const int32_t *)t->weights + group[GROUP_WEIGHTS];                           \
      const int32_t *x = (const int32_t *)t->x;                                                        \
      SUM acc[R][V];                                                                                   \
      UNROLL for (int r = 0; r < R; r++) UNROLL for (int v = 0; v < V; v++) acc[r][v] = (SUM){0};      \
      for (int32_t k = 0; k < n; k++, w += R) {                                                        \
        const int32_t *p = x + off[k];                                                                 \
        vi in[V];                                                                                      \
        UNROLL for (int v = 0; v < V; v++) in[v] = load_int(p + v * VL);                               \
        UNROLL for (int r = 0; r < R; r++) {                                                           \
          const vi a = splat_int(w[r]);                                                                \
          UNROLL for (int v = 0; v < V; v++) acc[r][v] = DOT(acc[r][v], in[v], a);                     \
          AFTER(acc[r][V - 1]);                                                                        \
        }                                                                                              \
      }                                                                                                \
      UNROLL for (int r = 0; r < R; r += CHANNELS) UNROLL for (int v = 0; v < V; v++)                  \
        FINISH(t, rows[r], v * VL, PRUNUS_SUM)                                                         \
    }                                                                                                  \
  }
#define PRUNUS_SUM(i) acc[r + i][v]
#define PRUNUS_PAIRS(R, V, NAME) PRUNUS_PACKED(PAIRS, R, V, vf, dot_pairs, FINISH_PAIRS, NAME)
#define PRUNUS_QUADS(R, V, NAME) PRUNUS_PACKED(QUADS, R, V, vi, dot_quads, FINISH_QUADS, NAME)

// Fully connected: one number per row, packed like the input or as float32 (`out_real`).
INLINE void finish_numbers(const prunus_tile *t, const int32_t *rows, int n, const float *sums, int channels) {
  for (int i = 0; i < n; i++) {
    const int32_t row = rows[i];
    float a = sums[i] * (t->scale ? t->scale[row] : 1.0f) + (t->bias ? t->bias[row] : 0.0f);
    if (t->residual) {
      if (channels == QUADS) a += (float)((const uint8_t *)t->residual)[row] * t->residual_scale;
      if (channels == PAIRS) {
        const vi half = splat_int((int32_t)((const uint16_t *)t->residual)[row]);
        a += low_half(half)[0];
      }
    }
    if (t->activation) a = apply_activation(t, row, splat(a))[0];
    if (t->out_real) {
      t->out[row] = a;
    } else if (channels == QUADS) {
      vf q = splat(a);
      if (t->activation) q = q * splat(t->post_scale) + splat(t->post_shift);
      ((uint8_t *)t->out)[row] = (uint8_t)to_byte(min_of(max_of(q, splat(t->low)), splat(t->high)))[0];
    } else {
      ((uint16_t *)t->out)[row] = (uint16_t)to_bf16(splat(a))[0];
    }
  }
}

#define PRUNUS_GEMV_PACKED(CHANNELS, U, SUM, DOT, NAME)                                                \
  static void NAME(const prunus_tile *t, const int32_t *group, int64_t n_groups) {                     \
    for (int64_t g = 0; g < n_groups; g++, group += GROUP_HEAD + U * VL) {                             \
      const int32_t n = group[GROUP_COLUMNS], *off = t->offsets + group[GROUP_OFFSETS];                \
      const int32_t *w = (const int32_t *)t->weights + group[GROUP_WEIGHTS];                           \
      const int32_t *x = (const int32_t *)t->x;                                                        \
      SUM sum[2][U]; /* two each, so that additions overlap */                                         \
      UNROLL for (int u = 0; u < U; u++) sum[0][u] = sum[1][u] = (SUM){0};                             \
      int32_t k = 0;                                                                                   \
      for (; k + 2 <= n; k += 2, w += 2 * U * VL) {                                                    \
        const vi a = splat_int(x[off[k]]), b = splat_int(x[off[k + 1]]);                               \
        UNROLL for (int u = 0; u < U; u++) sum[0][u] = DOT(sum[0][u], a, load_int(w + u * VL));        \
        UNROLL for (int u = 0; u < U; u++) sum[1][u] = DOT(sum[1][u], b, load_int(w + (U + u) * VL));  \
      }                                                                                                \
      if (k < n) {                                                                                     \
        const vi a = splat_int(x[off[k]]);                                                             \
        UNROLL for (int u = 0; u < U; u++) sum[0][u] = DOT(sum[0][u], a, load_int(w + u * VL));        \
      }                                                                                                \
      float real[U * VL];                                                                              \
      for (int i = 0; i < U * VL; i++) real[i] = (float)(sum[0][i / VL][i % VL] + sum[1][i / VL][i % VL]); \
      finish_numbers(t, group + GROUP_HEAD, U * VL, real, CHANNELS);                                   \
    }                                                                                                  \
  }

#define PRUNUS_GEMV_ROW(CHANNELS, SUM, DOT, NAME)                                                      \
  static void NAME(const prunus_tile *t, const int32_t *group, int64_t n_groups) {                     \
    for (int64_t g = 0; g < n_groups; g++, group += GROUP_HEAD + 1) {                                  \
      const int32_t n = group[GROUP_COLUMNS], *off = t->offsets + group[GROUP_OFFSETS];                \
      const int32_t *w = (const int32_t *)t->weights + group[GROUP_WEIGHTS];                           \
      const int32_t *x = (const int32_t *)t->x;                                                        \
      SUM sum = {0};                                                                                   \
      for (int32_t k = 0; k < n; k += VL) {                                                            \
        vi a = {0}, b = {0};                                                                           \
        for (int i = 0; i < VL && k + i < n; i++) a[i] = x[off[k + i]], b[i] = w[k + i];               \
        sum = DOT(sum, a, b);                                                                          \
      }                                                                                                \
      float real = 0;                                                                                  \
      SUM total = {0};                                                                                 \
      for (int i = 0; i < VL; i++) total[0] += sum[i];                                                 \
      real = (float)total[0];                                                                          \
      finish_numbers(t, group + GROUP_HEAD, 1, &real, CHANNELS);                                       \
    }                                                                                                  \
  }
PRUNUS_GEMV_ROW(PAIRS, vf, dot_pairs, prunus_bf16_gemv_row)
PRUNUS_GEMV_ROW(QUADS, vi, dot_quads, prunus_u8_gemv_row)
#endif
