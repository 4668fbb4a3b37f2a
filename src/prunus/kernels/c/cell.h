// Record "cell": what a recurrent layer does between two products: from the sums of its gates, biases included, to the
// new state. The state lies where the next product reads it, and is changed in place.
//
//   rnn        h = f(s)
//   gru        z, r = f(s0), f(s1); h = (1 - z) g(s2 + r s3) + z h       linear before reset
//   gru_reset  gated = f(s1) h                                           else: first this, then a product of it, and
//   gru_after  z = f(s0); h = (1 - z) g(gated) + z h                     this; `gated` has s2 in it by then
//   lstm       i, o, f = f(s0), f(s1), f(s2); c = f c + i g(s3); h = o e(c)
//
// `clip` bounds what goes into f and g; not c, as in onnxruntime.
#ifndef PRUNUS_CELL_H
#define PRUNUS_CELL_H
#include "activation.h"
#include "run.h"

enum { CELL_CHUNK = 256 };  // elements of the state per task

typedef struct {
  int32_t kind;
  float p0, p1, clip;
} prunus_gate;

__attribute__((noinline)) static vf gate(prunus_gate g, vf a) {
  a = min_of(max_of(a, splat(-g.clip)), splat(g.clip));
  if (g.kind == ACT_SIGMOID) return sigmoid_of(a);
  if (g.kind == ACT_TANH) return tanh_of(a);
  return activate(g.kind, a, g.p0, g.p1);
}

// What one step has to do with one vector of the state. `out` and `c` are where they don't apply NULL.
typedef struct {
  prunus_gate f, g, e;
  const float *sums;
  float *gated, *state, *c, *out;
  int64_t h;
  int32_t function, input_forget, usual;
} prunus_cell;

// e^(factor a) for exponents from -28 to 28, beyond which it stays: products of three such sums don't overflow. Relative
// error below 2e-7, and what a * factor / ln 2 is rounded by.
#if defined(__AVX512F__) && VB == 64
// 2^floor(y) * 2^r with 0 <= r < 1; the polynomial is the best of degree 5 by relative error. NaN is the second argument.
INLINE vf exp_near(vf a, float factor) {
  const __m512 least = _mm512_set1_ps(-40.4f), most = _mm512_set1_ps(40.4f);
  const __m512 y = _mm512_min_ps(most, _mm512_max_ps(least, (__m512)(a * splat(factor * 1.44269504f))));
  const vf r = (vf)_mm512_reduce_ps(y, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);
  vf p = splat(1.877578674e-3f);
  p = p * r + splat(8.989338763e-3f);
  p = p * r + splat(5.582631379e-2f);
  p = p * r + splat(2.401536256e-1f);
  p = p * r + splat(6.931530833e-1f);
  p = p * r + splat(9.999999404e-1f);
  return (vf)_mm512_scalef_ps((__m512)p, y);
}
#else
INLINE vf exp_near(vf a, float factor) {
  const vf magic = splat(12582912.0f);  // as in exp_of
  const vf x = min_of(max_of(a * splat(factor), splat(-28.0f)), splat(28.0f));
  const vf t = x * splat(1.44269504f) + magic, n = t - magic;
  const vf r = x - n * splat(0.693359375f) - n * splat(-2.12194440e-4f);
  vf p = splat(1.3981999507e-3f);
  p = p * r + splat(8.3334519073e-3f);
  p = p * r + splat(4.1665795894e-2f);
  p = p * r + splat(1.6666665459e-1f);
  p = p * r + splat(5.0000001201e-1f);
  p = p * (r * r) + r + splat(1.0f);
  return p * (vf)(((vi)t << 23) + 0x3f800000);  // a product: NaN stays one
}
#endif

// The usual gates, sigmoid and tanh without a clip, with quotients put together, for a division takes longer than all
// else: sigmoid(a) = 1 / (1 + e^-a), tanh(a) = (1 - e^-2a) / (1 + e^-2a). Absolute error of a state below 5e-7.
INLINE vf usual_gru(vf z, vf r, vf own, vf inside, vf h) {
  const vf one = splat(1.0f), to_r = one + exp_near(r, -1), to_z = exp_near(z, -1);
  const vf e = exp_near(own + inside / to_r, -2);
  return (to_z * (one - e) + h * (one + e)) / ((one + to_z) * (one + e));
}
INLINE vf usual_lstm(vf i, vf o, vf f, vf g, vf *c) {
  const vf one = splat(1.0f), to_i = one + exp_near(i, -1), to_f = one + exp_near(f, -1), e = exp_near(g, -2);
  *c = (*c * (to_i * (one + e)) + (one - e) * to_f) / (to_f * to_i * (one + e));
  const vf d = exp_near(*c, -2), to_o = one + exp_near(o, -1);
  return (one - d) / (to_o * (one + d));
}

INLINE void cell_store(float *p, vf a, int64_t n) {
  if (n >= VL) {
    store(p, a);
  } else {
    memcpy(p, &a, (size_t)n * 4);
  }
}

// `n` elements from `i` on; what is read beyond them is somewhere in the arena.
__attribute__((noinline)) static void cell_vector(const prunus_cell *p, int64_t i, int64_t n) {
  const float *s = p->sums + i;
  const vf one = splat(1.0f);
  vf h;
  switch (p->function) {
    case CELL_IS_GRU_RESET: cell_store(p->gated + i, gate(p->f, load(s + p->h)) * load(p->state + i), n); return;
    case CELL_IS_GRU: {
      if (p->usual) {
        h = usual_gru(load(s), load(s + p->h), load(s + 2 * p->h), load(s + 3 * p->h), load(p->state + i));
        break;
      }
      const vf z = gate(p->f, load(s)), r = gate(p->f, load(s + p->h));
      h = (one - z) * gate(p->g, load(s + 2 * p->h) + r * load(s + 3 * p->h)) + z * load(p->state + i);
      break;
    }
    case CELL_IS_GRU_AFTER: {
      const vf z = gate(p->f, load(s));
      h = (one - z) * gate(p->g, load(p->gated + i)) + z * load(p->state + i);
      break;
    }
    case CELL_IS_LSTM: {
      if (p->usual) {
        vf c = load(p->c + i);
        h = usual_lstm(load(s), load(s + p->h), load(s + 2 * p->h), load(s + 3 * p->h), &c);
        cell_store(p->c + i, c, n);
        break;
      }
      const vf take = gate(p->f, load(s)), keep = p->input_forget ? one - take : gate(p->f, load(s + 2 * p->h));
      const vf c = keep * load(p->c + i) + take * gate(p->g, load(s + 3 * p->h));
      cell_store(p->c + i, c, n);
      h = gate(p->f, load(s + p->h)) * gate(p->e, c);
      break;
    }
    default: h = gate(p->f, load(s));
  }
  cell_store(p->state + i, h, n);
  if (p->out) cell_store(p->out + i, h, n);
}

// The same without a call or a branch, for whole vectors.
INLINE void usual_vector(const prunus_cell *p, int64_t i, int function) {
  const float *s = p->sums + i;
  vf h;
  if (function == CELL_IS_LSTM) {
    vf c = load(p->c + i);
    h = usual_lstm(load(s), load(s + p->h), load(s + 2 * p->h), load(s + 3 * p->h), &c);
    store(p->c + i, c);
  } else {
    h = usual_gru(load(s), load(s + p->h), load(s + 2 * p->h), load(s + 3 * p->h), load(p->state + i));
  }
  store(p->state + i, h);
  if (p->out) store(p->out + i, h);
}

static void cell_zero(float *p, int64_t n) {
  if (p) memset(p, 0, (size_t)n * 4);
}

static void cell_task(void *context, int64_t task, int thread) {
  (void)thread;
  const prunus_run_state *s = context;
  const int64_t *r = s->record, h = r[CELL_H], chunks = ceil_div(h, CELL_CHUNK), image = task / chunks;
  const int64_t start = task % chunks * CELL_CHUNK, n = least(h - start, CELL_CHUNK);
  const float clip = from_bits(r[CELL_CLIP]);
  prunus_cell p = {.sums = at(s, r[CELL_SUMS]) + image * r[CELL_SUMS_BATCH] + start,
                   .gated = at(s, r[CELL_GATED]), .c = at(s, r[CELL_C]), .out = at(s, r[CELL_OUT]), .h = h,
                   .state = at(s, r[CELL_STATE]) + image * r[CELL_STATE_BATCH] + start,
                   .function = (int32_t)r[CELL_FUNCTION], .input_forget = (int32_t)r[CELL_INPUT_FORGET],
                   .f = {(int32_t)r[CELL_F], from_bits(r[CELL_F_P0]), from_bits(r[CELL_F_P1]), clip},
                   .g = {(int32_t)r[CELL_G], from_bits(r[CELL_G_P0]), from_bits(r[CELL_G_P1]), clip},
                   .e = {(int32_t)r[CELL_E], from_bits(r[CELL_E_P0]), from_bits(r[CELL_E_P1]), __builtin_inff()}};
  p.gated = p.gated ? p.gated + image * r[CELL_GATED_BATCH] + start : NULL;
  p.c = p.c ? p.c + image * r[CELL_C_BATCH] + start : NULL;
  p.out = p.out ? p.out + image * r[CELL_OUT_BATCH] + start : NULL;
  const int32_t *lengths = (const int32_t *)at(s, r[CELL_LENGTHS]);
  if (lengths && r[CELL_STEP] >= lengths[image]) {  // the state stays as it was, but for sequences of nothing
    cell_zero(p.out, n);
    if (r[CELL_LAST] && lengths[image] <= 0) cell_zero(p.state, n), cell_zero(p.c, n);
    return;
  }
  p.usual = clip > 3e38f && p.f.kind == ACT_SIGMOID && p.g.kind == ACT_TANH && !p.input_forget &&
            (p.function != CELL_IS_LSTM || p.e.kind == ACT_TANH);
  int64_t i = 0;
  if (p.usual && p.function == CELL_IS_GRU) {
    for (; i + VL <= n; i += VL) usual_vector(&p, i, CELL_IS_GRU);
  } else if (p.usual && p.function == CELL_IS_LSTM) {
    for (; i + VL <= n; i += VL) usual_vector(&p, i, CELL_IS_LSTM);
  }
  for (; i + VL <= n; i += VL) cell_vector(&p, i, VL);
  if (i < n) cell_vector(&p, i, n - i);
}

static int64_t cell_tasks(const int64_t *r) { return r[CELL_IMAGES] * ceil_div(r[CELL_H], CELL_CHUNK); }
#endif
