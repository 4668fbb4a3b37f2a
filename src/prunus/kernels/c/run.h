// What every kind of record sees of a run.
#ifndef PRUNUS_RUN_H
#define PRUNUS_RUN_H
#include "threads.h"

enum { MAX_PORTS = 64 };
typedef struct {
  prunus_pool *pool;
  float *spaces[SPACE_PORTS + MAX_PORTS];
  float *scratch;  // per thread
  int64_t scratch_elements;
  const int64_t *record;  // the one being run
  int64_t *times;         // its slot, or NULL
} prunus_run_state;

INLINE float *at(const prunus_run_state *s, int64_t address) {
  return address < 0 ? NULL : s->spaces[address >> 40] + (address & ((INT64_C(1) << 40) - 1));
}
INLINE float from_bits(int64_t bits) {
  union { uint32_t i; float f; } u = {.i = (uint32_t)bits};
  return u.f;
}
INLINE void store_word(float *p, int64_t word) {
  const int32_t bits = (int32_t)word;
  memcpy(p, &bits, 4);
}
// `n` elements of the word `pad`: zero, or the zero point of packed channels.
INLINE void fill_words(float *p, int64_t n, int64_t pad) {
  const vf words = (vf)splat_int((int32_t)pad);
  if (n >= VL) {
    for (int64_t i = 0; i + VL < n; i += VL) store(p + i, words);
    store(p + n - VL, words);
  } else {
    for (int64_t i = 0; i < n; i++) store_word(p + i, pad);
  }
}
INLINE int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
INLINE int64_t most(int64_t a, int64_t b) { return a > b ? a : b; }
INLINE int64_t up_to_vectors(int64_t n) { return (n + VL - 1) / VL * VL; }
// The task to do in place of `task` where each thread is to go backwards through its share (see `run_job`).
INLINE int64_t task_backwards(const prunus_run_state *s, int64_t task, int64_t n_tasks) {
  const int64_t threads = s->pool->threads;
  for (int64_t t = 1, first = 0;; t++) {
    const int64_t end = n_tasks * t / threads;
    if (task < end) return first + end - 1 - task;
    first = end;
  }
}
INLINE int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
#endif
