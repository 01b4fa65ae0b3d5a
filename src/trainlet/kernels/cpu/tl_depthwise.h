/* Depthwise convolutions in fp32: a register of channels at a time, taps from memory, sums in registers.
 *
 * taps: [kh * kw][channels rounded up to TL_VL], see tl_pack_taps. Every sum runs over taps (ky, kx) ascending, those in
 * the padding left out, contracted; results do not depend on the number of threads. Channels c..c+TL_VL-1 of a pixel are
 * read as one register: where c is no multiple of TL_VL, up to TL_VL - 1 floats behind a tensor are read (not used).
 */
#ifndef TL_DEPTHWISE_H
#define TL_DEPTHWISE_H

#include "tl_finish.h"
#include "tl_types.h"

typedef struct {
  tl_conv_shape s;
  const float *x;    /* [n][h][w][c]; of an input gradient: dy [n][oh][ow][c] */
  const float *taps;
  float *y;          /* [n][oh][ow][c]; of an input gradient: dx [n][h][w][c] */
  tl_finish finish;
} tl_depthwise;

/* A tl_part over the rows of y. */
void tl_depthwise_rows(const void *depthwise, int32_t part, int32_t parts);

/* A tl_part over the rows of dx = conv_transpose(dy, w), any stride and dilation. (With stride 1 the forward
 * kernel on turned taps does the same, faster.) */
void tl_depthwise_grad_rows(const void *depthwise, int32_t part, int32_t parts);

typedef struct {
  tl_conv_shape s;
  const float *x;      /* [n][h][w][c] */
  const float *dy;     /* [n][oh][ow][c] */
  float *sums;         /* [TL_CHUNKS][kh * kw][c rounded up to TL_VL], for tl_chunks_turned_part */
} tl_depthwise_weights;

/* A tl_part over chunks of rows (tl_chunks.h): sums for the gradient of the weights. */
void tl_depthwise_weights_part(const void *weights, int32_t part, int32_t parts);

typedef struct {
  const float *w; /* [c][taps] */
  float *taps;    /* [taps][c rounded up to TL_VL] */
  int32_t c, count;
  int32_t turn;   /* taps in the opposite order */
} tl_taps;

/* A tl_part that does all of its work in part 0: taps are few. */
void tl_pack_taps(const void *taps, int32_t part, int32_t parts);

#endif
