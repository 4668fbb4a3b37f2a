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

// Lines of the output and residual that a group some groups later will need: planes lie far apart, where no hardware
// prefetcher looks, and stores wait in line for theirs.
enum { AHEAD = 8 };
INLINE void expect(const prunus_tile *t, int32_t plane, int vectors) {
  const float *y = t->out + plane * t->plane, *z = t->residual + plane * t->residual_plane;
  UNROLL for (int i = 0; i < vectors * VL; i += 16) {
    __builtin_prefetch(y + i, 1);
    if (t->residual) __builtin_prefetch(z + i);
  }
}

// The same of a block of numbers [vectors][channels], in place.
__attribute__((noinline)) static void activate_block(const prunus_tile *t, int32_t row, vf *a, int vectors, int channels) {
  for (int v = 0; v < vectors; v++)
    for (int i = 0; i < channels; i++, a++) *a = apply_activation(t, row + i, *a);
}

// Numbers whose address is given away live in memory, all the time: a copy's is.
#define HOLD_AND_ACTIVATE(t, row, CHANNELS, V, real)                                                               \
  if ((t)->activation == ACT_RELU) {                                                                               \
    UNROLL for (int v = 0; v < V; v++)                                                                             \
      UNROLL for (int i = 0; i < CHANNELS; i++) real[v][i] = max_of(real[v][i], (vf){0});                          \
  } else if ((t)->activation) {                                                                                    \
    vf held[V][CHANNELS];                                                                                          \
    UNROLL for (int v = 0; v < V; v++) UNROLL for (int i = 0; i < CHANNELS; i++) held[v][i] = real[v][i];          \
    activate_block(t, row, held[0], V, CHANNELS);                                                                  \
    UNROLL for (int v = 0; v < V; v++) UNROLL for (int i = 0; i < CHANNELS; i++) real[v][i] = held[v][i];          \
  }

// An activation that the epilogue's clipping doesn't stand for, of a block of quads, in place.
INLINE void activate_steps(const prunus_tile *t, int32_t row, vf *a) {
  const vf steps = apply_activation(t, row, *a) * splat(t->post_scale) + splat(t->post_shift);
  const vf high = min_of(steps, splat(256.0f)), clipped = max_of(high, splat(-1.0f));  // an exponential may be infinite
  *a = choose((clipped == clipped), clipped, (vf){0});
}

__attribute__((noinline)) static void activate_quads(const prunus_tile *t, int32_t row, vf *a, int vectors) {
  for (int v = 0; v < vectors; v++)
    for (int i = 0; i < QUADS; i++, a++) activate_steps(t, row + i, a);
}

INLINE vi clipped(const prunus_tile *t, vi word) {
  return (vi)least_bytes(most_bytes((vb)word, (vb)splat_int(t->low)), (vb)splat_int(t->high));
}

INLINE vi padded(const prunus_tile *t, int64_t at, vi word) {
  if (!t->mask) return word;
  const vi mask = load_int(t->mask + at);
  return (word & mask) | (splat_int(t->pad) & ~mask);
}

// SUMS(i, v) is row + i's sum at vector v of the V from pixel `at` on; of pairs with the bias. One branch for all rows and vectors: each would
// cost as much as the work behind it.
#define FINISH_QUADS(t, row, V, at, SUMS)                                                                          \
  {                                                                                                                \
    const int64_t quad = (int64_t)((uint32_t)(row) / QUADS);                                                       \
    vf real[V][QUADS];                                                                                             \
    UNROLL for (int i = 0; i < QUADS; i++) {                                                                       \
      const vf scale = splat((t)->scale[(row) + i]), bias = splat((t)->bias[(row) + i]);                           \
      UNROLL for (int v = 0; v < V; v++) real[v][i] = __builtin_convertvector(SUMS(i, v), vf) * scale + bias;      \
    }                                                                                                              \
    if ((t)->residual) {                                                                                           \
      const int32_t *z = (const int32_t *)(t)->residual + quad * (t)->residual_plane + (at);                       \
      const vf scale = splat((t)->residual_scale);                                                                 \
      UNROLL for (int v = 0; v < V; v++) {                                                                         \
        const vi other = load_int(z + v * VL);                                                                     \
        UNROLL for (int i = 0; i < QUADS; i++)                                                                     \
          real[v][i] += __builtin_convertvector(byte_in_place(other, i), vf) * (scale * splat(worth_of(i)));       \
      }                                                                                                            \
    }                                                                                                              \
    if ((t)->activation) {                                                                                         \
      vf held[V][QUADS];                                                                                           \
      UNROLL for (int v = 0; v < V; v++) UNROLL for (int i = 0; i < QUADS; i++) held[v][i] = real[v][i];           \
      activate_quads(t, row, held[0], V);                                                                          \
      UNROLL for (int v = 0; v < V; v++) UNROLL for (int i = 0; i < QUADS; i++) real[v][i] = held[v][i];           \
    }                                                                                                              \
    int32_t *y = (int32_t *)(t)->out + quad * (t)->plane + (at);                                                   \
    const int clips = (t)->low != 0 || (t)->high != -1; /* beyond what words hold */                               \
    UNROLL for (int v = 0; v < V; v++) {                                                                           \
      vi word = to_quads(real[v][0], real[v][1], real[v][2], real[v][3]);                                          \
      if (clips) word = clipped(t, word);                                                                          \
      store_int(y + v * VL, padded(t, (at) + v * VL, word));                                                       \
    }                                                                                                              \
  }

#define FINISH_PAIRS(t, row, V, at, SUMS)                                                                          \
  {                                                                                                                \
    const int64_t pair = (int64_t)((uint32_t)(row) / PAIRS);                                                       \
    vf real[V][PAIRS];                                                                                             \
    UNROLL for (int i = 0; i < PAIRS; i++) UNROLL for (int v = 0; v < V; v++) real[v][i] = SUMS(i, v);             \
    if ((t)->residual) {                                                                                           \
      const int32_t *z = (const int32_t *)(t)->residual + pair * (t)->residual_plane + (at);                       \
      UNROLL for (int v = 0; v < V; v++) {                                                                         \
        const vi other = load_int(z + v * VL);                                                                     \
        real[v][0] += low_half(other), real[v][1] += high_half(other);                                             \
      }                                                                                                            \
    }                                                                                                              \
    HOLD_AND_ACTIVATE(t, row, PAIRS, V, real)                                                                      \
    int32_t *y = (int32_t *)(t)->out + pair * (t)->plane + (at);                                                   \
    UNROLL for (int v = 0; v < V; v++) {                                                                           \
      store_int(y + v * VL, padded(t, (at) + v * VL, to_pairs(real[v][0], real[v][1])));                                                     \
    }                                                                                                              \
  }

// float32 planes of the sums, for readers that aren't packed. The last word may hold more channels than there are rows.
#define FINISH_REAL(t, row, CHANNELS, V, SUMS)                                                                     \
  {                                                                                                                \
    const int64_t word = (int64_t)((uint32_t)(row) / CHANNELS);                                                    \
    vf real[V][CHANNELS];                                                                                          \
    UNROLL for (int i = 0; i < CHANNELS; i++) {                                                                    \
      const vf scale = splat(CHANNELS == QUADS ? (t)->scale[(row) + i] : 1.0f);                                    \
      const vf bias = splat(CHANNELS == QUADS ? (t)->bias[(row) + i] : 0.0f);                                      \
      UNROLL for (int v = 0; v < V; v++) {                                                                         \
        real[v][i] = __builtin_convertvector(SUMS(i, v), vf);                                                      \
        if (CHANNELS == QUADS) real[v][i] = real[v][i] * scale + bias;                                             \
      }                                                                                                            \
    }                                                                                                              \
    if ((t)->residual) {                                                                                           \
      const int32_t *z = (const int32_t *)(t)->residual + word * (t)->residual_plane;                              \
      UNROLL for (int v = 0; v < V; v++) {                                                                         \
        const vi other = load_int(z + v * VL);                                                                     \
        UNROLL for (int i = 0; i < CHANNELS; i++)                                                                  \
          real[v][i] += CHANNELS == PAIRS ? (i ? high_half(other) : low_half(other))                               \
                                          : __builtin_convertvector(byte_of(other, i), vf) * splat((t)->residual_scale); \
      }                                                                                                            \
    }                                                                                                              \
    HOLD_AND_ACTIVATE(t, row, CHANNELS, V, real)                                                                   \
    if ((t)->mask)                                                                                                 \
      UNROLL for (int v = 0; v < V; v++) {                                                                         \
        const vi mask = load_int((t)->mask + v * VL);                                                              \
        UNROLL for (int i = 0; i < CHANNELS; i++) real[v][i] = (vf)((vi)real[v][i] & mask);                        \
      }                                                                                                            \
    UNROLL for (int i = 0; i < CHANNELS; i++) {                                                                    \
      float *y = (t)->out + ((row) + i) * (t)->plane;                                                              \
      if ((row) + i < (t)->rows)                                                                                   \
        UNROLL for (int v = 0; v < V; v++) store(y + v * VL, real[v][i]);                                          \
    }                                                                                                              \
  }

enum { WEIGHTS_AHEAD = 1024 }; /* words: weights are read once, from wherever they are, past the ends of pages */

// The sums over a group's kept columns. FETCH: of what the next tile reads there.
#define PRUNUS_COLUMNS(R, V, DOT, FETCH)                                                               \
  for (int32_t k = 0; k < n; k++, w += R) {                                                            \
    const int32_t *p = x + off[k];                                                                     \
    __builtin_prefetch(w + WEIGHTS_AHEAD);                                                             \
    FETCH                                                                                              \
    vi in[V];                                                                                          \
    UNROLL for (int v = 0; v < V; v++) in[v] = load_int(p + v * VL);                                   \
    UNROLL for (int r = 0; r < R; r++) {                                                               \
      const vi a = splat_int(w[r]);                                                                    \
      UNROLL for (int v = 0; v < V; v++) acc[r][v] = DOT(acc[r][v], in[v], a);                         \
      AFTER(acc[r][V - 1]);                                                                            \
    }                                                                                                  \
  }

#define PRUNUS_PACKED(CHANNELS, R, V, SUM, DOT, FINISH, NAME)                                          \
  static void NAME(const prunus_tile *t, const int32_t *group, int64_t n_groups) {                     \
    for (const int32_t *end = group + n_groups * (GROUP_HEAD + R); group < end; group += GROUP_HEAD + R) { \
      const int32_t n = group[GROUP_COLUMNS], *rows = group + GROUP_HEAD;                              \
      const int32_t *off = t->offsets + group[GROUP_OFFSETS];                                          \
      const int32_t *w = (const int32_t *)t->weights + group[GROUP_WEIGHTS];                           \
      const int32_t *x = (const int32_t *)t->x;                                                        \
      SUM acc[R][V];                                                                                   \
      UNROLL for (int r = 0; r < R; r++) {                                                             \
        const SUM first = CHANNELS == PAIRS ? (SUM)splat(t->bias[rows[r]]) : (SUM){0};                 \
        UNROLL for (int v = 0; v < V; v++) acc[r][v] = first;                                          \
      }                                                                                                \
      const int32_t *later = group + AHEAD * (GROUP_HEAD + R);                                         \
      if (later < end)                                                                                 \
        UNROLL for (int r = 0; r < R; r += CHANNELS) expect(t, later[GROUP_HEAD + r] / CHANNELS, V);   \
      if (t->next) {                                                                                   \
        PRUNUS_COLUMNS(R, V, DOT, UNROLL for (int v = 0; v < V; v++) __builtin_prefetch(p + t->next + v * VL);) \
      } else {                                                                                         \
        PRUNUS_COLUMNS(R, V, DOT, )                                                                    \
      }                                                                                                \
      if (t->out_real) {                                                                               \
        UNROLL for (int r = 0; r < R; r += CHANNELS) FINISH_REAL(t, rows[r], CHANNELS, V, PRUNUS_SUM)  \
      } else {                                                                                         \
        UNROLL for (int r = 0; r < R; r += CHANNELS) FINISH(t, rows[r], V, 0, PRUNUS_SUM)              \
      }                                                                                                \
    }                                                                                                  \
  }
#define PRUNUS_SUM(i, v) acc[r + (i)][v]
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
    if (t->activation && (t->out_real || channels == PAIRS)) a = apply_activation(t, row, splat(a))[0];
    if (t->out_real) {
      t->out[row] = a;
    } else if (channels == QUADS) {
      vf q = splat(a);
      if (t->activation) activate_steps(t, row, &q);
      ((uint8_t *)t->out)[row] = (uint8_t)clipped(t, to_quads(q, q, q, q))[0];
    } else {
      ((uint16_t *)t->out)[row] = (uint16_t)to_bf16(splat(a))[0];
    }
  }
}

#define PRUNUS_GEMV_PACKED(CHANNELS, U, SUM, DOT, NAME)                                                \
  PRUNUS_GEMV_PACKED_INDEXED(uint16_t, CHANNELS, U, SUM, DOT, NAME##_by_16)                            \
  PRUNUS_GEMV_PACKED_INDEXED(int32_t, CHANNELS, U, SUM, DOT, NAME##_by_32)                             \
  PRUNUS_BY_INDEX(NAME)
#define PRUNUS_GEMV_PACKED_INDEXED(INDEX, CHANNELS, U, SUM, DOT, NAME)                                 \
  static void NAME(const prunus_tile *t, const int32_t *group, int64_t n_groups) {                     \
    for (int64_t g = 0; g < n_groups; g++, group += GROUP_HEAD + U * VL) {                             \
      const int32_t n = group[GROUP_COLUMNS];                                                          \
      const INDEX *off = (const INDEX *)t->offsets + group[GROUP_OFFSETS];                             \
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
  PRUNUS_GEMV_ROW_PACKED_INDEXED(uint16_t, CHANNELS, SUM, DOT, NAME##_by_16)                           \
  PRUNUS_GEMV_ROW_PACKED_INDEXED(int32_t, CHANNELS, SUM, DOT, NAME##_by_32)                            \
  PRUNUS_BY_INDEX(NAME)
#define PRUNUS_GEMV_ROW_PACKED_INDEXED(INDEX, CHANNELS, SUM, DOT, NAME)                                \
  static void NAME(const prunus_tile *t, const int32_t *group, int64_t n_groups) {                     \
    for (int64_t g = 0; g < n_groups; g++, group += GROUP_HEAD + 1) {                                  \
      const int32_t n = group[GROUP_COLUMNS];                                                          \
      const INDEX *off = (const INDEX *)t->offsets + group[GROUP_OFFSETS];                             \
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
