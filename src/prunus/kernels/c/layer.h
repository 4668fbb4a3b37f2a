// Records "conv", "gemv" and "margins": how row groups are dealt out over pixels, sections of rows, and threads.
#ifndef PRUNUS_LAYER_H
#define PRUNUS_LAYER_H
#include "gemv.h"
#include "run.h"
#include "table.h"  // prunus_group_kernels[pack][height][vectors], prunus_gemv_kernels[pack][height], prunus_gemv_held_kernels[bytes][height]: written with the library

// A call is height, start in the group table, number of groups. A part is a run of calls over one stretch of columns, a
// section a run of parts that owns its rows. A task goes over its tiles once per part, so a part's weights stay in the
// second-level cache and a tile's columns in the first; between parts, partial sums wait in the output.
enum { CALL_HEIGHT, CALL_START, CALL_GROUPS, CALL_SIZE };

enum { FAR_ELEMENTS = 150000 }; /* of an input that doesn't stay in a second-level cache beside output and weights */

static prunus_tile layer_tile(const prunus_run_state *s, int64_t weights, int64_t offsets, int64_t bias, int64_t slope,
                              int64_t activation, int64_t p0, int64_t p1) {
  return (prunus_tile){.weights = at(s, weights), .offsets = (const int32_t *)at(s, offsets), .bias = at(s, bias),
                       .slope = at(s, slope), .activation = (int32_t)activation, .p0 = from_bits(p0),
                       .p1 = from_bits(p1)};
}

// The fields of a record that say how packed channels are made from sums.
#define READ_PACKED(t, s, r, KIND)                                                                           \
  (t).scale = at(s, (r)[KIND##_SCALE]), (t).residual_scale = from_bits((r)[KIND##_RESIDUAL_SCALE]),          \
  (t).post_scale = from_bits((r)[KIND##_POST_SCALE]), (t).post_shift = from_bits((r)[KIND##_POST_SHIFT]),    \
  (t).low = (int32_t)(r)[KIND##_LOW], (t).high = (int32_t)(r)[KIND##_HIGH], (t).pad = (int32_t)(r)[KIND##_PAD]

static void conv_task(void *context, int64_t task, int thread) {
  const prunus_run_state *s = context;
  const int64_t *r = s->record, v = r[CONV_TILE], per_task = r[CONV_TILES_PER_TASK], n_sections = r[CONV_N_SECTIONS];
  const int64_t n_tiles = ceil_div(r[CONV_VECTORS], v), n_blocks = ceil_div(n_tiles, per_task);
  const int64_t image = task / (n_blocks * n_sections), rest = task % (n_blocks * n_sections);
  const int64_t section = r[CONV_PIXELS_OUTER] ? rest % n_sections : rest / n_blocks;
  const int64_t block = r[CONV_PIXELS_OUTER] ? rest / n_sections : rest % n_blocks;
  const int32_t *groups = (const int32_t *)at(s, r[CONV_GROUPS]), *calls = (const int32_t *)at(s, r[CONV_CALLS]);
  const int32_t *parts = (const int32_t *)at(s, r[CONV_PARTS]);
  const int32_t *sections = (const int32_t *)at(s, r[CONV_SECTIONS]) + section;
  prunus_tile t = layer_tile(s, r[CONV_WEIGHTS], r[CONV_OFFSETS], r[CONV_BIAS], r[CONV_SLOPE], r[CONV_ACTIVATION],
                             r[CONV_P0], r[CONV_P1]);
  t.plane = r[CONV_PLANE], t.residual_plane = r[CONV_RESIDUAL_PLANE], t.scratch_pitch = v * VL;
  t.scratch = s->scratch + thread * s->scratch_elements;
  READ_PACKED(t, s, r, CONV);
  t.out_real = (int32_t)r[CONV_OUT_REAL], t.rows = r[CONV_ROWS];
  t.next = r[CONV_X_BATCH] > FAR_ELEMENTS ? v * VL : 0;
  const float *x = at(s, r[CONV_X]) + image * r[CONV_X_BATCH];
  float *out = at(s, r[CONV_OUT]) + image * r[CONV_OUT_BATCH], *residual = at(s, r[CONV_RESIDUAL]);
  const int32_t *mask = (const int32_t *)at(s, r[CONV_MASK]);
  const int64_t first = block * per_task, last = least(first + per_task, n_tiles);
  // tiles of equal width, give or take one vector: a narrow last one would not fill the pipelines. Tile i begins at
  // i * vectors / n_tiles, stepped without dividing: few columns take less time than a division.
  const int64_t width = r[CONV_VECTORS] / n_tiles, spare = r[CONV_VECTORS] % n_tiles;
  const int64_t first_vector = first * r[CONV_VECTORS] / n_tiles, first_rest = first * r[CONV_VECTORS] % n_tiles;
  for (int64_t part = sections[0]; part < sections[1]; part++) {
    const int32_t *from = calls + parts[part] * CALL_SIZE, *to = calls + parts[part + 1] * CALL_SIZE;
    t.ahead = to - from == CALL_SIZE && from[CALL_GROUPS] == 1 ? 2 * v * VL : 0;
    int64_t pixel = first_vector * VL, rest_of = first_rest;
    for (int64_t i = first; i < last; i++) {
      const int64_t wider = (rest_of += spare) >= n_tiles, vectors = width + wider;
      rest_of -= wider ? n_tiles : 0;
      t.x = x + pixel, t.out = out + pixel, t.mask = mask ? mask + pixel : NULL;
      t.residual = residual ? residual + image * r[CONV_RESIDUAL_BATCH] + pixel : NULL;
      const float *next = t.x + r[CONV_AHEAD] + vectors * VL;
      for (int64_t c = 0; c < r[CONV_AHEAD_PLANES]; c++, next += r[CONV_AHEAD_PLANE])
        for (int64_t j = 0; j < v * VL; j += 16) __builtin_prefetch(next + j, 0, 2);
      if (r[CONV_SUMS_IN_OUT]) t.scratch = t.out, t.scratch_pitch = t.plane;
      for (const int32_t *c = from; c < to; c += CALL_SIZE)
        prunus_group_kernels[r[CONV_PACK]][c[CALL_HEIGHT]][vectors](&t, groups + c[CALL_START], c[CALL_GROUPS]);
      pixel += vectors * VL;
    }
  }
}

static int64_t conv_tasks(const int64_t *r) {
  return r[CONV_IMAGES] * ceil_div(ceil_div(r[CONV_VECTORS], r[CONV_TILE]), r[CONV_TILES_PER_TASK]) *
         r[CONV_N_SECTIONS];
}

// Images are innermost, so that a section's weights are read from memory once.
static void gemv_task(void *context, int64_t task, int thread) {
  (void)thread;
  const prunus_run_state *s = context;
  const int64_t *r = s->record;
  if (r[GEMV_BACKWARDS]) task = task_backwards(s, task, r[GEMV_N_SECTIONS]);
  const int32_t *groups = (const int32_t *)at(s, r[GEMV_GROUPS]), *calls = (const int32_t *)at(s, r[GEMV_CALLS]);
  const int32_t *parts = (const int32_t *)at(s, r[GEMV_PARTS]);
  const int32_t *sections = (const int32_t *)at(s, r[GEMV_SECTIONS]) + task;
  const int32_t *first = calls + parts[sections[0]] * CALL_SIZE, *last = calls + parts[sections[1]] * CALL_SIZE;
  prunus_tile t = layer_tile(s, r[GEMV_WEIGHTS], r[GEMV_OFFSETS], r[GEMV_BIAS], r[GEMV_SLOPE], r[GEMV_ACTIVATION],
                             r[GEMV_P0], r[GEMV_P1]);
  t.plane = r[GEMV_ROW_STRIDE], t.out_real = (int32_t)r[GEMV_OUT_REAL], t.narrow = (int32_t)r[GEMV_NARROW];
  READ_PACKED(t, s, r, GEMV);
  if (r[GEMV_PACK] == 1 && r[GEMV_VALUE_BYTES] != 1) t.scale = NULL;
  prunus_group_kernel *const *kernels =
      r[GEMV_VALUE_BYTES] == 4 ? prunus_gemv_kernels[r[GEMV_PACK]] : prunus_gemv_held_kernels[r[GEMV_VALUE_BYTES]];
  const float *residual = at(s, r[GEMV_RESIDUAL]);
  if (r[GEMV_BACKWARDS] && task > 0) {
    const int32_t *next = calls + parts[sections[-1]] * CALL_SIZE;
    if (next < first) expect_weights(t.weights, (groups + next[CALL_START])[GROUP_WEIGHTS] * r[GEMV_VALUE_BYTES]);
  }
  for (const int32_t *c = first; c < last; c += CALL_SIZE)
    for (int64_t image = 0; image < r[GEMV_IMAGES]; image++) {
      t.x = at(s, r[GEMV_X]) + image * r[GEMV_X_BATCH];
      t.out = at(s, r[GEMV_OUT]) + image * r[GEMV_OUT_BATCH];
      t.residual = residual ? residual + image * r[GEMV_RESIDUAL_BATCH] : NULL;
      kernels[c[CALL_HEIGHT]](&t, groups + c[CALL_START], c[CALL_GROUPS]);
    }
}

static void margins_task(void *context, int64_t task, int thread) {
  (void)thread;
  const prunus_run_state *s = context;
  const int64_t *r = s->record;
  float *p = at(s, r[MARGINS_OUT]) + task * r[MARGINS_OUT_BATCH];
  for (int64_t c = 0; c < r[MARGINS_PLANES]; c++, p += r[MARGINS_PLANE]) {
    fill_words(p - r[MARGINS_FRONT], r[MARGINS_FRONT], r[MARGINS_PAD]);
    fill_words(p + r[MARGINS_TAIL_START], r[MARGINS_TAIL], r[MARGINS_PAD]);
  }
}
#endif
