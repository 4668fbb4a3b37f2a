// Records "winograd" and "winograd_input": dense convolution with fewer products. F(2x2, 3x3): each 4x4 tile of input, two
// pixels from the next, gives 2x2 pixels of output by 16 products where the direct way takes 36. F(4x4, 4x4), for 7x7 at
// stride 2, which are 4x4 over phase planes: 49 products where the direct way takes 4 x 49. The positions of the
// transformed tiles are matrix products over channels, which the row-group micro-kernels do with tiles as lanes.
// Source: Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", CVPR 2016, arXiv:1509.09308,
// section 4.1; strips, packing and the points of F(4x4, 4x4), 1, -1, 2, -2, 1/2, -1/2 and infinity, are ours.
#ifndef PRUNUS_WINOGRAD_H
#define PRUNUS_WINOGRAD_H
#include "layer.h"

enum { WIDE_TILE = 4, WIDE_INPUT = 7 };  // pixels along a side of F(4x4, 4x4); of F(2x2, 3x3) 2 and 4

#if VL == 4
#define LOW_LANES 0, 4, 1, 5
#define HIGH_LANES 2, 6, 3, 7
#define NEXT_LANES(c) 1, 2, 3, 4 + (c)
#elif VL == 8
#define LOW_LANES 0, 8, 1, 9, 2, 10, 3, 11
#define HIGH_LANES 4, 12, 5, 13, 6, 14, 7, 15
#define NEXT_LANES(c) 1, 2, 3, 4, 5, 6, 7, 8 + (c)
#else
#define LOW_LANES 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23
#define HIGH_LANES 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31
#define NEXT_LANES(c) 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16 + (c)
#endif

// Tiles are numbered row by row over an image. A strip is a stretch of them that begins on a vector; both records start
// with the same fields, so either may be read here.
typedef struct {
  int64_t first, count;  // tiles
} prunus_strip;

INLINE int64_t tiles_of(const int64_t *r) {
  return ceil_div(r[WINOGRAD_H], r[WINOGRAD_SIDE]) * ceil_div(r[WINOGRAD_W], r[WINOGRAD_SIDE]);
}

INLINE int64_t positions_of(const int64_t *r) { return r[WINOGRAD_SIDE] == WIDE_TILE ? WIDE_INPUT * WIDE_INPUT : 16; }

static int64_t strips_of(const int64_t *r) { return ceil_div(ceil_div(tiles_of(r), VL), r[WINOGRAD_STRIP]); }

static prunus_strip strip_of(const int64_t *r, int64_t strip) {
  const int64_t tiles = tiles_of(r), vectors = ceil_div(tiles, VL);
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

// B^T of F(4, 4) times a column of seven: per pair of points p and -p, odd and even parts of (x + p) times the factors of
// the other pairs; then infinity.
INLINE void combine_seven(const vf d[WIDE_INPUT], vf v[WIDE_INPUT]) {
  const float points[3] = {1, 2, 0.5f}, sums[3] = {4.25f, 1.25f, 5}, products[3] = {1, 0.25f, 4};
  UNROLL for (int i = 0; i < 3; i++) {
    const vf odd = d[5] - d[3] * sums[i] + d[1] * products[i];
    const vf even = (d[4] - d[2] * sums[i] + d[0] * products[i]) * points[i];
    v[2 * i] = odd + even, v[2 * i + 1] = odd - even;
  }
  v[6] = (d[6] - d[0]) + (d[2] - d[4]) * 5.25f;
}

// B^T d B of VL tiles four pixels apart, likewise: five vectors of pixels are four columns of tiles, and what follows the
// last tile's.
INLINE void input_wide_tiles(const float *const row[WIDE_INPUT], int64_t column, float *v, int64_t position) {
  vf rows[WIDE_TILE + 1][WIDE_INPUT];
  UNROLL for (int q = 0; q <= WIDE_TILE; q++) {
    vf d[WIDE_INPUT];
    UNROLL for (int i = 0; i < WIDE_INPUT; i++) d[i] = load(row[i] + column + q * VL);
    combine_seven(d, rows[q]);
  }
  UNROLL for (int i = 0; i < WIDE_INPUT; i++, v += WIDE_INPUT * position) {
    const vf e0 = SHUFFLE(rows[0][i], rows[1][i], EVEN_LANES), o0 = SHUFFLE(rows[0][i], rows[1][i], ODD_LANES);
    const vf e1 = SHUFFLE(rows[2][i], rows[3][i], EVEN_LANES), o1 = SHUFFLE(rows[2][i], rows[3][i], ODD_LANES);
    const vf next = rows[4][i];
    vf c[WIDE_INPUT], made[WIDE_INPUT];
    c[0] = SHUFFLE(e0, e1, EVEN_LANES), c[2] = SHUFFLE(e0, e1, ODD_LANES);
    c[1] = SHUFFLE(o0, o1, EVEN_LANES), c[3] = SHUFFLE(o0, o1, ODD_LANES);
    c[4] = SHUFFLE(c[0], next, NEXT_LANES(0)), c[5] = SHUFFLE(c[1], next, NEXT_LANES(1));
    c[6] = SHUFFLE(c[2], next, NEXT_LANES(2));
    combine_seven(c, made);
    UNROLL for (int j = 0; j < WIDE_INPUT; j++) store(v + j * position, made[j]);
  }
}

// Channels [from, to) of a strip, to v[position][channel][tile]. Lanes behind a row's last tile are overwritten by the
// next row's, or lie in the space that a pitch has to spare. The last rows of a tile that hangs over the image count
// for nothing and may not exist: the last one that does is read in their place.
INLINE void transform_sides(const int side, const int64_t *r, const float *x, float *v, prunus_strip strip,
                            int64_t from, int64_t to) {
  const int reach = side == WIDE_TILE ? WIDE_INPUT : 4;
  const int64_t across = ceil_div(r[WINOGRAD_W], side), pitch = r[WINOGRAD_X_PITCH];
  x -= r[WINOGRAD_TOP] * pitch + r[WINOGRAD_LEFT];
  for (int64_t c = from; c < to; c++) {
    float *out = v + c * r[WINOGRAD_PITCH];
    int64_t y = strip.first / across * side, tile = strip.first % across;
    for (int64_t left = strip.count; left > 0; y += side, tile = 0) {
      const int64_t n = least(across - tile, left), last = r[WINOGRAD_H] - 1 - y + reach - side;
      const float *p = x + c * r[WINOGRAD_X_PLANE] + y * pitch + tile * side, *row[WIDE_INPUT];
      UNROLL for (int i = 0; i < reach; i++) row[i] = p + least(i, last) * pitch;
      for (int64_t i = 0; i < n; i += VL) {
        if (side == WIDE_TILE) {
          input_wide_tiles(row, side * i, out + i, r[WINOGRAD_POSITION]);
        } else {
          input_tiles(row, side * i, out + i, r[WINOGRAD_POSITION]);
        }
      }
      out += n, left -= n;
    }
  }
}

static void transform_input(const int64_t *r, const float *x, float *v, prunus_strip strip, int64_t from, int64_t to) {
  if (r[WINOGRAD_SIDE] == WIDE_TILE) {
    transform_sides(WIDE_TILE, r, x, v, strip, from, to);
  } else {
    transform_sides(2, r, x, v, strip, from, to);
  }
}

static void winograd_input_task(void *context, int64_t task, int thread) {
  (void)thread;
  const prunus_run_state *s = context;
  const int64_t *r = s->record, strips = strips_of(r), per_task = r[WINOGRAD_INPUT_CHANNELS_PER_TASK];
  const int64_t blocks = ceil_div(r[WINOGRAD_CHANNELS], per_task), place = task / blocks;
  const int64_t from = task % blocks * per_task;
  const float *x = at(s, r[WINOGRAD_X]) + place / strips * r[WINOGRAD_X_BATCH];
  float *v = at(s, r[WINOGRAD_INPUT_OUT]) + place * positions_of(r) * r[WINOGRAD_POSITION];
  transform_input(r, x, v, strip_of(r, place % strips), from, least(from + per_task, r[WINOGRAD_CHANNELS]));
}

static int64_t winograd_input_tasks(const int64_t *r) {
  return r[WINOGRAD_IMAGES] * strips_of(r) * ceil_div(r[WINOGRAD_CHANNELS], r[WINOGRAD_INPUT_CHANNELS_PER_TASK]);
}

// m[position][row of the section][tile] = filters[position] times v[position]. Weights lie in the order of reading:
// section, position, row group.
static void multiply_positions(const prunus_run_state *s, const float *v, float *m, int64_t tiles, int64_t section) {
  const int64_t *r = s->record, vectors = ceil_div(tiles, VL), n = ceil_div(vectors, r[WINOGRAD_TILE]);
  const int64_t positions = positions_of(r);
  const int64_t before = section * r[WINOGRAD_SECTION_ROWS];
  const int64_t rows = least(r[WINOGRAD_SECTION_ROWS], r[WINOGRAD_ROWS] - before);
  const int32_t *groups = (const int32_t *)at(s, r[WINOGRAD_GROUPS]);
  const int32_t *calls = (const int32_t *)at(s, r[WINOGRAD_CALLS]);
  const int32_t *sections = (const int32_t *)at(s, r[WINOGRAD_SECTIONS]) + section;
  prunus_tile t = {.offsets = (const int32_t *)at(s, r[WINOGRAD_OFFSETS]), .plane = r[WINOGRAD_PITCH]};
  for (int64_t p = 0; p < positions; p++) {
    t.weights = at(s, r[WINOGRAD_WEIGHTS]) + ((positions - 1) * before + p * rows) * r[WINOGRAD_CHANNELS];
    for (int64_t i = 0; i < n; i++) {
      const int64_t begin = i * vectors / n, wide = (i + 1) * vectors / n - begin;
      t.x = v + p * r[WINOGRAD_POSITION] + begin * VL, t.out = m + p * r[WINOGRAD_SUMS_POSITION] + begin * VL;
      for (const int32_t *c = calls + sections[0] * CALL_SIZE; c < calls + sections[1] * CALL_SIZE; c += CALL_SIZE)
        prunus_group_kernels[1][c[CALL_HEIGHT]][wide](&t, groups + c[CALL_START], c[CALL_GROUPS]);
    }
  }
}

// 0 <= n < 2 * most floats; most: a power of 2
INLINE void copy_few(float *out, const float *from, int64_t n, int64_t most) {
  UNROLL for (int64_t part = most; part; part /= 2) {
    if (n & part) {
      memcpy(out, from, (size_t)part * 4);
      out += part, from += part;
    }
  }
}

// The epilogue of a row's `n` pixels, at most V * VL: `pixels` in order. `out` and the tile's residual point at them.
#define FINISH_PIXELS(t, row, pixels, out_at, n, V)                            \
  {                                                                            \
    float part[(V) * VL];                                                      \
    (t)->out = (n) < (V) * VL ? part : (out_at);                               \
    const int32_t only[1] = {row};                                             \
    vf(*rows)[V] = (vf(*)[V])(pixels);                                         \
    FINISH_ROWS(t, only, rows, 1, 1, V)                                        \
    if ((n) < (V) * VL) copy_few(out_at, part, n, (V) * VL / 2);               \
  }

INLINE void finish_pixels(prunus_tile *t, int32_t row, vf even, vf odd, float *out, int64_t n) {
  vf pixels[2] = {SHUFFLE(even, odd, LOW_LANES), SHUFFLE(even, odd, HIGH_LANES)};
  FINISH_PIXELS(t, row, pixels, out, n, 2)
}

// Of four columns of pixels.
INLINE void finish_wide_pixels(prunus_tile *t, int32_t row, const vf c[WIDE_TILE], float *out, int64_t n) {
  const vf even[2] = {SHUFFLE(c[0], c[2], LOW_LANES), SHUFFLE(c[0], c[2], HIGH_LANES)};
  const vf odd[2] = {SHUFFLE(c[1], c[3], LOW_LANES), SHUFFLE(c[1], c[3], HIGH_LANES)};
  vf pixels[WIDE_TILE] = {SHUFFLE(even[0], odd[0], LOW_LANES), SHUFFLE(even[0], odd[0], HIGH_LANES),
                          SHUFFLE(even[1], odd[1], LOW_LANES), SHUFFLE(even[1], odd[1], HIGH_LANES)};
  FINISH_PIXELS(t, row, pixels, out, n, WIDE_TILE)
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

// A^T of F(4, 4) times a column of seven products.
INLINE void spread_seven(const vf m[WIDE_INPUT], vf y[WIDE_TILE]) {
  const vf s1 = m[0] + m[1], d1 = m[0] - m[1], s2 = m[2] + m[3], d2 = m[2] - m[3], s3 = m[4] + m[5], d3 = m[4] - m[5];
  y[0] = s1 + s2 + s3, y[1] = d1 + d2 * 2.0f + d3 * 0.5f;
  y[2] = s1 + s2 * 4.0f + s3 * 0.25f, y[3] = (d1 + m[6]) + d2 * 8.0f + d3 * 0.125f;
}

// A^T m A of VL tiles, as rows of columns.
INLINE void output_wide_tiles(const float *m, int64_t position, vf y[WIDE_TILE][WIDE_TILE]) {
  vf z[WIDE_INPUT][WIDE_TILE];  // per row of positions
  UNROLL for (int i = 0; i < WIDE_INPUT; i++, m += WIDE_INPUT * position) {
    vf products[WIDE_INPUT];
    UNROLL for (int j = 0; j < WIDE_INPUT; j++) products[j] = load(m + j * position);
    spread_seven(products, z[i]);
  }
  UNROLL for (int j = 0; j < WIDE_TILE; j++) {
    vf column[WIDE_INPUT], made[WIDE_TILE];
    UNROLL for (int i = 0; i < WIDE_INPUT; i++) column[i] = z[i][j];
    spread_seven(column, made);
    UNROLL for (int i = 0; i < WIDE_TILE; i++) y[i][j] = made[i];
  }
}

// Where the next row's pixels go: planes lie far apart, where no hardware prefetcher looks.
INLINE void expect_pixels(const float *out, int64_t pitch, int64_t lines, int64_t wide) {
  for (int64_t j = 0; j < lines; j++)
    for (int64_t i = 0; i < wide; i += 16) __builtin_prefetch(out + j * pitch + i, 1);
}

// A strip's pixels of one output row's plane, and zeros in the gap after each row of pixels.
INLINE void output_sides(const int side, const int64_t *r, prunus_tile *t, int32_t row, const float *m, float *out,
                         const float *residual, prunus_strip strip) {
  const int64_t w = r[WINOGRAD_W], h = r[WINOGRAD_H], across = ceil_div(w, side), pitch = r[WINOGRAD_OUT_PITCH];
  int64_t y = strip.first / across * side, tile = strip.first % across;
  for (int64_t left = strip.count, n; left > 0; y += side, left -= n, m += n, tile = 0) {
    n = least(across - tile, left);
    for (int64_t i = 0; i < n; i += VL) {
      const int64_t x = (tile + i) * side, wide = least(least(side * VL, side * (n - i)), w - x);
      vf sums[WIDE_TILE][WIDE_TILE], two[2][2];
      if (side == WIDE_TILE) {
        output_wide_tiles(m + i, r[WINOGRAD_SUMS_POSITION], sums);
      } else {
        output_tiles(m + i, r[WINOGRAD_SUMS_POSITION], two);
      }
      const int64_t lines = least(side, h - y);
      if (side == WIDE_TILE) expect_pixels(out + r[WINOGRAD_PLANE] + y * pitch + x, pitch, lines, wide);
      UNROLL for (int j = 0; j < side; j++) {
        if (j >= lines) break;
        const int64_t pixel = (y + j) * pitch + x;
        t->residual = residual ? residual + pixel : NULL;
        if (side == WIDE_TILE) {
          finish_wide_pixels(t, row, sums[j], out + pixel, wide);
        } else {
          finish_pixels(t, row, two[j][0], two[j][1], out + pixel, wide);
        }
      }
    }
    for (int64_t line = y; tile + n == across && line < least(y + side, h - 1); line++)
      for (int64_t i = w; i < pitch; i++) out[line * pitch + i] = 0;
  }
}

static void transform_output(const int64_t *r, prunus_tile *t, int32_t row, const float *m, float *out,
                             const float *residual, prunus_strip strip) {
  if (r[WINOGRAD_SIDE] == WIDE_TILE) {
    output_sides(WIDE_TILE, r, t, row, m, out, residual, strip);
  } else {
    output_sides(2, r, t, row, m, out, residual, strip);
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
    transform_output(r, &t, (int32_t)row, m, out + row * r[WINOGRAD_PLANE],
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
  float *own = m + positions_of(r) * r[WINOGRAD_SUMS_POSITION];
  if (!ready)
    transform_input(r, at(s, r[WINOGRAD_X]) + image * r[WINOGRAD_X_BATCH], own, strip, 0, r[WINOGRAD_CHANNELS]);
  const float *v = ready ? ready + (image * strips + number) * positions_of(r) * r[WINOGRAD_POSITION] : own;
  for (int64_t i = section; i < (ready ? section + 1 : n_sections); i++) {
    multiply_positions(s, v, m, strip.count, i);
    output_section(s, image, m, strip, i);
  }
}

static int64_t winograd_tasks(const int64_t *r) {
  return r[WINOGRAD_IMAGES] * strips_of(r) * (r[WINOGRAD_READY] < 0 ? 1 : r[WINOGRAD_N_SECTIONS]);
}
#endif
