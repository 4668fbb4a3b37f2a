// Records "pack", "unpack", "packed_pool" and "packed_depthwise": what else is done with packed channels.
#ifndef PRUNUS_REPACK_H
#define PRUNUS_REPACK_H
#include "packed.h"
#include "run.h"

INLINE uint32_t bits_of(float a) {
  union { float f; uint32_t i; } u = {.f = a};
  return u.i;
}
INLINE float float_of(uint32_t bits) {
  union { uint32_t i; float f; } u = {.i = bits};
  return u.f;
}
// As words.h has them for vectors.
INLINE uint32_t bf16_bits(float a) {
  const uint32_t bits = bits_of(a);
  return a != a ? 0x7fc0u : (bits + 0x7fffu + (bits >> 16 & 1)) >> 16;
}
INLINE uint32_t byte_bits(float a, float scale, float zero) {
  const float q = a * scale + zero, low = q > 0.0f ? q : 0.0f, clipped = low < 255.0f ? low : 255.0f;
  return bits_of(clipped + 12582912.0f) & 255u;
}

// One row of words from up to `channels` rows of numbers, `x_plane` apart; what is missing is packed as zero.
static void pack_row(const int64_t *r, const float *x, uint32_t *out, int64_t present) {
  const int64_t w = r[PACK_W], step = r[PACK_X_STEP], channels = r[PACK_PACK];
  const float scale = from_bits(r[PACK_SCALE]), zero = from_bits(r[PACK_ZERO]);
  const uint32_t nothing = channels == QUADS ? byte_bits(0, scale, zero) : 0;
  for (int64_t c = 0; c < channels; c++, x += r[PACK_X_PLANE]) {
    const int shift = (int)(c * 32 / channels);
    if (c >= present) {
      for (int64_t i = 0; i < w; i++) out[i] = (c ? out[i] : 0) | nothing << shift;
    } else if (channels == QUADS && step == 1) {
      for (int64_t i = 0; i < w; i++) out[i] = (c ? out[i] : 0) | byte_bits(x[i], scale, zero) << shift;
    } else if (channels == QUADS) {
      for (int64_t i = 0; i < w; i++) out[i] = (c ? out[i] : 0) | byte_bits(x[i * step], scale, zero) << shift;
    } else {
      for (int64_t i = 0; i < w; i++) out[i] = (c ? out[i] : 0) | bf16_bits(x[i * step]) << shift;
    }
  }
}

// A vector of channels, side by side, into as many whole words.
static void pack_channels(const int64_t *r, const float *x, uint32_t *out, int64_t words) {
  const float scale = from_bits(r[PACK_SCALE]), zero = from_bits(r[PACK_ZERO]);
  for (int64_t i = 0; i < words && r[PACK_PACK] == QUADS; i++) {
    uint32_t word = 0;
    UNROLL for (int c = 0; c < QUADS; c++) word |= byte_bits(x[QUADS * i + c], scale, zero) << (8 * c);
    out[i] = word;
  }
  for (int64_t i = 0; i < words && r[PACK_PACK] == PAIRS; i++) out[i] = bf16_bits(x[2 * i]) | bf16_bits(x[2 * i + 1]) << 16;
}

// A task is a plane of words, or all words of an image that are one row: of a vector of channels.
static int64_t pack_planes(const int64_t *r) {
  const int in_a_row = r[PACK_H] == 1 && r[PACK_W] == 1 && r[PACK_X_PLANE] == 1 && r[PACK_OUT_PLANE] == 1;
  return in_a_row && r[PACK_CHANNELS] % r[PACK_PACK] == 0 ? 1 : ceil_div(r[PACK_CHANNELS], r[PACK_PACK]);
}

static void pack_task(void *context, int64_t task, int thread) {
  (void)thread;
  const prunus_run_state *s = context;
  const int64_t *r = s->record, planes = pack_planes(r);
  const int64_t image = task / planes, plane = task % planes, first = plane * r[PACK_PACK];
  const float *x = at(s, r[PACK_X]) + image * r[PACK_X_BATCH] + first * r[PACK_X_PLANE];
  uint32_t *out = (uint32_t *)at(s, r[PACK_OUT]) + image * r[PACK_OUT_BATCH] + plane * r[PACK_OUT_PLANE];
  if (planes == 1 && r[PACK_CHANNELS] > r[PACK_PACK]) {
    pack_channels(r, x, out, r[PACK_CHANNELS] / r[PACK_PACK]);
    return;
  }
  for (int64_t y = 0; y < r[PACK_H]; y++)
    pack_row(r, x + y * r[PACK_X_PITCH], out + y * r[PACK_OUT_PITCH], r[PACK_CHANNELS] - first);
}

static void unpack_task(void *context, int64_t task, int thread) {
  (void)thread;
  const prunus_run_state *s = context;
  const int64_t *r = s->record, image = task / r[UNPACK_CHANNELS], channel = task % r[UNPACK_CHANNELS];
  const int64_t pack = r[UNPACK_PACK], plane = channel / pack, shift = channel % pack * (32 / pack);
  const float scale = from_bits(r[UNPACK_SCALE]), zero = from_bits(r[UNPACK_ZERO]);
  const uint32_t *x = (const uint32_t *)at(s, r[UNPACK_X]) + image * r[UNPACK_X_BATCH] + plane * r[UNPACK_X_PLANE];
  float *out = at(s, r[UNPACK_OUT]) + image * r[UNPACK_OUT_BATCH] + channel * r[UNPACK_OUT_PLANE];
  for (int64_t y = 0; y < r[UNPACK_H]; y++, x += r[UNPACK_X_PITCH], out += r[UNPACK_OUT_PITCH])
    for (int64_t i = 0; i < r[UNPACK_W]; i++)
      out[i * r[UNPACK_OUT_STEP]] = pack == QUADS ? ((float)(x[i] >> shift & 255) - zero) * scale
                                                  : float_of(x[i] >> shift << 16);
}

INLINE uint32_t larger_word(uint32_t a, uint32_t b, int64_t pack) {
  if (pack == QUADS) {
    uint32_t word = 0;
    UNROLL for (int i = 0; i < 32; i += 8) {
      const uint32_t p = a >> i & 255, q = b >> i & 255;
      word |= (p > q ? p : q) << i;
    }
    return word;
  }
  const float low_a = float_of(a << 16), low_b = float_of(b << 16);
  const float high_a = float_of(a & 0xffff0000u), high_b = float_of(b & 0xffff0000u);
  return bits_of(low_a < low_b ? low_b : low_a) >> 16 | (bits_of(high_a < high_b ? high_b : high_a) & 0xffff0000u);
}

// out[i] = the largest of x[i * stride + k * step], k < taps, of `n`; stride 1 or 2 in vectors, the last of which overlaps
// the one before. Two vectors may be read from the last element on where the stride is 2.
INLINE void merge_words_of(int32_t *out, const int32_t *x, int64_t n, int64_t taps, int64_t step, int64_t stride, int64_t pack) {
  for (int64_t i = 0; n >= VL && stride <= 2 && i < n; i += VL) {
    const int64_t from = least(i, n - VL);
    const int32_t *p = x + from * stride;
    vi best = stride == 1 ? load_int(p) : even_words(load_int(p), load_int(p + VL));
    vf low = low_half(best), high = high_half(best);
    for (int64_t k = 1; k < taps; k++) {
      p += step;
      const vi other = stride == 1 ? load_int(p) : even_words(load_int(p), load_int(p + VL));
      if (pack == QUADS) best = (vi)most_bytes((vb)best, (vb)other);
      else low = max_of(low, low_half(other)), high = max_of(high, high_half(other));
    }
    store_int(out + from, pack == QUADS ? best : (vi)((vu)low >> 16) | (vi)high);
  }
  if (n >= VL && stride <= 2) return;
  for (int64_t i = 0; i < n; i++) {
    uint32_t best = (uint32_t)x[i * stride];
    for (int64_t k = 1; k < taps; k++) best = larger_word(best, (uint32_t)x[i * stride + k * step], pack);
    out[i] = (int32_t)best;
  }
}

// The windows that networks have, with loops that the compiler can unroll.
INLINE void merge_words(int32_t *out, const int32_t *x, int64_t n, int64_t taps, int64_t step, int64_t stride, int64_t pack) {
  if (taps == 2) merge_words_of(out, x, n, 2, step, stride, pack);
  else if (taps == 3) merge_words_of(out, x, n, 3, step, stride, pack);
  else merge_words_of(out, x, n, taps, step, stride, pack);
}

// Rows of the window are merged first, into a line whose padding is there already and never wins.
INLINE void packed_pool_rows(const int64_t *r, const int32_t *x, int32_t *line, int64_t oy, int32_t never, int64_t pack) {
  const int64_t first = oy * r[PACKED_POOL_SH] - r[PACKED_POOL_TOP], dh = r[PACKED_POOL_DH], pitch = r[PACKED_POOL_X_PITCH];
  const int64_t from = first < 0 ? ceil_div(-first, dh) : 0, w = r[PACKED_POOL_W];
  const int64_t taps = least(r[PACKED_POOL_KH], ceil_div(r[PACKED_POOL_H] - first, dh)) - from;
  if (taps > 0) merge_words(line, x + (first + from * dh) * pitch, w, taps, dh * pitch, 1, pack);
  else for (int64_t i = 0; i < w; i++) line[i] = never;
}

// Then its columns. Two lines in turn: what has just been stored can't be loaded at once at other bounds.
INLINE void packed_pool_plane(const int64_t *r, const int32_t *x, int32_t *out, int32_t *lines, int64_t pack) {
  const int32_t never = pack == QUADS ? 0 : (int32_t)0xff80ff80u;  // minus infinity twice
  const int64_t reach = r[PACKED_POOL_REACH], oh = r[PACKED_POOL_OH], ow = r[PACKED_POOL_OW], left = r[PACKED_POOL_LEFT];
  const int64_t kw = r[PACKED_POOL_KW], dw = r[PACKED_POOL_DW], sw = r[PACKED_POOL_SW];
  for (int64_t i = 0; i < 2 * reach; i++) lines[i] = never;
  for (int64_t oy = -1; oy < oh; oy++) {
    if (oy + 1 < oh) packed_pool_rows(r, x, lines + (oy + 1) % 2 * reach + left, oy + 1, never, pack);
    if (oy < 0) continue;
    const int32_t *line = lines + oy % 2 * reach;
    if (sw == 1) merge_words(out, line, ow, kw, dw, 1, pack);
    else if (sw == 2) merge_words(out, line, ow, kw, dw, 2, pack);
    else merge_words_of(out, line, ow, kw, dw, sw, pack);
    out += r[PACKED_POOL_OUT_PITCH];
  }
}

static void packed_pool_task(void *context, int64_t task, int thread) {
  const prunus_run_state *s = context;
  const int64_t *r = s->record, image = task / r[PACKED_POOL_PLANES], plane = task % r[PACKED_POOL_PLANES];
  const int32_t *x = (const int32_t *)at(s, r[PACKED_POOL_X]) + image * r[PACKED_POOL_X_BATCH] + plane * r[PACKED_POOL_X_PLANE];
  int32_t *out = (int32_t *)at(s, r[PACKED_POOL_OUT]) + image * r[PACKED_POOL_OUT_BATCH] + plane * r[PACKED_POOL_OUT_PLANE];
  int32_t *lines = (int32_t *)(s->scratch + thread * s->scratch_elements);
  if (r[PACKED_POOL_PACK] == QUADS) packed_pool_plane(r, x, out, lines, QUADS);
  else packed_pool_plane(r, x, out, lines, PAIRS);
}

// Mean of each plane, as float32.
static void packed_mean_task(void *context, int64_t task, int thread) {
  (void)thread;
  const prunus_run_state *s = context;
  const int64_t *r = s->record, pack = r[PACKED_MEAN_PACK], channels = r[PACKED_MEAN_CHANNELS];
  const int64_t planes = ceil_div(channels, pack), image = task / planes, plane = task % planes;
  const int32_t *x = (const int32_t *)at(s, r[PACKED_MEAN_X]) + image * r[PACKED_MEAN_X_BATCH] + plane * r[PACKED_MEAN_X_PLANE];
  float *out = at(s, r[PACKED_MEAN_OUT]) + image * r[PACKED_MEAN_OUT_BATCH];
  const float scale = from_bits(r[PACKED_MEAN_SCALE]), zero = from_bits(r[PACKED_MEAN_ZERO]);
  const int64_t h = r[PACKED_MEAN_H], w = r[PACKED_MEAN_W];
  int64_t steps[QUADS] = {0};
  double real[PAIRS] = {0};
  for (int64_t y = 0; y < h; y++, x += r[PACKED_MEAN_X_PITCH])
    for (int64_t i = 0; i < w; i++) {
      const uint32_t word = (uint32_t)x[i];
      if (pack == QUADS) {
        UNROLL for (int c = 0; c < QUADS; c++) steps[c] += word >> (8 * c) & 255;
      } else {
        real[0] += (double)float_of(word << 16), real[1] += (double)float_of(word & 0xffff0000u);
      }
    }
  for (int64_t c = 0; c < pack && plane * pack + c < channels; c++) {
    const double mean = (pack == QUADS ? (double)steps[c] : real[c % PAIRS]) / (double)(h * w);
    out[plane * pack + c] = pack == QUADS ? (float)(mean - (double)zero) * scale : (float)mean;
  }
}

// One filter per channel. Weights per plane and tap: of quads four int32, each an int8 in the half of the lane where
// its channel's byte lies once even and odd bytes are apart; of pairs two floats.
INLINE void depthwise_quads(const prunus_tile *t, const int32_t *offsets, int64_t taps, int32_t channel, int64_t from) {
  const int32_t *w = (const int32_t *)t->weights + channel * taps, *x = (const int32_t *)t->x + from;
  vi acc[QUADS] = {{0}};
  for (int64_t k = 0; k < taps; k++, w += QUADS) {
    const vi in = load_int(x + offsets[k]), even = in & 0x00ff00ff, odd = (vi)((vu)in >> 8) & 0x00ff00ff;
    acc[0] = madd_halves(acc[0], even, splat_int(w[0]));
    acc[1] = madd_halves(acc[1], odd, splat_int(w[1]));
    acc[2] = madd_halves(acc[2], even, splat_int(w[2]));
    acc[3] = madd_halves(acc[3], odd, splat_int(w[3]));
  }
#define DEPTHWISE_SUM(i, v) acc[i]
  FINISH_QUADS(t, channel, 1, from, DEPTHWISE_SUM)
}

INLINE void depthwise_pairs(const prunus_tile *t, const int32_t *offsets, int64_t taps, int32_t channel, int64_t from) {
  const float *w = t->weights + channel * taps;
  const int32_t *x = (const int32_t *)t->x + from;
  vf acc[PAIRS] = {splat(t->bias[channel]), splat(t->bias[channel + 1])};
  for (int64_t k = 0; k < taps; k++, w += PAIRS) {
    const vi in = load_int(x + offsets[k]);
    acc[0] += low_half(in) * splat(w[0]), acc[1] += high_half(in) * splat(w[1]);
  }
  FINISH_PAIRS(t, channel, 1, from, DEPTHWISE_SUM)
#undef DEPTHWISE_SUM
}

static void packed_depthwise_task(void *context, int64_t task, int thread) {
  (void)thread;
  const prunus_run_state *s = context;
  const int64_t *r = s->record, planes = r[PACKED_DEPTHWISE_PLANES], image = task / planes, plane = task % planes;
  const int32_t *offsets = (const int32_t *)at(s, r[PACKED_DEPTHWISE_OFFSETS]);
  prunus_tile t = {.weights = at(s, r[PACKED_DEPTHWISE_WEIGHTS]), .bias = at(s, r[PACKED_DEPTHWISE_BIAS]),
                   .slope = at(s, r[PACKED_DEPTHWISE_SLOPE]), .activation = (int32_t)r[PACKED_DEPTHWISE_ACTIVATION],
                   .p0 = from_bits(r[PACKED_DEPTHWISE_P0]), .p1 = from_bits(r[PACKED_DEPTHWISE_P1]),
                   .plane = r[PACKED_DEPTHWISE_PLANE], .residual_plane = r[PACKED_DEPTHWISE_RESIDUAL_PLANE]};
  READ_PACKED(t, s, r, PACKED_DEPTHWISE);
  t.x = at(s, r[PACKED_DEPTHWISE_X]) + image * r[PACKED_DEPTHWISE_X_BATCH] + plane * r[PACKED_DEPTHWISE_X_PLANE];
  t.out = at(s, r[PACKED_DEPTHWISE_OUT]) + image * r[PACKED_DEPTHWISE_OUT_BATCH];
  t.mask = (const int32_t *)at(s, r[PACKED_DEPTHWISE_MASK]);
  const float *residual = at(s, r[PACKED_DEPTHWISE_RESIDUAL]);
  t.residual = residual ? residual + image * r[PACKED_DEPTHWISE_RESIDUAL_BATCH] : NULL;
  const int64_t taps = r[PACKED_DEPTHWISE_TAPS];
  for (int64_t v = 0; v < r[PACKED_DEPTHWISE_VECTORS]; v++)
    if (r[PACKED_DEPTHWISE_PACK] == QUADS) depthwise_quads(&t, offsets, taps, (int32_t)plane * QUADS, v * VL);
    else depthwise_pairs(&t, offsets, taps, (int32_t)plane * PAIRS, v * VL);
}
#endif
