// Runs one plan outside Python: for emulators and sanitizers. Reads from standard input eight int64 (elements of plan,
// tables, constants, arena, scratch; threads; ports; elements per port summed up), the size of each port, then plan,
// tables, constants, arena and ports; writes arena and ports as the run left them.
#include "executor.c"
#include <stdio.h>

static void *take(size_t n_bytes) {
  void *data = malloc(n_bytes ? n_bytes : 1);
  if (!data || (n_bytes && fread(data, n_bytes, 1, stdin) != 1)) exit(3);
  return data;
}

int main(void) {
  enum { PLAN, TABLE, CONSTANT, ARENA, SCRATCH, THREADS, N_PORTS, HEAD };
  int64_t *head = take(HEAD * 8), *sizes = take((size_t)head[N_PORTS] * 8);
  int64_t *plan = take((size_t)head[PLAN] * 8);
  float *spaces[SPACE_PORTS + MAX_PORTS];
  spaces[SPACE_TABLES] = take((size_t)head[TABLE] * 4);
  spaces[SPACE_CONSTANTS] = take((size_t)head[CONSTANT] * 4);
  spaces[SPACE_ARENA] = take((size_t)head[ARENA] * 4);
  for (int64_t i = 0; i < head[N_PORTS]; i++) spaces[SPACE_PORTS + i] = take((size_t)sizes[i] * 4);
  float *scratch = malloc((size_t)(head[SCRATCH] * head[THREADS] + 1) * 4);
  void *pool = prunus_pool_open((int)head[THREADS]);
  prunus_run(pool, plan, plan + head[PLAN], spaces, SPACE_PORTS + head[N_PORTS], scratch, head[SCRATCH], NULL);
  prunus_pool_close(pool);
  fwrite(spaces[SPACE_ARENA], 4, (size_t)head[ARENA], stdout);
  for (int64_t i = 0; i < head[N_PORTS]; i++) fwrite(spaces[SPACE_PORTS + i], 4, (size_t)sizes[i], stdout);
  for (int i = 0; i < SPACE_PORTS + head[N_PORTS]; i++) free(spaces[i]);
  free(scratch), free(plan), free(sizes), free(head);
  return fflush(stdout) ? 3 : 0;
}
