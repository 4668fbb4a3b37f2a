// Record "spans": a sparse matrix times single vectors, with columns of one byte inside spans of 128; see
// sparsity/spans.py for what is read. On 16 lanes of AVX-512 a span of the input is held in eight registers, and 16
// columns are looked up there: gathers from memory take several times as long.
#ifndef PRUNUS_SPANS_H
#define PRUNUS_SPANS_H
#include "layer.h"

enum { SPAN_LANES = 16, SPAN_VECTORS = SPAN_LANES / VL, SPAN_QUAD = 4 };

INLINE int32_t word_at(const uint8_t *p) {
  uint16_t word;
  memcpy(&word, p, 2);
  return word;
}

// The epilogue of up to VL neighbouring rows.
INLINE void finish_run(const prunus_tile *t, int64_t row, vf a, int64_t n) {
  if (n < VL) {
    for (int i = 0; i < n && t->scale; i++) a[i] *= t->scale[row + i];
    for (int i = 0; i < n; i++)
      a[i] += (t->bias ? t->bias[row + i] : 0.0f) + (t->residual ? t->residual[row + i] : 0.0f);
  } else {
    if (t->scale) a *= load(t->scale + row);
    if (t->bias) a += load(t->bias + row);
    if (t->residual) a += load(t->residual + row);
  }
  vf y = a;
  if (t->slope) {
    for (int i = 0; i < n; i++) y[i] = y[i] < 0 ? y[i] * t->slope[row + i] : y[i];
  } else if (t->activation) {
    y = activate(t->activation, y, t->p0, t->p1);
  }
  if (n < VL) {
    memcpy(t->out + row, &y, (size_t)n * 4);
  } else {
    store(t->out + row, y);
  }
}

// The epilogues of `n` rows from `first` on. The usual one is a loop of few instructions: at high rates there is little
// else to do.
static void finish_section(const prunus_tile *t, int64_t first, const float *sums, int64_t n) {
  const float *scale = t->scale ? t->scale + first : NULL, *bias = t->bias ? t->bias + first : NULL;
  const float *residual = t->residual ? t->residual + first : NULL;
  float *out = t->out + first;
  int64_t i = 0;
  if (!t->slope && !t->activation && !scale && bias && !residual) {
    for (; i + VL <= n; i += VL) store(out + i, load(sums + i) + load(bias + i));
  } else if (!t->slope && !t->activation) {
    for (; i + VL <= n; i += VL) {
      vf a = load(sums + i);
      if (scale) a *= load(scale + i);
      if (bias) a += load(bias + i);
      if (residual) a += load(residual + i);
      store(out + i, a);
    }
  }
  for (; i < n; i += VL) finish_run(t, first + i, load(sums + i), least(VL, n - i));
}

#if defined(__AVX512F__) && VB == 64
typedef struct {
  __m512 of[8];
} prunus_span;
INLINE prunus_span load_span(const float *x) {
  prunus_span span;
  UNROLL for (int i = 0; i < 8; i++) span.of[i] = _mm512_loadu_ps(x + 16 * i);
  return span;
}
// Elements of a span by 16 columns, number q of a quad. Permutations take the low bits of an index, so that bytes need
// but a shift.
INLINE vf look_up(const prunus_span *span, const uint8_t *columns, int q) {
  const __m512i quad = _mm512_loadu_si512(columns), at = _mm512_srli_epi32(quad, 8 * (unsigned)q);
  const __mmask16 odd = _mm512_test_epi32_mask(quad, _mm512_set1_epi32(32 << 8 * q));
  const __mmask16 high = _mm512_test_epi32_mask(quad, _mm512_set1_epi32(64 << 8 * q));
  const __m512 a = _mm512_permutex2var_ps(span->of[0], at, span->of[1]);
  const __m512 b = _mm512_permutex2var_ps(span->of[2], at, span->of[3]);
  const __m512 c = _mm512_permutex2var_ps(span->of[4], at, span->of[5]);
  const __m512 d = _mm512_permutex2var_ps(span->of[6], at, span->of[7]);
  return (vf)_mm512_mask_mov_ps(_mm512_mask_mov_ps(a, odd, b), high, _mm512_mask_mov_ps(c, odd, d));
}
INLINE void look_up_lanes(const prunus_span *span, const uint8_t *columns, int q, vf *lanes) {
  lanes[0] = look_up(span, columns, q);
}
#else
typedef struct {
  const float *x;
} prunus_span;
INLINE prunus_span load_span(const float *x) { return (prunus_span){x}; }
INLINE void look_up_lanes(const prunus_span *span, const uint8_t *columns, int q, vf *lanes) {
  UNROLL for (int v = 0; v < SPAN_VECTORS; v++)
    UNROLL for (int i = 0; i < VL; i++) lanes[v][i] = span->x[columns[(v * VL + i) * SPAN_QUAD + q]];
}
#endif

// Column Q of a quad, into one of SUMS sets of sums: looked up once for all R rows.
#define SPAN_COLUMN(R, W, LOAD, Q)                                                                     \
  {                                                                                                    \
    vf x[SPAN_VECTORS];                                                                                \
    look_up_lanes(span, columns, Q, x);                                                                \
    UNROLL for (int r = 0; r < R; r++) {                                                               \
      const W *at = w + ((Q) * R + r) * SPAN_LANES;                                                    \
      UNROLL for (int v = 0; v < SPAN_VECTORS; v++) a[Q % SUMS][r][v] += x[v] * LOAD(at + v * VL);            \
    }                                                                                                  \
  }

// A group of `n` columns and R rows per lane. Few rows have a second set of sums, so that additions overlap.
#define PRUNUS_SPAN_GROUP(R, W, LOAD)                                                                  \
  case R: {                                                                                            \
    enum { SUMS = VL == SPAN_LANES && R <= 4 ? 2 : 1 };                                                \
    vf a[2][R][SPAN_VECTORS];                                                                          \
    UNROLL for (int s = 0; s < SUMS; s++) UNROLL for (int r = 0; r < R; r++)                           \
      UNROLL for (int v = 0; v < SPAN_VECTORS; v++) a[s][r][v] = (vf){0};                              \
    int32_t k = n;                                                                                     \
    for (; k >= 4; k -= 4, columns += SPAN_QUAD * SPAN_LANES, w += SPAN_QUAD * R * SPAN_LANES) {       \
      SPAN_COLUMN(R, W, LOAD, 0)                                                                       \
      SPAN_COLUMN(R, W, LOAD, 1)                                                                       \
      SPAN_COLUMN(R, W, LOAD, 2)                                                                       \
      SPAN_COLUMN(R, W, LOAD, 3)                                                                       \
    }                                                                                                  \
    if (k > 0) SPAN_COLUMN(R, W, LOAD, 0)                                                              \
    if (k > 1) SPAN_COLUMN(R, W, LOAD, 1)                                                              \
    if (k > 2) SPAN_COLUMN(R, W, LOAD, 2)                                                              \
    w += k * R * SPAN_LANES;                                                                           \
    UNROLL for (int r = 0; r < R; r++) {                                                               \
      float lane[SPAN_LANES] __attribute__((aligned(64)));                                             \
      UNROLL for (int v = 0; v < SPAN_VECTORS; v++)                                                    \
        store(lane + v * VL, SUMS == 2 ? a[0][r][v] + a[SUMS - 1][r][v] : a[0][r][v]);                 \
      UNROLL for (int i = 0; i < SPAN_LANES; i++) sums[word_at(rows + 2 * (r * SPAN_LANES + i))] += lane[i]; \
    }                                                                                                  \
    break;                                                                                             \
  }

// Sums of a section's rows, and one more for lanes that stand for none, over weights of type W.
#define PRUNUS_SPAN_SUMS(W, LOAD, NAME)                                                                \
  INLINE const W *NAME##_group(const prunus_span *span, int32_t height, int32_t n, const uint8_t *rows, \
                               const uint8_t *columns, const W *w, float *sums) {                      \
    switch (height) {                                                                                  \
      PRUNUS_SPAN_GROUP(1, W, LOAD)                                                                    \
      PRUNUS_SPAN_GROUP(2, W, LOAD)                                                                    \
      PRUNUS_SPAN_GROUP(3, W, LOAD)                                                                    \
      PRUNUS_SPAN_GROUP(4, W, LOAD)                                                                    \
      PRUNUS_SPAN_GROUP(5, W, LOAD)                                                                    \
      PRUNUS_SPAN_GROUP(6, W, LOAD)                                                                    \
      PRUNUS_SPAN_GROUP(7, W, LOAD)                                                                    \
      PRUNUS_SPAN_GROUP(8, W, LOAD)                                                                    \
    }                                                                                                  \
    return w;                                                                                          \
  }                                                                                                    \
  static void NAME(const float *x, const uint8_t *e, const uint8_t *end, const W *w, float *sums) {    \
    while (e < end) {                                                                                  \
      const prunus_span span = load_span(x + word_at(e));                                              \
      int32_t n_groups = word_at(e + 2);                                                               \
      for (e += 4; n_groups; n_groups--) {                                                             \
        const int32_t height = word_at(e), n = word_at(e + 2);                                         \
        const uint8_t *rows = e + 4, *columns = rows + 2 * SPAN_LANES * height;                        \
        w = NAME##_group(&span, height, n, rows, columns, w, sums);                                    \
        e = columns + SPAN_LANES * ((n + SPAN_QUAD - 1) / SPAN_QUAD * SPAN_QUAD);                      \
      }                                                                                                \
    }                                                                                                  \
  }
PRUNUS_SPAN_SUMS(float, load, span_sums_f32)
PRUNUS_SPAN_SUMS(uint16_t, load_bf16, span_sums_bf16)
PRUNUS_SPAN_SUMS(int8_t, load_int8, span_sums_int8)

static void spans_task(void *context, int64_t task, int thread) {
  const prunus_run_state *s = context;
  const int64_t *r = s->record;
  if (r[SPANS_BACKWARDS]) task = task_backwards(s, task, r[SPANS_N_SECTIONS]);
  prunus_tile t = layer_tile(s, r[SPANS_VALUES], NOWHERE, r[SPANS_BIAS], r[SPANS_SLOPE], r[SPANS_ACTIVATION], r[SPANS_P0],
                             r[SPANS_P1]);
  t.scale = at(s, r[SPANS_SCALE]);
  const uint8_t *entries = (const uint8_t *)at(s, r[SPANS_ENTRIES]);
  const int32_t *places = (const int32_t *)at(s, r[SPANS_PLACES]) + 2 * task;
  const int32_t *section = (const int32_t *)at(s, r[SPANS_SECTIONS]) + task;
  float *sums = s->scratch + thread * s->scratch_elements, *residual = at(s, r[SPANS_RESIDUAL]);
  const int64_t first = section[0], n = least(section[1], r[SPANS_ROWS]) - first;
  if (r[SPANS_BACKWARDS] && task > 0) expect_weights(t.weights, places[-1] * r[SPANS_VALUE_BYTES]);
  for (int64_t image = 0; image < r[SPANS_IMAGES]; image++) {
    t.out = at(s, r[SPANS_OUT]) + image * r[SPANS_OUT_BATCH];
    t.residual = residual ? residual + image * r[SPANS_RESIDUAL_BATCH] : NULL;
    memset(sums, 0, (size_t)(section[1] - first + 1) * 4);
    const float *x = at(s, r[SPANS_X]) + image * r[SPANS_X_BATCH];
    const uint8_t *from = entries + places[0], *to = entries + places[2];
    switch (r[SPANS_VALUE_BYTES]) {
      case 1: span_sums_int8(x, from, to, (const int8_t *)t.weights + places[1], sums); break;
      case 2: span_sums_bf16(x, from, to, (const uint16_t *)t.weights + places[1], sums); break;
      default: span_sums_f32(x, from, to, t.weights + places[1], sums);
    }
    finish_section(&t, first, sums, n);
  }
}
#endif
