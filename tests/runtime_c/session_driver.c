/* A session on the emitted network `residual`, opened from Python. SAMPLE: its type of samples; ACCUMULATE: defined for
 * a program that accumulates. */
#include <string.h>

#include "residual.h"
#include "session.h"

#ifdef ACCUMULATE
TL_SESSION_ACCUMULATING_PROGRAM(residual, RESIDUAL, SAMPLE, 5)
#else
TL_SESSION_PROGRAM(residual, RESIDUAL, SAMPLE, 5)
#endif

typedef struct {
  residual_t m; /* first: the driver's address is the program's */
  tl_session s;
} driver;

uint32_t driver_bytes(void);
uint32_t driver_memory(driver *d, const tl_session_config *config, int in_place);
int driver_open(driver *d, const tl_session_config *config, int in_place, void *memory, uint32_t bytes,
                tl_store_status *loaded);
tl_session *driver_session(driver *d);
uint32_t driver_kept(driver *d, int held, int32_t *labels, uint8_t *boundaries);
uint32_t driver_stored(driver *d, int held, uint32_t *stored);

uint32_t driver_bytes(void) { return (uint32_t)sizeof(driver); }

static tl_session_program program_of(driver *d, int in_place) {
  tl_session_program p = residual_session_program(&d->m);
  if (!in_place) p.state = NULL;
  return p;
}

uint32_t driver_memory(driver *d, const tl_session_config *config, int in_place) {
  const tl_session_program p = program_of(d, in_place);
  return tl_session_bytes(&p, config);
}

int driver_open(driver *d, const tl_session_config *config, int in_place, void *memory, uint32_t bytes,
                tl_store_status *loaded) {
  residual_init(&d->m, config->seed);
  const tl_session_program p = program_of(d, in_place);
  return (int)tl_session_begin(&d->s, &p, config, memory, bytes, loaded);
}

tl_session *driver_session(driver *d) { return &d->s; }

/* Labels and boundaries of a reservoir's samples, and their number. */
uint32_t driver_kept(driver *d, int held, int32_t *labels, uint8_t *boundaries) {
  const tl_session_reservoir *r = held ? &d->s.held : &d->s.replay;
  for (uint32_t i = 0; i < r->count; i++) {
    memcpy(&labels[i], r->samples + i * r->stride, 4);
    labels[i] &= 0x3fffffff;
    memcpy(boundaries + i * r->boundary_bytes, r->samples + i * r->stride + 4, r->boundary_bytes);
  }
  return r->count;
}

/* The reservoir's own count of samples in each class, and its capacity. */
uint32_t driver_stored(driver *d, int held, uint32_t *stored) {
  const tl_session_reservoir *r = held ? &d->s.held : &d->s.replay;
  for (int i = 0; i < 5; i++) stored[i] = r->classes[i].stored;
  return r->capacity;
}
