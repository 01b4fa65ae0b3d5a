/* Dense convolutions of few channels (images), fp32: without patches. Rows of the input are copied once, with their padding;
 * a kernel row then is one run of kw * c floats for every result. groups == 1, no dilation, kh <= 8.
 *
 * Every sum runs over (ky, kx, channel) ascending, or over results ascending; results do not depend on the number of
 * threads. The last register of a pixel of dy is read whole: up to TL_VL - 1 floats behind it are read (not used).
 */
#ifndef TL_LINES_H
#define TL_LINES_H

#include "tl_finish.h"
#include "tl_gemm.h"
#include "tl_types.h"

/* Floats of one row with its padding. */
static inline int32_t tl_line_floats(const tl_conv_shape *s) {
  int32_t read = (s->ow - 1) * s->sw + s->kw, held = s->pl + s->w;
  return (read > held ? read : held) * s->c;
}

typedef struct {
  tl_conv_shape s;
  const float *x;      /* [n][h][w][c] */
  const float *panels; /* of tl_gemm.h: [o] columns over kh * kw * c rows */
  float *y;            /* [n][oh][ow][o] */
  tl_finish finish;
  float *lines;        /* scratch of all threads: kh * tl_line_floats each */
} tl_lines;

/* A tl_part over the rows of y. */
void tl_lines_rows(const void *lines, int32_t part, int32_t parts);

typedef struct {
  tl_conv_shape s;
  const float *x, *dy;
  float *sums;  /* [TL_CHUNKS][kh * kw * c][o rounded up to TL_VL], for tl_chunks_turned_part */
  float *lines; /* scratch of all threads: kh * tl_line_floats each */
} tl_lines_weights;

/* A tl_part over chunks of rows (tl_chunks.h): sums for the gradient of the weights. */
void tl_lines_weights_part(const void *weights, int32_t part, int32_t parts);

#endif
