/* Weights of which other channels are trained in every epoch. No scratch. */
#ifndef TL_REDRAW_H
#define TL_REDRAW_H

#include "tl_types.h"

/* base: the whole weight [outer][total][inner], s8 or f32, which trained [outer][k][inner] overlays at `channels`.
 * A float `trained` over an s8 base is a master, rounded half to even. stream: which of the program's weights it is. */
typedef struct {
  void *base, *trained;
  uint16_t *channels;
  int32_t base_f32, trained_f32;
  int32_t outer, total, inner, k;
  uint32_t stream;
} tl_redrawn;

/* The channels of an epoch instead of those before: trained goes back into base (not if `first`: there is nothing yet),
 * then holds the new ones. Channels are shuffled by (seed, stream) and taken k at a time; when fewer than k are left they
 * are shuffled again.
 * Takes total^2 steps and no memory. */
void tl_redraw(const tl_redrawn *w, uint32_t seed, uint32_t epoch, int32_t first);

#endif
