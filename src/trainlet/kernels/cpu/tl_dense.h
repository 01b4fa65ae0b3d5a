/* Dense convolutions with a window, fp32: tiles of patches (im2col) through tl_gemm. Weights as panels, sums over taps
 * (ky, kx) ascending, within a tap over channels; taps in the padding count as 0. groups == 1.
 *
 * Scratch of each thread: tl_dense_tile(k) rows of k = kh * kw * c floats, and TL_VL.
 */
#ifndef TL_DENSE_H
#define TL_DENSE_H

#include "tl_gemm.h"
#include "tl_types.h"

/* Positions in one tile of patches of k floats: a multiple of 24, a few hundred kilobytes. */
static inline int32_t tl_dense_tile(int32_t k) {
  int32_t tile = 65536 / (k > 0 ? k : 1) / 24 * 24;
  return tile < 24 ? 24 : tile > 480 ? 480 : tile;
}

typedef struct {
  tl_conv_shape s;
  const float *x;
  const float *panels; /* [o] columns over k rows */
  float *y;
  tl_finish finish;
  float *tiles;        /* scratch of all threads */
} tl_dense;

/* A tl_part over positions. */
void tl_dense_rows(const void *dense, int32_t part, int32_t parts);

/* dx of a convolution with strides or dilation: s is the forward shape, x holds dy, y is dx. Pixels with the same
 * remainder by the stride see the same taps: each such class is a product of its own. panels: classes (ry, rx) one
 * after another, k = its taps * o, columns c. */
void tl_dense_grad_rows(const void *dense, int32_t part, int32_t parts);

/* Positions and columns of dw that are worked on at once. */
enum { TL_WEIGHTS_DEPTH = 128, TL_WEIGHTS_COLUMNS = 24 * TL_VL };

/* Scratch of a thread, in floats. */
static inline int64_t tl_weights_floats(int32_t k, int32_t o) {
  int64_t columns = k < TL_WEIGHTS_COLUMNS ? k : TL_WEIGHTS_COLUMNS;
  return TL_WEIGHTS_DEPTH * (columns + o) + TL_VL;
}

typedef struct {
  tl_conv_shape s;
  const float *x, *dy;
  float *sums;          /* scratch: [o][k] */
  float *tiles;         /* scratch of all threads, tl_weights_floats each */
  const tl_update *u;
} tl_dense_weights;

/* A tl_part over columns of dw [o][k], then their update. */
void tl_dense_weights_part(const void *weights, int32_t part, int32_t parts);

/* Panels for dx: k = used taps * o rows, c columns, from weights [o][taps][c]; list names the taps in the order of the
 * patches of dy. (At stride 1: all, in the opposite order; else those of one class of pixels.) */
typedef struct {
  const float *w;
  float *panels;
  int32_t o, taps, c;
  int32_t used;
  const uint8_t *list;
} tl_pack_grad;

/* A tl_part over panels. */
void tl_pack_grad_panels(const void *pack, int32_t part, int32_t parts);

#endif
