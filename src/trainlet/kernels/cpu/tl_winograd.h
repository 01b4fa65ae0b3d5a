/* 3x3 convolutions at stride 1 by Winograd's F(4x4, 3x3) (Lavin and Gray, arXiv:1509.09308): a tile of 4x4 results from
 * 6x6 inputs takes 36 products a channel pair instead of 144. In fp32 its sums lose about one decimal digit against direct ones;
 * docs/cpu-backend.md states what is measured.
 */
#ifndef TL_WINOGRAD_H
#define TL_WINOGRAD_H

#include "tl_gemm.h"
#include "tl_types.h"

enum { TL_WINOGRAD_POINTS = 36 };

typedef struct {
  tl_conv_shape s;     /* kh = kw = 3, strides and dilations 1, groups 1 */
  const float *x;
  const float *panels; /* per point, transformed weights: k = c rows, o columns, as tl_gemm.h wants them */
  float *y;
  tl_finish finish;    /* masks only where tl_masks_in_registers(o) */
  float *tiles;        /* scratch of all threads: tl_winograd_floats each */
} tl_winograd;

/* Tiles transformed at once. */
static inline int32_t tl_winograd_block(int32_t c, int32_t o) { return c + o >= 512 ? 48 : 24; }

static inline int64_t tl_winograd_floats(int32_t c, int32_t o) {
  return (int64_t)TL_WINOGRAD_POINTS * tl_winograd_block(c, o) * ((c + TL_VL - 1) / TL_VL * TL_VL + (o + TL_VL - 1) / TL_VL * TL_VL);
}

/* A tl_part over tiles, or over outputs where tiles are few. */
void tl_winograd_part(const void *winograd, int32_t part, int32_t parts);

typedef struct {
  const float *w;  /* [o][3][3][c] */
  float *panels;   /* 36 * (rows * columns rounded up) */
  int32_t o, c;
  int32_t gradient; /* 0: c rows, o columns; 1: o rows, c columns, the taps in the opposite order */
} tl_winograd_pack;

/* A tl_part over panels. */
void tl_winograd_pack_part(const void *pack, int32_t part, int32_t parts);

#endif
