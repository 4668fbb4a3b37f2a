// The executor: runs a plan's records one after the other, each shared out over the threads. No state but the pool.
#define _GNU_SOURCE  // of place.h
#include <time.h>
#include "activation.h"
#include "cell.h"
#include "depthwise.h"
#include "lanes.h"
#include "layer.h"
#include "phases.h"
#include "pool.h"
#include "repack.h"
#include "spans.h"
#include "strided.h"
#include "winograd.h"

#define EXPORT __attribute__((visibility("default")))

EXPORT void *prunus_pool_open(int threads) { return pool_create(threads); }
EXPORT void prunus_pool_close(void *pool) { pool_destroy(pool); }
EXPORT void prunus_pool_place(void *pool, const int32_t *cpus, int n_cpus) { pool_place(pool, cpus, n_cpus); }
EXPORT void prunus_pool_gather(void *pool) { pool_gather(pool); }
EXPORT int prunus_pool_threads(void *pool) { return ((prunus_pool *)pool)->threads; }

static int64_t nanoseconds(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * INT64_C(1000000000) + t.tv_nsec;
}

static void run_strided(prunus_run_state *s, prunus_job *job, const int64_t *size, int64_t per_element) {
  run_job(s->pool, job, s, size[0] * size[1], elements_of(size) * per_element);
}

static void run_planes(prunus_run_state *s, prunus_job *job, int64_t images, int64_t planes, int64_t elements) {
  run_job(s->pool, job, s, images * planes, elements);
}

static prunus_job chain_task;

static void run_record(prunus_run_state *s) {
  const int64_t *r = s->record;
  switch (r[0]) {
    case PRUNUS_CHAIN: run_job(s->pool, chain_task, s, r[CHAIN_N_BODIES], GRAIN); return;
    case PRUNUS_CONV: run_job(s->pool, conv_task, s, conv_tasks(r), GRAIN); return;
    case PRUNUS_GEMV: run_job(s->pool, gemv_task, s, r[GEMV_N_SECTIONS], GRAIN); return;
    case PRUNUS_LANES: run_job(s->pool, lanes_task, s, r[LANES_N_SECTIONS], GRAIN); return;
    case PRUNUS_WINOGRAD: run_job(s->pool, winograd_task, s, winograd_tasks(r), GRAIN); return;
    case PRUNUS_WINOGRAD_INPUT: run_job(s->pool, winograd_input_task, s, winograd_input_tasks(r), GRAIN); return;
    case PRUNUS_DEPTHWISE: run_job(s->pool, depthwise_task, s, depthwise_tasks(r), GRAIN); return;
    case PRUNUS_MARGINS: run_job(s->pool, margins_task, s, r[MARGINS_IMAGES], GRAIN); return;
    case PRUNUS_FILL: run_job(s->pool, fill_task, s, 1, GRAIN); return;
    case PRUNUS_PHASES:
      run_job(s->pool, phases_task, s, phases_tasks(r), r[PHASES_PLANE] * r[PHASES_N_PHASES] * phases_planes_per_task(r));
      return;
    case PRUNUS_COPY: run_strided(s, copy_task, r + COPY_SIZE0, 1); return;
    case PRUNUS_MAP: run_strided(s, map_task, r + MAP_SIZE0, 4); return;
    case PRUNUS_BINARY: run_strided(s, binary_task, r + BINARY_SIZE0, 1); return;
    case PRUNUS_POOL:
      run_planes(s, pool_task, r[POOL_IMAGES], r[POOL_PLANES], r[POOL_OH] * r[POOL_OW] * (r[POOL_KH] + r[POOL_KW]));
      return;
    case PRUNUS_GLOBAL_POOL:
      run_job(s->pool, global_pool_task, s, global_pool_tasks(r), POOLED_AT_ONCE * r[GLOBAL_POOL_H] * r[GLOBAL_POOL_W]);
      return;
    case PRUNUS_SOFTMAX: run_strided(s, softmax_task, r + SOFTMAX_SIZE0, 4 * r[SOFTMAX_LENGTH]); return;
    case PRUNUS_REDUCE_MEAN: {
      const int64_t reduced = elements_of(r + REDUCE_MEAN_REDUCED0) * r[REDUCE_MEAN_REDUCED0] * r[REDUCE_MEAN_REDUCED0 + 1];
      run_strided(s, reduce_mean_task, r + REDUCE_MEAN_SIZE0, reduced);
      return;
    }
    case PRUNUS_PACK:
      run_planes(s, pack_task, r[PACK_IMAGES], pack_planes(r), r[PACK_CHANNELS] / pack_planes(r) * r[PACK_H] * r[PACK_W]);
      return;
    case PRUNUS_UNPACK:
      run_planes(s, unpack_task, r[UNPACK_IMAGES], r[UNPACK_CHANNELS], r[UNPACK_H] * r[UNPACK_W]);
      return;
    case PRUNUS_PACKED_POOL:
      run_planes(s, packed_pool_task, r[PACKED_POOL_IMAGES], r[PACKED_POOL_PLANES],
                 r[PACKED_POOL_OH] * r[PACKED_POOL_OW] * (r[PACKED_POOL_KH] + r[PACKED_POOL_KW]));
      return;
    case PRUNUS_PACKED_MEAN:
      run_planes(s, packed_mean_task, r[PACKED_MEAN_IMAGES], ceil_div(r[PACKED_MEAN_CHANNELS], r[PACKED_MEAN_PACK]),
                 r[PACKED_MEAN_H] * r[PACKED_MEAN_W]);
      return;
    case PRUNUS_PACKED_DEPTHWISE:
      run_planes(s, packed_depthwise_task, r[PACKED_DEPTHWISE_IMAGES], r[PACKED_DEPTHWISE_PLANES],
                 r[PACKED_DEPTHWISE_VECTORS] * VL * r[PACKED_DEPTHWISE_TAPS] / 2);
      return;
    case PRUNUS_FOLD:
      run_planes(s, fold_task, r[FOLD_IMAGES], r[FOLD_PLANES], 2 * r[FOLD_H] * r[FOLD_OW]);
      return;
    case PRUNUS_SPANS: run_job(s->pool, spans_task, s, r[SPANS_N_SECTIONS], GRAIN); return;
    case PRUNUS_CELL: run_job(s->pool, cell_task, s, cell_tasks(r), CELL_CHUNK * 32); return;
    case PRUNUS_RESAMPLE:
      run_planes(s, resample_task, r[RESAMPLE_IMAGES], r[RESAMPLE_PLANES], r[RESAMPLE_OH] * r[RESAMPLE_OW]);
      return;
  }
}

// Runs the records in [plan, end). Where `times` is not NULL each record's nanoseconds are added to its slot; the slots
// inside a chain follow its own.
static void run_records(prunus_run_state *s, const int64_t *plan, const int64_t *end, int64_t *times) {
  for (; plan < end; plan += plan[1]) {
    s->record = plan, s->times = times;
    const int64_t start = times ? nanoseconds() : 0;
    run_record(s);
    if (times) {
      *times += nanoseconds() - start;
      times += 1 + (plan[0] == PRUNUS_CHAIN ? plan[CHAIN_SLOTS] : 0);
    }
  }
}

// One body of a chain, on one thread, which has scratch of its own.
static void chain_task(void *context, int64_t task, int thread) {
  static prunus_pool alone = {.threads = 1};
  prunus_run_state s = *(const prunus_run_state *)context;
  const int64_t *r = s.record;
  const int32_t *body = (const int32_t *)at(&s, r[CHAIN_BODIES]) + 2 * task;  // start and first slot of each
  s.pool = &alone, s.scratch += thread * s.scratch_elements;
  run_records(&s, r + body[0], r + body[2], s.times ? s.times + 1 + body[1] : NULL);
}

// Runs the records in [plan, end). `spaces` are arena, constants, tables and the caller's arrays. The caller sees to it
// that a pool runs one plan at a time.
EXPORT void prunus_run(void *pool, const int64_t *plan, const int64_t *end, float *const *spaces, int64_t n_spaces,
                       float *scratch, int64_t scratch_elements, int64_t *times) {
  prunus_run_state s = {.pool = pool, .scratch = scratch, .scratch_elements = scratch_elements};
  for (int64_t i = 0; i < n_spaces; i++) s.spaces[i] = spaces[i];
  run_records(&s, plan, end, times);
}

// The same from one block of memory: what `prunus_run` takes, in its order but for the spaces, which are behind it.
EXPORT void prunus_call(const int64_t *c) {
  enum { POOL, PLAN, END, N_SPACES, SCRATCH, SCRATCH_ELEMENTS, TIMES, SPACES };
  prunus_run((void *)(intptr_t)c[POOL], (const int64_t *)(intptr_t)c[PLAN], (const int64_t *)(intptr_t)c[END],
             (float *const *)(c + SPACES), c[N_SPACES], (float *)(intptr_t)c[SCRATCH], c[SCRATCH_ELEMENTS],
             (int64_t *)(intptr_t)c[TIMES]);
}

// Multiply-adds on registers only, over words of `pack` channels: the operations per second that one core can do.
#define PRUNUS_PEAK(PACK, SUM, MULTIPLY_ADD, NAME)                                                     \
  static double NAME(void) {                                                                           \
    enum { SUMS = 10, TURNS = 20000, ROUNDS = 20 };                                                    \
    SUM sum[SUMS];                                                                                     \
    int64_t best = INT64_MAX;                                                                          \
    vi words = splat_int(0x3f013f01), weights[SUMS]; /* each its own: a product is no sum of another */ \
    UNROLL for (int i = 0; i < SUMS; i++) sum[i] = (SUM){0}, weights[i] = splat_int(0x3f013f01 + i);   \
    for (int round = 0; round < ROUNDS; round++) {                                                     \
      const int64_t start = nanoseconds();                                                             \
      for (int turn = 0; turn < TURNS; turn++) {                                                       \
        UNROLL for (int i = 0; i < SUMS; i++) sum[i] = MULTIPLY_ADD(sum[i], words, weights[i]);           \
        AFTER(words);                                                                                  \
      }                                                                                                \
      best = least(best, nanoseconds() - start);                                                       \
    }                                                                                                  \
    volatile float sink = 0;                                                                           \
    for (int i = 0; i < SUMS; i++) sink += (float)sum[i][0];                                           \
    return 2.0 * PACK * VL * SUMS * TURNS / ((double)best * 1e-9);                                     \
  }
INLINE vf multiply_add(vf sum, vi a, vi b) { return sum * (vf)a + (vf)b; }
PRUNUS_PEAK(1, vf, multiply_add, peak_f32)
PRUNUS_PEAK(PAIRS, vf, dot_pairs, peak_bf16)
PRUNUS_PEAK(QUADS, vi, dot_quads, peak_u8)
EXPORT double prunus_peak(int pack) { return pack == QUADS ? peak_u8() : pack == PAIRS ? peak_bf16() : peak_f32(); }

// Bytes per second at which one core reads `elements` that it has just read `rounds` times over.
EXPORT double prunus_bandwidth(const float *buffer, int64_t elements, int rounds) {
  enum { SUMS = 8 };
  int64_t best = INT64_MAX;
  vf sum[SUMS] = {{0}};
  for (int round = 0; round <= rounds; round++) {  // the first one fills the caches
    const int64_t start = nanoseconds();
    for (int64_t i = 0; i + SUMS * VL <= elements; i += SUMS * VL)
      UNROLL for (int j = 0; j < SUMS; j++) sum[j] += load(buffer + i + j * VL);
    if (round) best = least(best, most(nanoseconds() - start, 1));
  }
  volatile float sink = 0;
  for (int i = 0; i < SUMS; i++) sink += sum[i][0];
  return (double)(elements * 4) / ((double)best * 1e-9);
}
