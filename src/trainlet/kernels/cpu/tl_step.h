/* Optimizer steps on whole fp32 tensors: tl_update.h for .stored = TL_T_F32 without row_scale, vectorised.
 * Roundings may be contracted: equal to tl_update_row within the last bits. */
#ifndef TL_STEP_H
#define TL_STEP_H

#include "tl_update.h"

/* Elements first .. first+count-1; grad: [count]. */
void tl_step_range(const tl_update *u, int32_t first, const float *grad, int32_t count);

typedef struct {
  const tl_update *u;
  const float *grad;
  int32_t count;
  float factor; /* of grad */
} tl_step_all;

/* A tl_part over a tl_step_all. */
void tl_step_part(const void *step, int32_t part, int32_t parts);

#endif
