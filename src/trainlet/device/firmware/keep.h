/* The store (runtime/c/store.h) in the firmware, over a flash that outlives a power cut. Built in with TL_KEEP.
 *
 * The flash is simulated: two slots of NOR flash in the file flash.bin of whoever emulates the board. An erase fills a
 * slot with 0xff, programming clears bits, in whole units, each once per erase. An erase or a unit is one operation; in
 * operation number `cut_at` the power goes: it is torn as `tear` says, and nothing runs after it. Nothing but the flash
 * survives, so a cut between two operations is one in the next of them that changed nothing.
 */
#ifndef TL_KEEP_H
#define TL_KEEP_H

#include <stdint.h>

enum { TL_TEAR_NOTHING, TL_TEAR_FIRST_HALF, TL_TEAR_SECOND_HALF, TL_TEAR_SOME_BITS, TL_TEAR_GARBAGE, TL_TEAR_COMPLETE };

/* The newest record into `state`; its sequence, 0 where there is none. *status: tl_store_status, 0 done. */
uint32_t tl_keep_load(void *state, uint32_t cut_at, uint32_t tear, uint32_t *status);

/* One more record. Returns tl_store_status. */
uint32_t tl_keep_save(const void *state);

/* Operations since the start. */
uint32_t tl_keep_operations(void);

#endif
