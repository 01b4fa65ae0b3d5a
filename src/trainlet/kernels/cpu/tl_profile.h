/* With -DTL_PROFILE: the least processor time each step of a program ever took on the calling thread, in nanoseconds.
 * Least, because what else the machine does only adds. Included once, by the emitted program. */
#ifndef TL_PROFILE_H
#define TL_PROFILE_H

#include <stdint.h>
#include <time.h>

enum { TL_PROFILE_STEPS = 8192 };
uint64_t tl_profile_least[TL_PROFILE_STEPS];
static uint64_t tl_profile_since;
static int32_t tl_profile_step = -1;

static inline uint64_t tl_profile_now(void) {
  struct timespec t;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* Step `i` begins (-1: none), the one before it ends. */
static inline void tl_profile_mark(int32_t i) {
  uint64_t now = tl_profile_now(), *least = &tl_profile_least[tl_profile_step < 0 ? 0 : tl_profile_step];
  if (tl_profile_step >= 0 && (*least == 0 || now - tl_profile_since < *least)) *least = now - tl_profile_since;
  tl_profile_step = i;
  tl_profile_since = tl_profile_now();
}

#endif
