/* Threads of the CPU kernels: a pool that waits by spinning, work split by the caller before it runs.
 *
 * A kernel is a function (argument, part, parts): it computes its part of the result, and parts write disjoint
 * memory, each element's sum in an order that does not depend on `parts`. So results do not depend on the number of
 * threads, except where a kernel says so.
 */
#ifndef TL_PARALLEL_H
#define TL_PARALLEL_H

#include <stdint.h>

typedef void (*tl_part)(const void *argument, int32_t part, int32_t parts);

/* run(argument, part, parts) for every part in 0 .. parts-1 (at most 64); returns when all are done. The split is fixed,
 * not who runs what: the calling thread begins with part 0 and takes every part that no other thread has begun. Threads
 * are started at the first call that needs them and sleep when nothing has come for a while. One caller at a time has
 * the pool; others run alone. */
void tl_parallel(tl_part run, const void *argument, int32_t parts);

/* Bounds of part `part` when `count` items are split into `parts` runs whose starts are multiples of `grain`. */
static inline int32_t tl_bound(int32_t count, int32_t grain, int32_t part, int32_t parts) {
  int32_t grains = (count + grain - 1) / grain, at = (int32_t)((int64_t)grains * part / parts) * grain;
  return at < count ? at : count;
}

#endif
