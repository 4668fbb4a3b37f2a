// Records over up to RANK strided axes: copy, map, binary, softmax, reduce_mean; and fill. A task is one index of axes 0
// and 1; the last axis is the inner loop, vectorised where all its strides are 1.
#ifndef PRUNUS_STRIDED_H
#define PRUNUS_STRIDED_H
#include "activation.h"
#include "run.h"

// Element offsets of the axes 2 .. RANK-2, counted like an odometer.
typedef struct {
  int64_t index[RANK], offset[3];
} prunus_walk;

INLINE int walk_next(prunus_walk *w, const int64_t *size, const int64_t *const strides[], int n) {
  for (int axis = RANK - 2; axis >= 2; axis--) {
    w->index[axis]++;
    for (int i = 0; i < n; i++) w->offset[i] += strides[i][axis];
    if (w->index[axis] < size[axis]) return 1;
    for (int i = 0; i < n; i++) w->offset[i] -= strides[i][axis] * size[axis];
    w->index[axis] = 0;
  }
  return 0;
}

// Elements of one task of a record over strided axes: all but the first two.
static int64_t elements_of(const int64_t *size) {
  int64_t n = 1;
  for (int axis = 2; axis < RANK; axis++) n *= size[axis];
  return n;
}

static void fill_task(void *context, int64_t task, int thread) {
  (void)thread, (void)task;
  const prunus_run_state *s = context;
  const int64_t *r = s->record;
  float *out = at(s, r[FILL_OUT]), value = from_bits(r[FILL_VALUE]);
  for (int64_t i = 0; i < r[FILL_COUNT]; i++) out[i] = value;
}

// VL vectors of VL elements turned: in rounds, each puts elements of vectors half of them apart side by side.
INLINE vf low_turns(vf a, vf b) {
#if VL == 16
  return SHUFFLE(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
#elif VL == 8
  return SHUFFLE(a, b, 0, 8, 1, 9, 2, 10, 3, 11);
#else
  return SHUFFLE(a, b, 0, 4, 1, 5);
#endif
}
INLINE vf high_turns(vf a, vf b) {
#if VL == 16
  return SHUFFLE(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
#elif VL == 8
  return SHUFFLE(a, b, 4, 12, 5, 13, 6, 14, 7, 15);
#else
  return SHUFFLE(a, b, 2, 6, 3, 7);
#endif
}
static void turn_tile(float *y, int64_t y_pitch, const float *x, int64_t x_pitch) {
  vf a[VL], b[VL];
  UNROLL for (int i = 0; i < VL; i++) a[i] = load(x + i * x_pitch);
  UNROLL for (int round = 1; round < VL; round *= 2) {
    UNROLL for (int i = 0; i < VL / 2; i++) b[2 * i] = low_turns(a[i], a[i + VL / 2]), b[2 * i + 1] = high_turns(a[i], a[i + VL / 2]);
    UNROLL for (int i = 0; i < VL; i++) a[i] = b[i];
  }
  UNROLL for (int i = 0; i < VL; i++) store(y + i * y_pitch, a[i]);
}

// y[row][column] = x[column][row]
static void turn(float *y, int64_t y_pitch, const float *x, int64_t x_pitch, int64_t rows, int64_t columns) {
  const int64_t whole_rows = rows / VL * VL, whole = columns / VL * VL;
  for (int64_t row = 0; row < whole_rows; row += VL) {
    for (int64_t c = 0; c < whole; c += VL) turn_tile(y + row * y_pitch + c, y_pitch, x + c * x_pitch + row, x_pitch);
    for (int64_t c = whole; c < columns; c++)
      for (int64_t i = row; i < row + VL; i++) y[i * y_pitch + c] = x[c * x_pitch + i];
  }
  for (int64_t row = whole_rows; row < rows; row++)
    for (int64_t c = 0; c < columns; c++) y[row * y_pitch + c] = x[c * x_pitch + row];
}

static void copy_task(void *context, int64_t task, int thread) {
  (void)thread;
  const prunus_run_state *s = context;
  const int64_t *r = s->record, *size = r + COPY_SIZE0, *os = r + COPY_OUT_STRIDE0, *is = r + COPY_IN_STRIDE0;
  const int64_t index0 = task / size[1], index1 = task % size[1];
  float *out = at(s, r[COPY_OUT]) + index0 * os[0] + index1 * os[1];
  const float *in = at(s, r[COPY_X]) + index0 * is[0] + index1 * is[1];
  const int64_t n = size[RANK - 1], oi = os[RANK - 1], ii = is[RANK - 1], *const strides[] = {os, is};
  prunus_walk w = {0};
  if (oi == 1 && ii > 1 && is[RANK - 2] == 1 && elements_of(size) == n * size[RANK - 2]) {  // as `turn` in context.py has it
    turn(out, os[RANK - 2], in, ii, size[RANK - 2], n);
    return;
  }
  do {
    float *y = out + w.offset[0];
    const float *x = in + w.offset[1];
    if (oi == 1 && ii == 1) {
      memmove(y, x, (size_t)n * 4); /* rows of a line buffer move to its front */
    } else if (oi == 1 && ii == 2) {  // the phases of stride 2
      for (int64_t i = 0; i < n; i++) y[i] = x[2 * i];
    } else {
      for (int64_t i = 0; i < n; i++) y[i * oi] = x[i * ii];
    }
  } while (walk_next(&w, size, strides, 2));
}

static void map_task(void *context, int64_t task, int thread) {
  (void)thread;
  const prunus_run_state *s = context;
  const int64_t *r = s->record, *size = r + MAP_SIZE0, *os = r + MAP_OUT_STRIDE0, *is = r + MAP_IN_STRIDE0;
  const float *scale = at(s, r[MAP_SCALE]), *shift = at(s, r[MAP_SHIFT]), *slope = at(s, r[MAP_SLOPE]);
  const int32_t kind = (int32_t)r[MAP_ACTIVATION];
  const int64_t n = size[RANK - 1], oi = os[RANK - 1], ii = is[RANK - 1], *const strides[] = {os, is};
  const int64_t index0 = task / size[1], index1 = task % size[1];
  float *out = at(s, r[MAP_OUT]) + index0 * os[0] + index1 * os[1];
  const float *in = at(s, r[MAP_X]) + index0 * is[0] + index1 * is[1];
  prunus_walk w = {0};
  do {
    const float a = scale ? scale[index1] : 1.0f, b = shift ? shift[index1] : 0.0f;
    const float p0 = slope ? slope[index1] : from_bits(r[MAP_P0]), p1 = from_bits(r[MAP_P1]);
    for (int64_t i = 0; i < n; i += VL) {
      const int64_t m = least(VL, n - i);
      float lane[VL] = {0};
      const float *x = in + w.offset[1] + i * ii;
      float *y = out + w.offset[0] + i * oi;
      if (m == VL && ii == 1) {
        memcpy(lane, x, VB);
      } else {
        for (int64_t k = 0; k < m; k++) lane[k] = x[k * ii];
      }
      const vf z = activate(kind, load(lane) * a + b, p0, p1);
      if (m == VL && oi == 1) {
        store(y, z);
      } else {
        for (int64_t k = 0; k < m; k++) y[k * oi] = z[k];
      }
    }
  } while (walk_next(&w, size, strides, 2));
}

INLINE vf binary_of(int64_t function, vf a, vf b) {
  switch (function) {
    case FN_ADD: return a + b;
    case FN_SUB: return a - b;
    case FN_MUL: return a * b;
    case FN_DIV: return a / b;
    case FN_MIN: return choose((b != b), b, min_of(a, b));
    case FN_MAX: return choose((b != b), b, max_of(a, b));
  }
  for (int i = 0; i < VL; i++) a[i] = __builtin_powf(a[i], b[i]);
  return a;
}

static void binary_task(void *context, int64_t task, int thread) {
  (void)thread;
  const prunus_run_state *s = context;
  const int64_t *r = s->record, *size = r + BINARY_SIZE0;
  const int64_t *os = r + BINARY_OUT_STRIDE0, *as = r + BINARY_IN_STRIDE0, *bs = r + BINARY_OTHER_STRIDE0;
  const int64_t n = size[RANK - 1], oi = os[RANK - 1], ai = as[RANK - 1], bi = bs[RANK - 1];
  const int64_t *const strides[] = {os, as, bs}, function = r[BINARY_FUNCTION];
  const int32_t kind = (int32_t)r[BINARY_ACTIVATION];
  const float p0 = from_bits(r[BINARY_P0]), p1 = from_bits(r[BINARY_P1]);
  const int64_t index0 = task / size[1], index1 = task % size[1];
  float *out = at(s, r[BINARY_OUT]) + index0 * os[0] + index1 * os[1];
  const float *a = at(s, r[BINARY_X]) + index0 * as[0] + index1 * as[1], *b = at(s, r[BINARY_OTHER]) + index0 * bs[0] + index1 * bs[1];
  prunus_walk w = {0};
  do {
    for (int64_t i = 0; i < n; i += VL) {
      const int64_t m = least(VL, n - i);
      const float *x = a + w.offset[1] + i * ai, *z = b + w.offset[2] + i * bi;
      float *y = out + w.offset[0] + i * oi, left[VL] = {0}, right[VL] = {0};
      for (int k = 0; k < VL; k++) right[k] = 1.0f;
      vf u, t;
      if (m == VL && ai == 1) {
        u = load(x);
      } else {
        for (int64_t k = 0; k < m; k++) left[k] = x[k * ai];
        u = load(left);
      }
      if (m == VL && bi == 1) {
        t = load(z);
      } else {
        for (int64_t k = 0; k < m; k++) right[k] = z[k * bi];
        t = load(right);
      }
      vf c = binary_of(function, u, t);
      if (kind) c = activate(kind, c, p0, p1);
      if (m == VL && oi == 1) {
        store(y, c);
      } else {
        for (int64_t k = 0; k < m; k++) y[k * oi] = c[k];
      }
    }
  } while (walk_next(&w, size, strides, 3));
}

// The inner loop runs over axis RANK-1 too: softmax of each element's own line along the reduced axis.
static void softmax_task(void *context, int64_t task, int thread) {
  (void)thread;
  const prunus_run_state *s = context;
  const int64_t *r = s->record, *size = r + SOFTMAX_SIZE0, *os = r + SOFTMAX_OUT_STRIDE0, *is = r + SOFTMAX_IN_STRIDE0;
  const int64_t length = r[SOFTMAX_LENGTH], ostep = r[SOFTMAX_OUT_STEP], istep = r[SOFTMAX_X_STEP];
  const int64_t *const strides[] = {os, is};
  const int64_t index0 = task / size[1], index1 = task % size[1];
  float *out = at(s, r[SOFTMAX_OUT]) + index0 * os[0] + index1 * os[1];
  const float *in = at(s, r[SOFTMAX_X]) + index0 * is[0] + index1 * is[1];
  prunus_walk w = {0};
  do {
    for (int64_t i = 0; i < size[RANK - 1]; i++) {
      const float *x = in + w.offset[1] + i * is[RANK - 1];
      float *y = out + w.offset[0] + i * os[RANK - 1], top = x[0], block[VL];
      double sum = 0;
      for (int64_t k = 1; k < length; k++) top = x[k * istep] > top || x[k * istep] != x[k * istep] ? x[k * istep] : top;
      for (int64_t k = 0; k < length; k += VL) {
        const int64_t m = least(VL, length - k);
        for (int64_t j = 0; j < VL; j++) block[j] = j < m ? x[(k + j) * istep] - top : 0.0f;
        const vf e = exp_of(load(block));
        for (int64_t j = 0; j < m; j++) {
          sum += e[j];
          y[(k + j) * ostep] = r[SOFTMAX_LOG] ? block[j] : e[j];
        }
      }
      const float scale = (float)(1.0 / sum), shift = r[SOFTMAX_LOG] ? (float)__builtin_log(sum) : 0.0f;
      for (int64_t k = 0; k < length; k++)
        y[k * ostep] = r[SOFTMAX_LOG] ? y[k * ostep] - shift : y[k * ostep] * scale;
    }
  } while (walk_next(&w, size, strides, 2));
}

static double sum_axes(const float *x, const int64_t *size, const int64_t *stride, int axis) {
  double sum = 0;
  if (axis == RANK - 1) {
    for (int64_t i = 0; i < size[axis]; i++) sum += x[i * stride[axis]];
  } else {
    for (int64_t i = 0; i < size[axis]; i++) sum += sum_axes(x + i * stride[axis], size, stride, axis + 1);
  }
  return sum;
}

static void reduce_mean_task(void *context, int64_t task, int thread) {
  (void)thread;
  const prunus_run_state *s = context;
  const int64_t *r = s->record, *size = r + REDUCE_MEAN_SIZE0, *reduced = r + REDUCE_MEAN_REDUCED0;
  const int64_t *os = r + REDUCE_MEAN_OUT_STRIDE0, *is = r + REDUCE_MEAN_IN_STRIDE0, *const strides[] = {os, is};
  const int64_t index0 = task / size[1], index1 = task % size[1];
  float *out = at(s, r[REDUCE_MEAN_OUT]) + index0 * os[0] + index1 * os[1];
  const float *in = at(s, r[REDUCE_MEAN_X]) + index0 * is[0] + index1 * is[1];
  double count = 1;
  for (int axis = 0; axis < RANK; axis++) count *= (double)reduced[axis];
  prunus_walk w = {0};
  do {
    for (int64_t i = 0; i < size[RANK - 1]; i++)
      out[w.offset[0] + i * os[RANK - 1]] =
          (float)(sum_axes(in + w.offset[1] + i * is[RANK - 1], reduced, r + REDUCE_MEAN_REDUCED_STRIDE0, 0) / count);
  } while (walk_next(&w, size, strides, 2));
}
#endif
