#include "tl_parallel.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stddef.h>

enum { MOST = 63 };                    /* threads beside the caller */
enum { SPINS = 10000, SHORT = 2000 };  /* waits of some hundred, some ten microseconds, before sleep or yielding */

/* The job's number, its parts, and the next part that nobody has begun: whoever gets it by exchange runs it. */
#define TICKET(job, parts, next) (((uint64_t)(job) << 16) | ((uint64_t)(parts) << 8) | (uint64_t)(next))

static struct {
  pthread_mutex_t lock;
  pthread_cond_t wake;
  atomic_flag taken;      /* one caller at a time */
  _Atomic uint64_t ticket;
  atomic_int done;        /* parts of the job that are finished */
  atomic_int sleeping;
  int32_t workers;
  tl_part run;            /* the job: only read by who holds a part of it, so never while it is replaced */
  const void *argument;
} pool = {.lock = PTHREAD_MUTEX_INITIALIZER, .wake = PTHREAD_COND_INITIALIZER, .taken = ATOMIC_FLAG_INIT};

static inline void pause_briefly(void) {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ volatile("yield");
#endif
}

/* Runs one part that nobody has begun; 0 where there is none. */
static int run_a_part(void) {
  uint64_t ticket = atomic_load_explicit(&pool.ticket, memory_order_acquire);
  do {
    if ((ticket & 255) >= (ticket >> 8 & 255)) return 0;
  } while (!atomic_compare_exchange_weak_explicit(&pool.ticket, &ticket, ticket + 1, memory_order_acquire,
                                                  memory_order_acquire));
  pool.run(pool.argument, (int32_t)(ticket & 255), (int32_t)(ticket >> 8 & 255));
  atomic_fetch_add_explicit(&pool.done, 1, memory_order_release);
  return 1;
}

/* Until the ticket is of another job than `seen`: spins, then sleeps. */
static uint64_t wait_for_job(uint64_t seen) {
  uint64_t now;
  for (int i = 0; i < SPINS; i++) {
    if ((now = atomic_load_explicit(&pool.ticket, memory_order_acquire) >> 16) != seen) return now;
    pause_briefly();
  }
  pthread_mutex_lock(&pool.lock);
  atomic_fetch_add(&pool.sleeping, 1);
  while ((now = atomic_load(&pool.ticket) >> 16) == seen) pthread_cond_wait(&pool.wake, &pool.lock);
  atomic_fetch_sub(&pool.sleeping, 1);
  pthread_mutex_unlock(&pool.lock);
  return now;
}

static void *work(void *unused) {
  (void)unused;
  for (uint64_t seen = 0;;) {
    seen = wait_for_job(seen);
    while (run_a_part()) {
    }
  }
  return NULL;
}

/* The child of a fork has no workers. */
static void forget(void) {
  pool.workers = 0;
  atomic_store(&pool.sleeping, 0);
  atomic_flag_clear(&pool.taken);
  pthread_mutex_init(&pool.lock, NULL);
  pthread_cond_init(&pool.wake, NULL);
}

static void start_workers(int32_t wanted) {
  static int registered;
  if (!registered) registered = pthread_atfork(NULL, NULL, forget) == 0;
  for (; pool.workers < wanted && pool.workers < MOST; pool.workers++) {
    pthread_t thread;
    if (pthread_create(&thread, NULL, work, NULL) != 0) return;
    pthread_detach(thread);
  }
}

static void start_job(tl_part run, const void *argument, int32_t parts) {
  uint64_t job = (atomic_load_explicit(&pool.ticket, memory_order_relaxed) >> 16) + 1;
  pool.run = run;
  pool.argument = argument;
  atomic_store_explicit(&pool.done, 1, memory_order_relaxed); /* part 0 is the caller's */
  atomic_store(&pool.ticket, TICKET(job, parts, 1));
  if (atomic_load(&pool.sleeping)) {
    pthread_mutex_lock(&pool.lock);
    pthread_cond_broadcast(&pool.wake);
    pthread_mutex_unlock(&pool.lock);
  }
}

static void wait_until_done(int32_t parts) {
  for (int i = 0; atomic_load_explicit(&pool.done, memory_order_acquire) < parts; i++) {
    if (i < SHORT) {
      pause_briefly();
    } else {
      sched_yield(); /* another program has the processor of a worker */
    }
  }
}

void tl_parallel(tl_part run, const void *argument, int32_t parts) {
  if (parts <= 1 || atomic_flag_test_and_set(&pool.taken)) {
    for (int32_t part = 0; part < parts; part++) run(argument, part, parts);
    return;
  }
  start_workers(parts - 1);
  start_job(run, argument, parts);
  run(argument, 0, parts);
  while (run_a_part()) {
  }
  wait_until_done(parts);
  atomic_flag_clear(&pool.taken);
}
