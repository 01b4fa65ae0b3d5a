/* Patches of a convolution as the rows of a matrix (im2col), a tile at a time. Internal to the dense kernels. */
#ifndef TL_PATCHES_H
#define TL_PATCHES_H

#include <string.h>

#include "tl_simd.h"
#include "tl_types.h"

/* A patch that lies inside, whole: each kernel row is one run. Runs are copied in whole registers; what that writes
 * behind a run the next one overwrites, and the last reaches up to TL_VL - 1 floats behind the patch. */
static inline void tl_copy_patch(const tl_conv_shape *s, const float *x, float *to) {
  const int32_t run = s->kw * s->c;
  for (int32_t ky = 0; ky < s->kh; ky++, x += (int64_t)s->dh * s->w * s->c, to += run)
    for (int32_t i = 0; i < run; i += TL_VL) tl_save(to + i, tl_load(x + i));
}

/* Columns first .. last-1 of a patch, a run at a time; top, left: of tap (0, 0). */
static inline void tl_copy_columns(const tl_conv_shape *s, const float *x, int32_t top, int32_t left, int32_t first,
                                   int32_t last, float *to) {
  const int32_t line = s->kw * s->c;
  for (int32_t col = first, run; col < last; col += run, to += run) {
    int32_t ky = col / line, in_line = col - ky * line, kx = in_line / s->c, c = in_line - kx * s->c;
    int32_t iy = top + ky * s->dh, ix = left + kx * s->dw;
    run = iy < 0 || iy >= s->h ? line - in_line : s->c - c;
    if (run > last - col) run = last - col;
    if (iy < 0 || iy >= s->h || ix < 0 || ix >= s->w) {
      memset(to, 0, (size_t)run * sizeof *to);
    } else {
      memcpy(to, x + ((int64_t)iy * s->w + ix) * s->c + c, (size_t)run * sizeof *to);
    }
  }
}

/* Columns first .. last-1 of [kh][kw][c] of the patches under results p .. p+count-1, `pitch` floats apart. Up to
 * TL_VL - 1 floats behind the last patch are written, and as many behind x are read. */
static inline void tl_fill_patches(const tl_conv_shape *s, const float *x, int32_t p, int32_t count, int32_t first,
                                   int32_t last, float *to, int32_t pitch) {
  const int32_t whole = s->dw == 1 && first == 0 && last == s->kh * s->kw * s->c && last == pitch;
  for (int32_t i = 0; i < count; i++, p++, to += pitch) {
    int32_t row = p / s->ow, n = row / s->oh, left = (p - row * s->ow) * s->sw - s->pl;
    int32_t top = (row - n * s->oh) * s->sh - s->pt;
    const float *image = x + (int64_t)n * s->h * s->w * s->c;
    int32_t inside = left >= 0 && left + s->kw <= s->w && top >= 0 && top + (s->kh - 1) * s->dh < s->h;
    if (whole && inside) {
      tl_copy_patch(s, image + ((int64_t)top * s->w + left) * s->c, to);
    } else {
      tl_copy_columns(s, image, top, left, first, last, to);
    }
  }
}

#endif
