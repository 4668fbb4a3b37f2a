// Pools with more threads than cores, several at once, with many short jobs: each task is done once, in its own job.
// Arguments: pools, threads of each, jobs of each. Exit status 1: not so, and why.
#define _GNU_SOURCE
#include "threads.h"
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { MOST = 40 };
typedef struct {
  int over;
  int done[MOST];
} work;
static int n_threads, n_jobs;

static void fail(const char *what) {
  fprintf(stderr, "%s\n", what);
  _exit(1);
}

static void task_of(void *context, int64_t task, int thread) {
  work *w = context;
  if (w->over) fail("a task of a job that is over");
  if (thread < 0 || thread >= n_threads) fail("a thread of no such number");
  w->done[task]++;  // a race where two threads have one task
  for (volatile int64_t i = 0; i < task * 20; i++) {
  }
}

// Workers are sent to CPUs of which the system may not have all, and more of them than threads or fewer.
static void place(prunus_pool *pool) {
  int32_t cpus[64];
  for (int i = 0; i < 64; i++) cpus[i] = i;
  pool_place(pool, cpus, 64);
}

static void *caller(void *unused) {
  prunus_pool *pool = pool_create(n_threads);
  if (!pool) fail("no pool");
  place(pool);
  work works[2];  // taken in turns: who is late meets one that is over
  memset(works, 0, sizeof works);
  for (int job = 0; job < n_jobs; job++) {
    work *w = works + job % 2;
    const int64_t n_tasks = 1 + job * 7 % MOST;
    memset(w, 0, sizeof *w);
    run_job(pool, task_of, w, n_tasks, job % 3 ? GRAIN : GRAIN / 4);
    w->over = 1;
    for (int64_t task = 0; task < MOST; task++)
      if (w->done[task] != (task < n_tasks)) fail("a task was left out or done twice");
    if (job % 256 == 255) usleep(500);  // workers go to sleep
    if (job % 1024 == 1023) pool_destroy(pool), pool = pool_create(n_threads), place(pool);
  }
  pool_destroy(pool);
  return unused;
}

// A worker that never comes is not waited for.
static void absent_worker(void) {
  prunus_pool *pool = pool_create(1);
  free(pool->shares);
  pool->shares = aligned_alloc(64, 2 * sizeof *pool->shares);
  pool->threads = 2;
  for (int job = 0; job < 3; job++) {
    work w = {0};
    run_job(pool, task_of, &w, MOST, GRAIN);
    for (int64_t task = 0; task < MOST; task++)
      if (w.done[task] != 1) fail("a task was left to a worker that isn't there");
  }
  pool->threads = 1;
  pool_destroy(pool);
}

// A thread goes where it is sent, unless it may not, and from there wherever it was allowed to before.
static void sent_away(void) {
#ifdef __linux__
  prunus_cpus allowed, now;
  cpus_of(&allowed);
  for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
    if (!CPU_ISSET(cpu, &allowed)) continue;
    send_to(pthread_self(), cpu, &allowed);
    if (this_cpu() != cpu || place_of(&cpu, 1)) fail("a thread isn't where it was sent");
    CPU_CLR(cpu, &allowed);
    send_to(pthread_self(), cpu, &allowed);
    CPU_SET(cpu, &allowed);
    go_to(pthread_self(), &allowed);
    cpus_of(&now);
    if (!CPU_EQUAL(&now, &allowed)) fail("a thread may not go where it went before");
  }
  send_to(pthread_self(), CPU_SETSIZE, &allowed), send_to(pthread_self(), -1, &allowed);
#endif
}

// Away from its caller's CPU while it works, and as free as before once it sleeps; what somebody else said since holds.
static void kept_away(void) {
#ifdef __linux__
  prunus_bed bed = {.thread = pthread_self()};
  prunus_cpus before, now;
  cpus_of(&before);
  if (CPU_COUNT(&before) < 2) return;
  int cpus[2], n = 0;
  for (int cpu = 0; cpu < CPU_SETSIZE && n < 2; cpu++)
    if (CPU_ISSET(cpu, &before)) cpus[n++] = cpu;
  settle(&bed);
  send_away(&bed, cpus[1], cpus[0]);
  if (this_cpu() != cpus[1]) fail("a worker isn't where it was sent");
  go_to(pthread_self(), &bed.away);
  cpus_of(&now);
  if (CPU_ISSET(cpus[0], &now) || CPU_COUNT(&now) != CPU_COUNT(&before) - 1) fail("a worker isn't kept off one CPU");
  settle(&bed);
  cpus_of(&now);
  if (!CPU_EQUAL(&now, &before)) fail("a worker that sleeps isn't as free as before");
  send_away(&bed, cpus[1], cpus[0]);
  send_to(pthread_self(), cpus[0], &before);
  settle(&bed);
  cpus_of(&now);
  if (CPU_COUNT(&now) != 1 || !CPU_EQUAL(&now, &bed.allowed)) fail("what somebody else said is undone");
  go_to(pthread_self(), &before);
#endif
}

int main(int argc, char **argv) {
  if (argc != 4) fail("three arguments");
  const int n_pools = atoi(argv[1]);
  n_threads = atoi(argv[2]), n_jobs = atoi(argv[3]);
  pthread_t *callers = calloc((size_t)n_pools, sizeof *callers);
  absent_worker();
  sent_away();
  kept_away();
  for (int i = 0; i < n_pools; i++)
    if (pthread_create(callers + i, NULL, caller, NULL)) fail("no thread");
  for (int i = 0; i < n_pools; i++) pthread_join(callers[i], NULL);
  free(callers);
  return 0;
}
