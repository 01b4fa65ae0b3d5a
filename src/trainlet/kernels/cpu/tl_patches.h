/* Patches of a convolution as the rows of a matrix (im2col), a tile at a time. Internal to the dense kernels. */
#ifndef TL_PATCHES_H
#define TL_PATCHES_H

#include <string.h>

#include "tl_types.h"

/* Columns first .. last-1 of [kh][kw][c] of the patches under results p .. p+count-1, `pitch` floats apart. */
static inline void tl_fill_patches(const tl_conv_shape *s, const float *x, int32_t p, int32_t count, int32_t first,
                                   int32_t last, float *to, int32_t pitch) {
  for (int32_t i = 0; i < count; i++, p++, to += pitch) {
    int32_t row = p / s->ow, n = row / s->oh, left = (p - row * s->ow) * s->sw - s->pl;
    int32_t top = (row - n * s->oh) * s->sh - s->pt, line = s->kw * s->c;
    for (int32_t col = first; col < last;) {
      int32_t ky = col / line, in_line = col - ky * line, kx = in_line / s->c, c = in_line - kx * s->c;
      int32_t iy = top + ky * s->dh, ix = left + kx * s->dw;
      int32_t left_over = (ky + 1) * line - col, whole = s->dw == 1 && left >= 0 && left + s->kw <= s->w;
      int32_t run = whole || iy < 0 || iy >= s->h ? left_over : s->c - c;
      if (run > last - col) run = last - col;
      float *here = to + (col - first);
      if (iy < 0 || iy >= s->h || ix < 0 || ix >= s->w) {
        memset(here, 0, (size_t)run * sizeof *here);
      } else {
        memcpy(here, x + (((int64_t)n * s->h + iy) * s->w + ix) * s->c + c, (size_t)run * sizeof *here);
      }
      col += run;
    }
  }
}

#endif
