// A persistent pool of threads that share out the tasks of one job at a time. Workers spin for a while between jobs,
// then sleep; the caller works too. Each thread has a share of neighbouring tasks, the same part of every job: what it made
// in one layer is in its own cache for the next. When its share is done it takes tasks from the others'.
//
// A worker enters a job while it is open and leaves it when it finds no more tasks. The caller closes the job when it finds
// none itself, and waits for those inside only: one that sleeps, or has lost its core, misses the job. All of that is one
// word, `state`: a job's number, whether it is open, how many are inside. What describes a job is written while there is no
// open one and nobody inside, and read from inside.
#ifndef PRUNUS_THREADS_H
#define PRUNUS_THREADS_H
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include "place.h"

enum { SPINS = 20000 };  // 0.1 to 1 ms, as long as the CPU's pause is: longer than what is between two layers
enum { PAUSES = 1000 };  // a twentieth of it; then the core is offered to others: there may be more threads than cores
enum { GRAIN = 8192 };  // elements worth sharing out: a few microseconds, as long as it takes to wake a thread
#define INSIDE (OPEN - 1)
#define OPEN (UINT64_C(1) << 31)
#define JOB (UINT64_C(1) << 32)
typedef void prunus_job(void *context, int64_t task, int thread);

typedef struct {
  _Alignas(64) atomic_int_fast64_t next;  // claim
  int64_t end;
} prunus_share;

// What others have to know of a worker to wake it: written by itself, under the pool's mutex.
typedef struct {
  pthread_t thread;
  int sleeps, sent;
  prunus_cpus allowed;  // where it may run, as it fell asleep
  prunus_cpus away;  // those but its caller's, where it stays until it sleeps again, if it was sent
} prunus_bed;

typedef struct {
  int threads;  // the caller included
  prunus_share *shares;  // one per thread
  prunus_bed *beds;  // one per worker
  int *cpus, n_cpus;  // where workers are sent as they wake: neighbours in the list are the farthest apart; none: anywhere
  prunus_job *job;
  void *context;
  int64_t n_tasks, per_claim;
  _Alignas(64) _Atomic uint64_t state;
  _Alignas(64) atomic_int stop, sleeping;
  pthread_mutex_t mutex;
  pthread_cond_t wake;
} prunus_pool;

typedef struct {
  prunus_pool *pool;
  int thread;
} prunus_worker;

static inline void relax(void) {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ volatile("yield");
#endif
}

// One more of `spins` turns of waiting.
static void spin(unsigned spins) {
  if (spins % PAUSES) {
    relax();
  } else {
    sched_yield();
  }
}

static void take_tasks(prunus_pool *p, int thread) {
  const int64_t n = p->per_claim;
  for (int i = 0; i < p->threads; i++) {
    prunus_share *share = p->shares + (thread + i) % p->threads;
    for (int64_t claim; (claim = atomic_fetch_add_explicit(&share->next, 1, memory_order_relaxed)) < share->end;)
      for (int64_t task = claim * n, end = task + n < p->n_tasks ? task + n : p->n_tasks; task < end; task++)
        p->job(p->context, task, thread);
  }
}

// Before a worker sleeps: it may go wherever it might before it was sent away, unless somebody else has said where since.
static void settle(prunus_bed *bed) {
  prunus_cpus now;
  cpus_of(&now);
  if (bed->sent && same_cpus(&now, &bed->away)) {
    go_to(pthread_self(), &bed->allowed);
  } else {
    bed->allowed = now;
  }
  bed->sent = 0;
}

// Sends a worker that sleeps to `cpu`, and keeps it off `callers`.
static void send_away(prunus_bed *bed, int cpu, int callers) {
  if (!send_to(bed->thread, cpu, &bed->allowed)) return;
  bed->away = bed->allowed;
  without_cpu(&bed->away, callers);
  bed->sent = 1;
}

// Waits for a job other than number `seen`, and returns the state with it.
static uint64_t await_job(prunus_pool *p, prunus_bed *bed, uint64_t seen) {
  uint64_t state;
  for (unsigned spins = 1; (state = atomic_load_explicit(&p->state, memory_order_acquire)) / JOB == seen; spins++) {
    if (spins < SPINS) {
      spin(spins);
      continue;
    }
    pthread_mutex_lock(&p->mutex);
    settle(bed);
    bed->sleeps = 1;
    atomic_fetch_add(&p->sleeping, 1);
    while (atomic_load(&p->state) / JOB == seen) pthread_cond_wait(&p->wake, &p->mutex);
    atomic_fetch_sub(&p->sleeping, 1);
    bed->sleeps = 0;
    const prunus_cpus away = bed->away;
    const int sent = bed->sent;
    pthread_mutex_unlock(&p->mutex);
    if (sent) go_to(pthread_self(), &away);
  }
  return state;
}

static void *worker_main(void *argument) {
  prunus_worker self = *(prunus_worker *)argument;
  free(argument);
  prunus_pool *p = self.pool;
  prunus_bed *bed = p->beds + self.thread - 1;
  for (uint64_t state = 0;;) {
    state = await_job(p, bed, state / JOB);
    if (atomic_load(&p->stop)) return NULL;
    while (state & OPEN) {
      if (atomic_compare_exchange_weak_explicit(&p->state, &state, state + 1, memory_order_acquire, memory_order_relaxed)) {
        take_tasks(p, self.thread);
        atomic_fetch_sub_explicit(&p->state, 1, memory_order_release);
        break;
      }
    }
  }
}

// Makes `next` the state, while no job is open and nobody inside, and wakes those who sleep.
static void announce(prunus_pool *p, uint64_t next) {
  atomic_store(&p->state, next);
  if (atomic_load(&p->sleeping)) {
    pthread_mutex_lock(&p->mutex);
    const int here = place_of(p->cpus, p->n_cpus);
    for (int i = 1; here >= 0 && i < p->threads; i++)
      if (p->beds[i - 1].sleeps) send_away(&p->beds[i - 1], p->cpus[(here + i) % p->n_cpus], p->cpus[here]);
    pthread_cond_broadcast(&p->wake);
    pthread_mutex_unlock(&p->mutex);
  }
}

// Tasks of fewer than GRAIN elements are taken several at a time.
static void run_job(prunus_pool *p, prunus_job *job, void *context, int64_t n_tasks, int64_t elements) {
  const int64_t per_claim = elements < GRAIN ? GRAIN / (elements > 1 ? elements : 1) : 1;
  if (p->threads == 1 || n_tasks <= per_claim) {
    for (int64_t task = 0; task < n_tasks; task++) job(context, task, 0);
    return;
  }
  p->job = job, p->context = context, p->n_tasks = n_tasks, p->per_claim = per_claim;
  const int64_t claims = (n_tasks + per_claim - 1) / per_claim;
  for (int t = 0; t < p->threads; t++) {
    atomic_store_explicit(&p->shares[t].next, claims * t / p->threads, memory_order_relaxed);
    p->shares[t].end = claims * (t + 1) / p->threads;
  }
  announce(p, atomic_load_explicit(&p->state, memory_order_relaxed) + JOB + OPEN);
  take_tasks(p, 0);
  uint64_t state = atomic_fetch_and_explicit(&p->state, ~OPEN, memory_order_acquire);
  for (unsigned spins = 1; state & INSIDE; spins++) {
    spin(spins);
    state = atomic_load_explicit(&p->state, memory_order_acquire);
  }
}

// All threads of a pool at one place: `here` of `threads` have come.
typedef struct {
  atomic_int here;
  int threads;
} prunus_meeting;

static void meet_task(void *context, int64_t task, int thread) {
  (void)task, (void)thread;
  prunus_meeting *m = context;
  atomic_fetch_add(&m->here, 1);
  for (unsigned spins = 1; spins < 4 * SPINS && atomic_load(&m->here) < m->threads; spins++) spin(spins);
}

// Wakes the workers and waits until they are there, or for some milliseconds: where times are to be those of threads that
// are awake.
static void pool_gather(prunus_pool *p) {
  prunus_meeting m = {.threads = p->threads};
  run_job(p, meet_task, &m, p->threads, GRAIN);
}

static void pool_destroy(prunus_pool *p) {
  atomic_store(&p->stop, 1);
  announce(p, atomic_load(&p->state) + JOB);
  for (int i = 0; i < p->threads - 1; i++) pthread_join(p->beds[i].thread, NULL);
  pthread_mutex_destroy(&p->mutex);
  pthread_cond_destroy(&p->wake);
  free(p->beds);
  free(p->cpus);
  free(p->shares);
  free(p);
}

// Tells where workers are to wake: `cpus`, in an order in which neighbours share least. Nowhere in particular, as before,
// where there are more threads than that.
static void pool_place(prunus_pool *p, const int32_t *cpus, int n_cpus) {
  int *list = n_cpus >= p->threads ? malloc(sizeof *list * (size_t)n_cpus) : NULL;
  for (int i = 0; list && i < n_cpus; i++) list[i] = cpus[i];
  pthread_mutex_lock(&p->mutex);
  free(p->cpus);
  p->cpus = list, p->n_cpus = list ? n_cpus : 0;
  pthread_mutex_unlock(&p->mutex);
}

// A pool of fewer threads where the system grants no more; NULL when out of memory.
static prunus_pool *pool_create(int threads) {
  prunus_pool *p = aligned_alloc(64, (sizeof *p + 63) / 64 * 64);
  if (!p) return NULL;
  *p = (prunus_pool){.threads = 1, .beds = calloc((size_t)threads, sizeof(prunus_bed)),
                     .shares = aligned_alloc(64, sizeof(prunus_share) * (size_t)threads)};
  if (!p->shares) {
    free(p->beds);
    free(p);
    return NULL;
  }
  pthread_mutex_init(&p->mutex, NULL);
  pthread_cond_init(&p->wake, NULL);
  for (int i = 1; p->beds && i < threads; i++) {
    prunus_worker *w = malloc(sizeof *w);
    if (!w) break;
    *w = (prunus_worker){p, i};
    if (pthread_create(&p->beds[i - 1].thread, NULL, worker_main, w)) {
      free(w);
      break;
    }
    p->threads++;
  }
  return p;
}
#endif
