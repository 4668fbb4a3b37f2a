// Where workers wake. A system that sees all other cores asleep may wake a worker on its caller's core, and leave both there
// for milliseconds: in a virtual machine a core at rest doesn't count as free. So a worker that sleeps is first sent to
// a core of its own, counted from the caller's, and kept off the caller's until it sleeps again.
#ifndef PRUNUS_PLACE_H
#define PRUNUS_PLACE_H
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>

#ifdef __linux__
typedef cpu_set_t prunus_cpus;

static void cpus_of(prunus_cpus *allowed) {
  if (pthread_getaffinity_np(pthread_self(), sizeof *allowed, allowed)) CPU_ZERO(allowed);
}

static void go_to(pthread_t thread, const prunus_cpus *allowed) {
  if (CPU_COUNT(allowed)) (void)pthread_setaffinity_np(thread, sizeof *allowed, allowed);
}

// Sends a thread to `cpu`, where it is allowed to go there; was it?
static int send_to(pthread_t thread, int cpu, const prunus_cpus *allowed) {
  if (cpu < 0 || cpu >= CPU_SETSIZE || !CPU_ISSET(cpu, allowed)) return 0;
  prunus_cpus one;
  CPU_ZERO(&one);
  CPU_SET(cpu, &one);
  go_to(thread, &one);
  return 1;
}

static int same_cpus(const prunus_cpus *a, const prunus_cpus *b) { return CPU_EQUAL(a, b); }
static void without_cpu(prunus_cpus *set, int cpu) { CPU_CLR(cpu, set); }

static int this_cpu(void) { return sched_getcpu(); }
#else
typedef int prunus_cpus;
static void cpus_of(prunus_cpus *allowed) { *allowed = 0; }
static void go_to(pthread_t thread, const prunus_cpus *allowed) { (void)thread, (void)allowed; }
static int send_to(pthread_t thread, int cpu, const prunus_cpus *allowed) { return (void)thread, (void)cpu, (void)allowed, 0; }
static int same_cpus(const prunus_cpus *a, const prunus_cpus *b) { return *a == *b; }
static void without_cpu(prunus_cpus *set, int cpu) { (void)set, (void)cpu; }
static int this_cpu(void) { return -1; }
#endif

// The index of the caller's CPU in a list, or -1.
static int place_of(const int *cpus, int n_cpus) {
  const int here = this_cpu();
  for (int i = 0; i < n_cpus; i++)
    if (cpus[i] == here) return i;
  return -1;
}
#endif
