/* Where the window of an output position lies in the input. Internal to the kernels. */
#ifndef TL_WINDOW_H
#define TL_WINDOW_H

#include "tl_types.h"

typedef struct {
  int32_t iy, ix; /* input coordinates of tap (0, 0), may lie in the padding */
  int32_t pixel;  /* (n * h + iy) * w + ix, may be negative */
  int32_t image, oy, ox;
} tl_window;

static inline tl_window tl_window_at(const tl_conv_shape *s, int32_t image, int32_t oy, int32_t ox) {
  tl_window at = {oy * s->sh - s->pt, ox * s->sw - s->pl, 0, image, oy, ox};
  at.pixel = (image * s->h + at.iy) * s->w + at.ix;
  return at;
}

static inline tl_window tl_window_of(const tl_conv_shape *s, int32_t position) {
  int32_t row = position / s->ow, image = row / s->oh;
  return tl_window_at(s, image, row - image * s->oh, position - row * s->ow);
}

/* To the next position, without the divisions: they would cost more than a small window's products. */
static inline void tl_window_next(const tl_conv_shape *s, tl_window *at) {
  if (++at->ox < s->ow) {
    at->ix += s->sw;
    at->pixel += s->sw;
  } else if (++at->oy < s->oh) {
    *at = tl_window_at(s, at->image, at->oy, 0);
  } else {
    *at = tl_window_at(s, at->image + 1, 0, 0);
  }
}

static inline int tl_window_has(const tl_conv_shape *s, const tl_window *at, int32_t ky, int32_t kx) {
  int32_t iy = at->iy + ky * s->dh, ix = at->ix + kx * s->dw;
  return (uint32_t)iy < (uint32_t)s->h && (uint32_t)ix < (uint32_t)s->w;
}

static inline int tl_window_inside(const tl_conv_shape *s, const tl_window *at) {
  return at->iy >= 0 && at->ix >= 0 && at->iy + (s->kh - 1) * s->dh < s->h && at->ix + (s->kw - 1) * s->dw < s->w;
}

/* Whether the window of position p is just position p of the input: a 1x1 convolution, a matrix product. */
static inline int tl_window_is_row(const tl_conv_shape *s) {
  return s->kh == 1 && s->kw == 1 && s->sh == 1 && s->sw == 1 && s->pt == 0 && s->pl == 0 && s->oh == s->h &&
         s->ow == s->w;
}

/* The taps first <= k < last with 0 <= start + k * dilation < extent. */
static inline int32_t tl_first_tap(int32_t start, int32_t dilation) {
  return start >= 0 ? 0 : (-start + dilation - 1) / dilation;
}

static inline int32_t tl_last_tap(int32_t start, int32_t dilation, int32_t extent, int32_t taps) {
  if (start + (taps - 1) * dilation < extent) return taps;
  return start < extent ? (extent - 1 - start) / dilation + 1 : 0;
}

#endif
