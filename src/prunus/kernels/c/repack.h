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

static void pack_task(void *context, int64_t task, int thread) {
  (void)thread;
  const prunus_run_state *s = context;
  const int64_t *r = s->record, planes = ceil_div(r[PACK_CHANNELS], r[PACK_PACK]);
  const int64_t image = task / planes, plane = task % planes, first = plane * r[PACK_PACK];
  const float *x = at(s, r[PACK_X]) + image * r[PACK_X_BATCH] + first * r[PACK_X_PLANE];
  uint32_t *out = (uint32_t *)at(s, r[PACK_OUT]) + image * r[PACK_OUT_BATCH] + plane * r[PACK_OUT_PLANE];
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

INLINE vi larger_words(vi a, vi b, int64_t pack) {
  if (pack == QUADS) {
    return (vi)most_bytes((vb)a, (vb)b);
  }
  const vf low = max_of(low_half(a), low_half(b)), high = max_of(high_half(a), high_half(b));
  return (vi)((vu)low >> 16) | (vi)((vu)high & 0xffff0000u);
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

// Maximum over windows: the rows of a window first, into a row with padding that never wins, then its columns.
static void packed_pool_task(void *context, int64_t task, int thread) {
  const prunus_run_state *s = context;
  const int64_t *r = s->record, image = task / r[PACKED_POOL_PLANES], plane = task % r[PACKED_POOL_PLANES];
  const int64_t w = r[PACKED_POOL_W], pack = r[PACKED_POOL_PACK], left = r[PACKED_POOL_LEFT], sw = r[PACKED_POOL_SW];
  const int32_t *x = (const int32_t *)at(s, r[PACKED_POOL_X]) + image * r[PACKED_POOL_X_BATCH] + plane * r[PACKED_POOL_X_PLANE];
  int32_t *out = (int32_t *)at(s, r[PACKED_POOL_OUT]) + image * r[PACKED_POOL_OUT_BATCH] + plane * r[PACKED_POOL_OUT_PLANE];
  const int32_t never = pack == QUADS ? 0 : (int32_t)0xff80ff80u;  // minus infinity twice
  int32_t *padded_row = (int32_t *)(s->scratch + thread * s->scratch_elements), *column = padded_row + left;
  const int64_t ow = r[PACKED_POOL_OW], kw = r[PACKED_POOL_KW], dw = r[PACKED_POOL_DW];
  for (int64_t i = 0; i < r[PACKED_POOL_REACH]; i++) padded_row[i] = never;
  for (int64_t oy = 0; oy < r[PACKED_POOL_OH]; oy++, out += r[PACKED_POOL_OUT_PITCH]) {
    int begun = 0;
    for (int64_t ky = 0; ky < r[PACKED_POOL_KH]; ky++) {
      const int64_t y = oy * r[PACKED_POOL_SH] + ky * r[PACKED_POOL_DH] - r[PACKED_POOL_TOP];
      if (y < 0 || y >= r[PACKED_POOL_H]) continue;
      const int32_t *row = x + y * r[PACKED_POOL_X_PITCH];
      int64_t i = 0;
      if (!begun) {
        memcpy(column, row, (size_t)w * 4);
      } else {
        for (; i + VL <= w; i += VL) store_int(column + i, larger_words(load_int(column + i), load_int(row + i), pack));
        for (; i < w; i++) column[i] = (int32_t)larger_word((uint32_t)column[i], (uint32_t)row[i], pack);
      }
      begun = 1;
    }
    int64_t ox = 0;
    for (; sw <= 2 && ox + VL <= ow; ox += VL) {
      const int32_t *from = padded_row + ox * sw;
      vi best = splat_int(never);
      for (int64_t kx = 0; kx < kw; kx++) {
        const int32_t *p = from + kx * dw;
        best = larger_words(best, sw == 1 ? load_int(p) : even_words(load_int(p), load_int(p + VL)), pack);
      }
      store_int(out + ox, best);
    }
    for (; ox < ow; ox++) {
      uint32_t best = (uint32_t)never;
      for (int64_t kx = 0; kx < kw; kx++) best = larger_word(best, (uint32_t)padded_row[ox * sw + kx * dw], pack);
      out[ox] = (int32_t)best;
    }
  }
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
  vf acc[PAIRS] = {{0}};
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
