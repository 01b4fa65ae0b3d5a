/* Sums over positions that threads split among themselves: TL_CHUNKS runs of positions, each with its own sums, added up in
 * order afterwards. The chunks do not depend on the number of threads, so neither does a result; a thread works on the
 * samples whose activations it has made, which are in its own caches.
 */
#ifndef TL_CHUNKS_H
#define TL_CHUNKS_H

#include "tl_parallel.h"
#include "tl_update.h"

enum { TL_CHUNKS = 4 };

/* Bounds of chunk `chunk` of `count` positions. */
static inline int32_t tl_chunk_bound(int32_t count, int32_t chunk) { return tl_bound(count, 1, chunk, TL_CHUNKS); }

/* Chunks first .. last-1 are part `part`'s. */
static inline int32_t tl_first_chunk(int32_t part, int32_t parts) { return tl_bound(TL_CHUNKS, 1, part, parts); }

typedef struct {
  float *sums;         /* [TL_CHUNKS][rows][pitch]; chunk 0 is overwritten */
  float *turned;       /* scratch: [columns][rows]; only for tl_chunks_turned_part */
  int32_t rows, columns, pitch;
  const tl_update *u;  /* of a gradient [rows][columns], with pitch == columns; or [columns][rows] (turned) */
} tl_chunks;

/* A tl_part over elements: their sums, then the update. */
void tl_chunks_part(const void *chunks, int32_t part, int32_t parts);

/* The same over columns, for a gradient that lies the other way. */
void tl_chunks_turned_part(const void *chunks, int32_t part, int32_t parts);

#endif
