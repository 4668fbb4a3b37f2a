// Records "winograd" and "winograd_input": dense 3x3 convolution of stride 1 as F(2x2, 3x3). Each 4x4 tile of input,
// two pixels from the next, gives 2x2 pixels of output by 16 products where the direct way takes 36: the positions of
// the transformed tiles are 16 matrix products over channels, which the row-group micro-kernels do with tiles as lanes.
// Source: Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", CVPR 2016, arXiv:1509.09308,
// section 4.1; strips and packing are ours.
#ifndef PRUNUS_WINOGRAD_H
#define PRUNUS_WINOGRAD_H
#include "layer.h"

enum { POSITIONS = 16 };

#if VL == 4
#define EVEN_LANES 0, 2, 4, 6
#define ODD_LANES 1, 3, 5, 7
#define LOW_LANES 0, 4, 1, 5
#define HIGH_LANES 2, 6, 3, 7
#elif VL == 8
#define EVEN_LANES 0, 2, 4, 6, 8, 10, 12, 14
#define ODD_LANES 1, 3, 5, 7, 9, 11, 13, 15
#define LOW_LANES 0, 8, 1, 9, 2, 10, 3, 11
#define HIGH_LANES 4, 12, 5, 13, 6, 14, 7, 15
#else
#define EVEN_LANES 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30
#define ODD_LANES 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31
#define LOW_LANES 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23
#define HIGH_LANES 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31
#endif

// Tiles are numbered row by row over an image. A strip is a stretch of them that begins on a vector; both records start
// with the same fields, so either may be read here.
typedef struct {
  int64_t first, count;  // tiles
} prunus_strip;

static int64_t strips_of(const int64_t *r) {
  const int64_t tiles = ceil_div(r[WINOGRAD_H], 2) * ceil_div(r[WINOGRAD_W], 2);
  return ceil_div(ceil_div(tiles, VL), r[WINOGRAD_STRIP]);
}

static prunus_strip strip_of(const int64_t *r, int64_t strip) {
  const int64_t tiles = ceil_div(r[WINOGRAD_H], 2) * ceil_div(r[WINOGRAD_W], 2), vectors = ceil_div(tiles, VL);
  const int64_t n = strips_of(r), first = strip * vectors / n * VL;
  return (prunus_strip){first, least((strip + 1) * vectors / n * VL, tiles) - first};
}

// B^T d B of VL tiles side by side: rows are combined while they are contiguous, then columns are taken apart.
INLINE void input_tiles(const float *const row[4], int64_t column, float *v, int64_t position) {
  UNROLL for (int i = 0; i < 4; i++) {
    const float *a = row[i == 0 ? 0 : i == 2 ? 2 : 1] + column, *b = row[i == 2 ? 1 : i == 3 ? 3 : 2] + column;
    vf d[4];  // columns 0 .. VL - 1, VL .. 2 VL - 1, and the same two columns further on
    UNROLL for (int q = 0; q < 4; q++) {
      const int64_t at = (q & 1) * VL + (q >> 1) * 2;
      d[q] = i == 1 ? load(a + at) + load(b + at) : load(a + at) - load(b + at);
    }
    const vf c0 = SHUFFLE(d[0], d[1], EVEN_LANES), c1 = SHUFFLE(d[0], d[1], ODD_LANES);
    const vf c2 = SHUFFLE(d[2], d[3], EVEN_LANES), c3 = SHUFFLE(d[2], d[3], ODD_LANES);
    store(v + (4 * i + 0) * position, c0 - c2);
    store(v + (4 * i + 1) * position, c1 + c2);
    store(v + (4 * i + 2) * position, c2 - c1);
    store(v + (4 * i + 3) * position, c1 - c3);
  }
}

// Channels [from, to) of a strip, to v[position][channel][tile]. Lanes behind a row's last tile are overwritten by the
// next row's, or lie in the space that a pitch has to spare. The fourth row of a tile that hangs over the image counts
// for nothing and may not exist.
static void transform_input(const int64_t *r, const float *x, float *v, prunus_strip strip, int64_t from, int64_t to) {
  const int64_t across = ceil_div(r[WINOGRAD_W], 2), pitch = r[WINOGRAD_X_PITCH];
  x -= r[WINOGRAD_TOP] * pitch + r[WINOGRAD_LEFT];
  for (int64_t c = from; c < to; c++) {
    float *out = v + c * r[WINOGRAD_PITCH];
    int64_t y = strip.first / across * 2, tile = strip.first % across;
    for (int64_t left = strip.count; left > 0; y += 2, tile = 0) {
      const int64_t n = least(across - tile, left);
      const float *p = x + c * r[WINOGRAD_X_PLANE] + y * pitch + tile * 2;
      const float *const row[4] = {p, p + pitch, p + 2 * pitch, p + (y + 1 < r[WINOGRAD_H] ? 3 : 2) * pitch};
      for (int64_t i = 0; i < n; i += VL) input_tiles(row, 2 * i, out + i, r[WINOGRAD_POSITION]);
      out += n, left -= n;
    }
  }
}

static void winograd_input_task(void *context, int64_t task, int thread) {
  (void)thread;
  const prunus_run_state *s = context;
  const int64_t *r = s->record, strips = strips_of(r), per_task = r[WINOGRAD_INPUT_CHANNELS_PER_TASK];
  const int64_t blocks = ceil_div(r[WINOGRAD_CHANNELS], per_task), place = task / blocks;
  const int64_t from = task % blocks * per_task;
  const float *x = at(s, r[WINOGRAD_X]) + place / strips * r[WINOGRAD_X_BATCH];
  float *v = at(s, r[WINOGRAD_INPUT_OUT]) + place * POSITIONS * r[WINOGRAD_POSITION];
  transform_input(r, x, v, strip_of(r, place % strips), from, least(from + per_task, r[WINOGRAD_CHANNELS]));
}

static int64_t winograd_input_tasks(const int64_t *r) {
  return r[WINOGRAD_IMAGES] * strips_of(r) * ceil_div(r[WINOGRAD_CHANNELS], r[WINOGRAD_INPUT_CHANNELS_PER_TASK]);
}

// m[position][row of the section][tile] = filters[position] times v[position]. Weights lie in the order of reading:
// section, position, row group.
static void multiply_positions(const prunus_run_state *s, const float *v, float *m, int64_t tiles, int64_t section) {
  const int64_t *r = s->record, vectors = ceil_div(tiles, VL), n = ceil_div(vectors, r[WINOGRAD_TILE]);
  const int64_t before = section * r[WINOGRAD_SECTION_ROWS];
  const int64_t rows = least(r[WINOGRAD_SECTION_ROWS], r[WINOGRAD_ROWS] - before);
  const int32_t *groups = (const int32_t *)at(s, r[WINOGRAD_GROUPS]);
  const int32_t *calls = (const int32_t *)at(s, r[WINOGRAD_CALLS]);
  const int32_t *sections = (const int32_t *)at(s, r[WINOGRAD_SECTIONS]) + section;
  prunus_tile t = {.offsets = (const int32_t *)at(s, r[WINOGRAD_OFFSETS]), .plane = r[WINOGRAD_PITCH]};
  for (int64_t p = 0; p < POSITIONS; p++) {
    t.weights = at(s, r[WINOGRAD_WEIGHTS]) + ((POSITIONS - 1) * before + p * rows) * r[WINOGRAD_CHANNELS];
    for (int64_t i = 0; i < n; i++) {
      const int64_t begin = i * vectors / n, wide = (i + 1) * vectors / n - begin;
      t.x = v + p * r[WINOGRAD_POSITION] + begin * VL, t.out = m + p * r[WINOGRAD_SUMS_POSITION] + begin * VL;
      for (const int32_t *c = calls + sections[0] * CALL_SIZE; c < calls + sections[1] * CALL_SIZE; c += CALL_SIZE)
        prunus_group_kernels[1][c[CALL_HEIGHT]][wide](&t, groups + c[CALL_START], c[CALL_GROUPS]);
    }
  }
}

// 0 <= n < 2 VL floats
INLINE void copy_few(float *out, const float *from, int64_t n) {
  UNROLL for (int64_t part = VL; part; part /= 2) {
    if (n & part) {
      memcpy(out, from, (size_t)part * 4);
      out += part, from += part;
    }
  }
}

// The epilogue of a row's `n` pixels, at most 2 VL. `out` and the tile's residual point at them.
INLINE void finish_pixels(prunus_tile *t, int64_t row, vf even, vf odd, float *out, int64_t n) {
  float part[2 * VL];
  vf pixels[2] = {SHUFFLE(even, odd, LOW_LANES), SHUFFLE(even, odd, HIGH_LANES)};
  t->out = n < 2 * VL ? part : out;
  const int32_t only[1] = {row};
  vf(*rows)[2] = (vf(*)[2])pixels;
  FINISH_ROWS(t, only, rows, 1, 1, 2)
  if (n < 2 * VL) copy_few(out, part, n);
}

// A^T m A of VL tiles, as the columns of its first and second row.
INLINE void output_tiles(const float *m, int64_t position, vf y[2][2]) {
  vf z[4][2];
  UNROLL for (int i = 0; i < 4; i++, m += 4 * position) {
    const vf a = load(m + position), b = load(m + 2 * position);
    z[i][0] = load(m) + a + b, z[i][1] = a - b - load(m + 3 * position);
  }
  UNROLL for (int j = 0; j < 2; j++) y[0][j] = z[0][j] + z[1][j] + z[2][j], y[1][j] = z[1][j] - z[2][j] - z[3][j];
}

// A strip's pixels of one output row's plane, and zeros in the gap after each row of pixels.
static void transform_output(const int64_t *r, prunus_tile *t, int64_t row, const float *m, float *out,
                             const float *residual, prunus_strip strip) {
  const int64_t w = r[WINOGRAD_W], h = r[WINOGRAD_H], across = ceil_div(w, 2), pitch = r[WINOGRAD_OUT_PITCH];
  int64_t y = strip.first / across * 2, tile = strip.first % across;
  for (int64_t left = strip.count, n; left > 0; y += 2, left -= n, m += n, tile = 0) {
    n = least(across - tile, left);
    for (int64_t i = 0; i < n; i += VL) {
      const int64_t x = (tile + i) * 2, wide = least(least(2 * VL, 2 * (n - i)), w - x);
      vf sums[2][2];
      output_tiles(m + i, r[WINOGRAD_SUMS_POSITION], sums);
      for (int64_t j = 0; j < least(2, h - y); j++) {
        const int64_t pixel = (y + j) * pitch + x;
        t->residual = residual ? residual + pixel : NULL;
        finish_pixels(t, row, sums[j][0], sums[j][1], out + pixel, wide);
      }
    }
    for (int64_t line = y; tile + n == across && line < least(y + 2, h - 1); line++)
      for (int64_t i = w; i < pitch; i++) out[line * pitch + i] = 0;
  }
}

static void output_section(const prunus_run_state *s, int64_t image, const float *m, prunus_strip strip,
                           int64_t section) {
  const int64_t *r = s->record, first = section * r[WINOGRAD_SECTION_ROWS];
  const int64_t end = least(first + r[WINOGRAD_SECTION_ROWS], r[WINOGRAD_ROWS]);
  prunus_tile t = layer_tile(s, -1, -1, r[WINOGRAD_BIAS], r[WINOGRAD_SLOPE], r[WINOGRAD_ACTIVATION],
                             r[WINOGRAD_P0], r[WINOGRAD_P1]);
  float *out = at(s, r[WINOGRAD_OUT]) + image * r[WINOGRAD_OUT_BATCH];
  const float *residual = at(s, r[WINOGRAD_RESIDUAL]);
  if (residual) residual += image * r[WINOGRAD_RESIDUAL_BATCH];
  for (int64_t row = first; row < end; row++, m += r[WINOGRAD_PITCH])
    transform_output(r, &t, row, m, out + row * r[WINOGRAD_PLANE],
                     residual ? residual + row * r[WINOGRAD_RESIDUAL_PLANE] : NULL, strip);
}

// A task is a strip through all sections, its input transformed in scratch; or, where "winograd_input" has gone before,
// one section of a strip.
static void winograd_task(void *context, int64_t task, int thread) {
  const prunus_run_state *s = context;
  const int64_t *r = s->record, strips = strips_of(r), n_sections = r[WINOGRAD_N_SECTIONS];
  const float *ready = at(s, r[WINOGRAD_READY]);
  const int64_t each = ready ? n_sections : 1, image = task / (strips * each), rest = task % (strips * each);
  const int64_t number = rest % strips, section = rest / strips;
  const prunus_strip strip = strip_of(r, number);
  float *m = s->scratch + thread * s->scratch_elements;
  m += -((uintptr_t)m / 4) & (64 / 4 - 1);  // to a cache line
  float *own = m + POSITIONS * r[WINOGRAD_SUMS_POSITION];
  if (!ready)
    transform_input(r, at(s, r[WINOGRAD_X]) + image * r[WINOGRAD_X_BATCH], own, strip, 0, r[WINOGRAD_CHANNELS]);
  const float *v = ready ? ready + (image * strips + number) * POSITIONS * r[WINOGRAD_POSITION] : own;
  for (int64_t i = section; i < (ready ? section + 1 : n_sections); i++) {
    multiply_positions(s, v, m, strip.count, i);
    output_section(s, image, m, strip, i);
  }
}

static int64_t winograd_tasks(const int64_t *r) {
  return r[WINOGRAD_IMAGES] * strips_of(r) * (r[WINOGRAD_READY] < 0 ? 1 : r[WINOGRAD_N_SECTIONS]);
}
#endif
