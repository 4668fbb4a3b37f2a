// Record "phases": each plane of the input taken apart into one plane per position inside the stride, with padding around,
// so that a strided convolution reads them as one of stride 1 does. Every element of the output is written once.
#ifndef PRUNUS_PHASES_H
#define PRUNUS_PHASES_H
#include "run.h"

// A phase is 6 int32: its row and column inside the stride, first and last row and column that the input has.
enum { PHASE_ROW, PHASE_COLUMN, PHASE_TOP, PHASE_BOTTOM, PHASE_LEFT, PHASE_RIGHT, PHASE_SIZE };

static void take_apart(const float *x, float *out, int64_t n, int64_t step) {
  if (step == 1) {
    memcpy(out, x, (size_t)n * 4);
  } else if (step == 2) {  // a step that the compiler knows it turns into shuffles
    for (int64_t i = 0; i < n; i++) out[i] = x[2 * i];
  } else {
    for (int64_t i = 0; i < n; i++) out[i] = x[i * step];
  }
}

static void phases_task(void *context, int64_t task, int thread) {
  (void)thread;
  const prunus_run_state *s = context;
  const int64_t *r = s->record, image = task / r[PHASES_PLANES], channel = task % r[PHASES_PLANES];
  const int64_t plane = r[PHASES_PLANE], pitch = r[PHASES_PITCH], n_phases = r[PHASES_N_PHASES];
  const float *x = at(s, r[PHASES_X]) + image * r[PHASES_X_BATCH] + channel * r[PHASES_X_PLANE];
  float *out = at(s, r[PHASES_OUT]) + image * r[PHASES_OUT_BATCH] + channel * n_phases * plane;
  const int32_t *p = (const int32_t *)at(s, r[PHASES_TABLE]);
  for (int64_t i = 0; i < n_phases; i++, p += PHASE_SIZE, out += plane) {
    const int64_t n = p[PHASE_RIGHT] - p[PHASE_LEFT] + 1;
    int64_t done = 0;
    for (int64_t y = p[PHASE_TOP]; y <= p[PHASE_BOTTOM] && n > 0; y++) {
      const int64_t start = r[PHASES_LEAD] + y * pitch + p[PHASE_LEFT];
      fill_words(out + done, start - done, r[PHASES_PAD]);
      const int64_t row = y * r[PHASES_SH] + p[PHASE_ROW], column = p[PHASE_LEFT] * r[PHASES_SW] + p[PHASE_COLUMN];
      take_apart(x + row * r[PHASES_X_PITCH] + column * r[PHASES_X_STEP], out + start, n, r[PHASES_SW] * r[PHASES_X_STEP]);
      done = start + n;
    }
    fill_words(out + done, plane - done, r[PHASES_PAD]);
  }
}
#endif
