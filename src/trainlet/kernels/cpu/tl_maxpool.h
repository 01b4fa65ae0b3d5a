/* Maximum over windows in fp32 and its gradient, a register of channels at a time. The first of equal elements counts.
 * Up to TL_VL - 1 floats behind a tensor are read (not used) where c is no multiple of TL_VL. */
#ifndef TL_MAXPOOL_H
#define TL_MAXPOOL_H

#include "tl_simd.h"
#include "tl_types.h"

typedef struct {
  tl_conv_shape s;
  const float *x;
  float *y;        /* forward: result [n][oh][ow][c] */
  const float *dy; /* backward */
  float *dx;       /* backward: result [n][h][w][c] */
} tl_maxpool;

/* A tl_part over rows of y. */
void tl_maxpool_rows(const void *pool, int32_t part, int32_t parts);

/* A tl_part over channels. */
void tl_maxpool_grad_channels(const void *pool, int32_t part, int32_t parts);

#endif
