// The micro-kernel: for each row group of a list, acc[R rows][V vectors] += w[k][R] * x[off[k] + pixels] over the
// group's kept columns k, then either a partial sum to scratch or the epilogue to the output. One body, written once;
// a kernel is PRUNUS_GROUP(R, V), or PRUNUS_APART(R, V) where each row has columns of its own: off[k][R]. Tails are the
// same body at other V.
#ifndef PRUNUS_GROUP_H
#define PRUNUS_GROUP_H
#include "activation.h"
#include "vector.h"

// MIXED: its rows differ, bit LOADS + r says LOAD for row r and bit ENDS + r FINAL; up to 8 rows.
enum { GROUP_LOAD = 1, GROUP_FINAL = 2, GROUP_MIXED = 8, GROUP_LOADS = 8, GROUP_ENDS = 16, GROUP_MOST_MIXED = 8 };
// A group is HEAD + R int32: columns, flags, start in `offsets`, start in `weights`, then its R rows.
enum { GROUP_COLUMNS, GROUP_FLAGS, GROUP_OFFSETS, GROUP_WEIGHTS, GROUP_HEAD };

typedef struct {
  const float *x;          // input image at the tile's first pixel
  const float *weights;    // of the layer, per group [columns][R]
  const int32_t *offsets;  // of the layer: element offset of each column's window in x
  float *scratch;          // [rows][scratch_pitch] partial sums
  float *out;              // output image at the tile's first pixel; row r lies at out + r * plane
  const float *residual;   // like out, or NULL
  const int32_t *mask;     // at the tile's first pixel: all ones where a pixel is real, zero in padding; or NULL
  const float *bias;       // [rows], or NULL
  const float *slope;      // [rows] of prelu, or NULL
  int64_t plane, residual_plane, scratch_pitch;
  int64_t ahead;  // elements from the tile to output that the same rows write soon; 0: another group comes next
  int64_t next;   // packed: elements to the pixels that come next, where the input is in no near cache; or 0
  int64_t pitch, gap, gaps;  // of lanes.h: from line to line of the output; the padding behind a line, and after how many
  int32_t activation;
  int32_t narrow;  // of single vectors of inputs: offsets are uint16
  float p0, p1;
  // of packed channels; see packed.h
  const float *scale;  // [rows], or NULL: float sums
  float residual_scale, post_scale, post_shift;
  int32_t low, high;  // words of the least and largest bytes
  int32_t pad;        // the word of padding
  int32_t out_real;   // the output is float32, of `rows` rows
  int64_t rows;
} prunus_tile;

typedef void prunus_group_kernel(const prunus_tile *t, const int32_t *groups, int64_t n_groups);

// A compiler that takes the next load early needs one register more than there is, and spills a sum. An empty asm that
// "changes" the sum made last keeps what follows behind it.
#if defined(__AVX512F__)
#define AFTER(sum) __asm__ volatile("" : "+v"(sum) : : "memory")
#elif defined(__x86_64__) && (VB == 16 || (VB == 32 && defined(__AVX__)))
#define AFTER(sum) __asm__ volatile("" : "+x"(sum) : : "memory")
#elif defined(__aarch64__) && VB == 16
#define AFTER(sum) __asm__ volatile("" : "+w"(sum) : : "memory")
#else
#define AFTER(sum)
#endif

#define KEEP_ORDER() __asm__ volatile("" : : : "memory")

// Lines of the residual that the epilogue needs: planes lie far apart, where no hardware prefetcher looks.
INLINE void expect_residual(const prunus_tile *t, int32_t row, int vectors) {
  const float *z = t->residual + row * t->residual_plane;
  UNROLL for (int i = 0; i < vectors * VL; i += 16) __builtin_prefetch(z + i);
}

// Lines that a row will write: few columns take less time than the lines take to come.
INLINE void expect_output(const prunus_tile *t, int32_t row, int vectors) {
  const float *y = t->out + row * t->plane + t->ahead;
  UNROLL for (int i = 0; i < vectors * VL; i += 16) __builtin_prefetch(y + i, 1);
}

// Bias, residual, activation, padding mask, store; one branch for all rows, for short rows would spend more time on
// branches than on sums.
#define FINISH_ROWS(t, rows, a, with_bias, R, V)                                                       \
  if (with_bias && (t)->bias)                                                                          \
    UNROLL for (int r = 0; r < R; r++) {                                                               \
      const vf bias = splat((t)->bias[rows[r]]);                                                       \
      UNROLL for (int v = 0; v < V; v++) a[r][v] += bias;                                              \
    }                                                                                                  \
  if ((t)->residual)                                                                                   \
    UNROLL for (int r = 0; r < R; r++) {                                                               \
      const float *z = (t)->residual + rows[r] * (t)->residual_plane;                                  \
      UNROLL for (int v = 0; v < V; v++) a[r][v] += load(z + v * VL);                                  \
    }                                                                                                  \
  if ((t)->activation == ACT_RELU) {                                                                   \
    UNROLL for (int v = 0; v < V; v++) {                                                               \
      const vi real = (t)->mask ? load_int((t)->mask + v * VL) : splat_int(-1);                        \
      UNROLL for (int r = 0; r < R; r++) a[r][v] = max_where(real, a[r][v], (vf){0});                  \
    }                                                                                                  \
  } else if ((t)->activation == ACT_CLIP) {                                                            \
    const vf low = splat((t)->p0), high = splat((t)->p1);                                              \
    UNROLL for (int v = 0; v < V; v++) {                                                               \
      const vi real = (t)->mask ? load_int((t)->mask + v * VL) : splat_int(-1);                        \
      UNROLL for (int r = 0; r < R; r++) a[r][v] = min_where(real, max_of(a[r][v], low), high);        \
    }                                                                                                  \
  } else if ((t)->activation) {                                                                        \
    vf held[R][V]; /* an index that varies would keep the sums themselves in memory, all the time */     \
    UNROLL for (int r = 0; r < R; r++) UNROLL for (int v = 0; v < V; v++) held[r][v] = a[r][v];        \
    for (int r = 0; r < R; r++)                                                                        \
      for (int v = 0; v < V; v++)                                                                      \
        held[r][v] = activate((t)->activation, held[r][v], (t)->slope ? (t)->slope[rows[r]] : (t)->p0, (t)->p1); \
    UNROLL for (int r = 0; r < R; r++) UNROLL for (int v = 0; v < V; v++) a[r][v] = held[r][v];        \
  }                                                                                                    \
  if ((t)->mask && (t)->activation != ACT_RELU && (t)->activation != ACT_CLIP)                         \
    UNROLL for (int v = 0; v < V; v++) {                                                               \
      const vi mask = load_int((t)->mask + v * VL);                                                    \
      UNROLL for (int r = 0; r < R; r++) a[r][v] = (vf)((vi)a[r][v] & mask);                           \
    }                                                                                                  \
  UNROLL for (int r = 0; r < R; r++) {                                                                 \
    float *y = (t)->out + rows[r] * (t)->plane;                                                        \
    UNROLL for (int v = 0; v < V; v++) store(y + v * VL, a[r][v]);                                     \
  }

static const float group_nothing[16 * VL] __attribute__((aligned(VB)));  // the sums of a row that starts, and the like

// The same where only some rows end, and the others go back to scratch: without a branch per row, for which rows end
// can't be predicted.
#define FINISH_SOME(t, rows, ends, a, R, V)                                                            \
  if ((t)->bias)                                                                                       \
    UNROLL for (int r = 0; r < R; r++) {                                                               \
      const vf bias = splat(*((ends) >> r & 1 ? (t)->bias + rows[r] : group_nothing));                 \
      UNROLL for (int v = 0; v < V; v++) a[r][v] += bias;                                              \
    }                                                                                                  \
  if ((t)->residual)                                                                                   \
    UNROLL for (int r = 0; r < R; r++) {                                                               \
      const float *z = (ends) >> r & 1 ? (t)->residual + rows[r] * (t)->residual_plane : group_nothing; \
      UNROLL for (int v = 0; v < V; v++) a[r][v] += load(z + v * VL);                                  \
    }                                                                                                  \
  if ((t)->activation == ACT_RELU || (t)->activation == ACT_CLIP) {                                    \
    const float low = (t)->activation == ACT_RELU ? 0 : (t)->p0;                                       \
    const float high = (t)->activation == ACT_RELU ? __builtin_inff() : (t)->p1;                       \
    UNROLL for (int r = 0; r < R; r++) {                                                               \
      const vf least = splat((ends) >> r & 1 ? low : -__builtin_inff());                               \
      const vf most = splat((ends) >> r & 1 ? high : __builtin_inff());                                \
      UNROLL for (int v = 0; v < V; v++) a[r][v] = min_of(max_of(a[r][v], least), most);               \
    }                                                                                                  \
  } else if ((t)->activation) {                                                                        \
    vf held[R][V];                                                                                     \
    UNROLL for (int r = 0; r < R; r++) UNROLL for (int v = 0; v < V; v++) held[r][v] = a[r][v];        \
    for (int r = 0; r < R; r++)                                                                        \
      for (int v = 0; v < V && (ends) >> r & 1; v++)                                                   \
        held[r][v] = activate((t)->activation, held[r][v], (t)->slope ? (t)->slope[rows[r]] : (t)->p0, (t)->p1); \
    UNROLL for (int r = 0; r < R; r++) UNROLL for (int v = 0; v < V; v++) a[r][v] = held[r][v];        \
  }                                                                                                    \
  UNROLL for (int v = 0; v < V; v++) {                                                                 \
    const vi mask = (t)->mask ? load_int((t)->mask + v * VL) : splat_int(-1);                          \
    UNROLL for (int r = 0; r < R; r++) a[r][v] = (vf)((vi)a[r][v] & mask); /* sums there don't matter */ \
  }                                                                                                    \
  UNROLL for (int r = 0; r < R; r++) {                                                                 \
    float *y = (ends) >> r & 1 ? (t)->out + rows[r] * (t)->plane : (t)->scratch + rows[r] * (t)->scratch_pitch; \
    UNROLL for (int v = 0; v < V; v++) store(y + v * VL, a[r][v]);                                     \
  }

#define SHARED_COLUMNS(R, V)                                                                       \
  for (int32_t k = 0; k < n; k++, w += R) {                                                        \
    const float *p = x + off[k];                                                                   \
    __builtin_prefetch(w + 1024);                                                                   \
    if (R < V) { /* hold R weights, take the pixels one vector at a time */                        \
      vf a[R];                                                                                     \
      UNROLL for (int r = 0; r < R; r++) a[r] = splat(w[r]);                                       \
      UNROLL for (int v = 0; v < V; v++) {                                                         \
        const vf in = load(p + v * VL);                                                            \
        UNROLL for (int r = 0; r < R; r++) acc[r][v] += a[r] * in;                                 \
        KEEP_ORDER();                                                                              \
      }                                                                                            \
    } else { /* hold V vectors of pixels, take the weights one at a time */                        \
      vf in[V];                                                                                    \
      UNROLL for (int v = 0; v < V; v++) in[v] = load(p + v * VL);                                 \
      UNROLL for (int r = 0; r < R; r++) {                                                         \
        const vf a = splat(w[r]);                                                                  \
        UNROLL for (int v = 0; v < V; v++) acc[r][v] += a * in[v];                                 \
        AFTER(acc[r][V - 1]);                                                                      \
      }                                                                                            \
    }                                                                                              \
  }

// Each row has columns of its own, in turn: pixels are read once per product, but sums enough are under way whatever the
// width, and short rows end together.
#define OWN_COLUMNS(R, V)                                                                              \
  for (int32_t k = 0; k < n; k++, w += R, off += R) {                                                  \
    __builtin_prefetch(w + 1024);                                                                      \
    UNROLL for (int r = 0; r < R; r++) {                                                               \
      const float *p = x + off[r];                                                                     \
      const vf a = splat(w[r]);                                                                        \
      UNROLL for (int v = 0; v < V; v++) {                                                             \
        acc[r][v] += a * load(p + v * VL);                                                             \
        KEEP_ORDER();                                                                                  \
      }                                                                                                \
    }                                                                                                  \
  }

#define PRUNUS_GROUP(R, V, NAME) GROUP_KERNEL(R, V, NAME, SHARED_COLUMNS)
#define PRUNUS_APART(R, V, NAME) GROUP_KERNEL(R, V, NAME, OWN_COLUMNS)

#define GROUP_KERNEL(R, V, NAME, COLUMNS)                                                                       \
  static void NAME(const prunus_tile *t, const int32_t *group, int64_t n_groups) {                            \
    for (const int32_t *end = group + n_groups * (GROUP_HEAD + R); group < end; group += GROUP_HEAD + R) { \
      const int32_t n = group[GROUP_COLUMNS], flags = group[GROUP_FLAGS], *rows = group + GROUP_HEAD;  \
      const int32_t *off = t->offsets + group[GROUP_OFFSETS];                                          \
      const float *w = t->weights + group[GROUP_WEIGHTS], *x = t->x;                                   \
      vf acc[R][V];                                                                                    \
      if (t->ahead)                                                                                    \
        UNROLL for (int r = 0; r < R; r++) expect_output(t, rows[r], V);                               \
      const int32_t *next = group + GROUP_HEAD + R; /* its residual comes while this group's sums are made */ \
      if (t->residual && next < end && next[GROUP_FLAGS] & GROUP_FINAL)                                \
        UNROLL for (int r = 0; r < R; r++) expect_residual(t, next[GROUP_HEAD + r], V);                \
      if (R <= GROUP_MOST_MIXED && flags & GROUP_MIXED) {                                              \
        UNROLL for (int r = 0; r < R; r++) {                                                           \
          const float *s = flags >> (GROUP_LOADS + r) & 1 ? t->scratch + rows[r] * t->scratch_pitch : group_nothing; \
          UNROLL for (int v = 0; v < V; v++) acc[r][v] = load(s + v * VL);                             \
        }                                                                                              \
      } else if (flags & GROUP_LOAD) {                                                                 \
        UNROLL for (int r = 0; r < R; r++) {                                                           \
          const float *s = t->scratch + rows[r] * t->scratch_pitch;                                    \
          UNROLL for (int v = 0; v < V; v++) acc[r][v] = load(s + v * VL);                             \
        }                                                                                              \
      } else if (flags & GROUP_FINAL && t->bias) { /* whole rows start from it */                      \
        UNROLL for (int r = 0; r < R; r++) {                                                           \
          const vf bias = splat(t->bias[rows[r]]);                                                     \
          UNROLL for (int v = 0; v < V; v++) acc[r][v] = bias;                                         \
        }                                                                                              \
      } else {                                                                                         \
        UNROLL for (int r = 0; r < R; r++) UNROLL for (int v = 0; v < V; v++) acc[r][v] = (vf){0};     \
      }                                                                                                \
      COLUMNS(R, V)                                                                                  \
      if (flags & GROUP_FINAL) {                                                                       \
        FINISH_ROWS(t, rows, acc, flags & (GROUP_LOAD | GROUP_MIXED), R, V)                            \
      } else if (R <= GROUP_MOST_MIXED && flags >> GROUP_ENDS) {                                       \
        FINISH_SOME(t, rows, flags >> GROUP_ENDS, acc, R, V)                                           \
      } else {                                                                                         \
        UNROLL for (int r = 0; r < R; r++) {                                                           \
          float *s = t->scratch + rows[r] * t->scratch_pitch;                                          \
          UNROLL for (int v = 0; v < V; v++) store(s + v * VL, acc[r][v]);                             \
        }                                                                                              \
      }                                                                                                \
    }                                                                                                  \
  }
#endif
