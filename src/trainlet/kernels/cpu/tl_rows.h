/* Elementwise and channelwise kernels in fp32, each a tl_part. */
#ifndef TL_ROWS_H
#define TL_ROWS_H

#include "tl_finish.h"

typedef struct {
  const float *dy; /* [positions][channels] */
  int32_t positions, channels;
  float *sums;     /* [TL_CHUNKS][channels], and a register behind: for tl_chunks_part */
} tl_bias_sums;

/* Sums over the positions of each chunk (tl_chunks.h). Over chunks. */
void tl_bias_sums_part(const void *sums, int32_t part, int32_t parts);

typedef struct {
  const float *x;
  float *y; /* may be x */
  int32_t count;
  tl_finish finish; /* no bias; add, clip and masks by element */
} tl_each;

/* y = finish(x). Over elements. */
void tl_each_part(const void *each, int32_t part, int32_t parts);

typedef struct {
  const float *x; /* [n][positions][channels] */
  float *y;       /* [n][channels] */
  int32_t n, positions, channels;
} tl_mean_f32;

/* Mean over positions, and its gradient (x: dx, y: dy). Over samples and channels. */
void tl_mean_part(const void *mean, int32_t part, int32_t parts);
void tl_mean_grad_part(const void *mean, int32_t part, int32_t parts);

#endif
