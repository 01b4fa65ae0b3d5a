/* The int8 depthwise convolution: y[p][c] = sum over taps of x[p + tap][c] * w[tap][c], TL_LANES channels at a time.
 *
 * scratch: taps of those channels, s16 [kh * kw][lanes], so that a tap is one load next to one load of x; in place, behind
 * them a copy of those channels of an image, s8 [h][w][lanes].
 */
#include "tl_block.h"
#include "tl_conv.h"
#include "tl_requantize.h"
#include "tl_weights.h"
#include "tl_window.h"

/* x at the first lane: of the tensor, or of a copy. pitch: from a pixel to the next. */
typedef struct {
  const int8_t *x;
  int32_t pitch, zero;
} pixels;

/* One output position; width is a constant wherever it is TL_LANES. */
static inline void sum_taps(const tl_conv_shape *s, const tl_window *at, const pixels *from, const int16_t *taps,
                            int32_t width, tl_s32_lanes *sum) {
  int32_t ky1 = tl_last_tap(at->iy, s->dh, s->h, s->kh), kx0 = tl_first_tap(at->ix, s->dw);
  int32_t kx1 = tl_last_tap(at->ix, s->dw, s->w, s->kw);
  tl_s32_lanes acc = {0};
  for (int32_t ky = tl_first_tap(at->iy, s->dh); ky < ky1; ky++) {
    int32_t row = at->pixel + ky * s->dh * s->w;
    for (int32_t kx = kx0; kx < kx1; kx++) {
      tl_s32_lanes pixel, tap = {0};
      tl_get_s8(&pixel, from->x + (row + kx * s->dw) * from->pitch, width);
      const int16_t *row_taps = taps + (ky * s->kw + kx) * TL_LANES;
      for (int j = 0; j < TL_LANES; j++) tap[j] = row_taps[j];
      acc += (pixel - from->zero) * tap;
    }
  }
  *sum = acc;
}

/* first: index of the first output in y and mask. */
static void depthwise_lanes(const tl_conv_shape *s, const pixels *from, const int16_t *taps, const tl_requantizer *to,
                            int32_t first, int8_t *y, uint8_t *mask) {
  int32_t positions = s->n * s->oh * s->ow;
  tl_window at = tl_window_of(s, 0);
  for (int32_t p = 0; p < positions; p++, tl_window_next(s, &at)) {
    tl_s32_lanes sum;
    int32_t acc[TL_LANES];
    if (to->width == TL_LANES) {
      sum_taps(s, &at, from, taps, TL_LANES, &sum);
    } else {
      sum_taps(s, &at, from, taps, to->width, &sum);
    }
    memcpy(acc, &sum, sizeof acc);
    tl_requantize_lanes(to, acc, first + p * s->c, y, mask);
  }
}

/* Over its own operand, image by image: channels c .. of d are copied before they are overwritten. */
static void depthwise_inplace(const tl_conv_shape *s, int32_t x_zero, const int16_t *taps, const tl_requantizer *to,
                              int32_t c, int8_t *d, uint8_t *mask, int8_t *copy) {
  const pixels from = {copy, TL_LANES, x_zero};
  const int32_t positions = s->h * s->w;
  tl_conv_shape one = *s;
  one.n = 1;
  for (int32_t image = 0; image < s->n; image++) {
    int32_t first = image * positions * s->c + c;
    for (int32_t p = 0; p < positions; p++)
      memcpy(copy + p * TL_LANES, d + first + p * s->c, (size_t)to->width);
    depthwise_lanes(&one, &from, taps, to, first, d, mask);
  }
}

static void depthwise(const tl_conv_shape *s, const int8_t *x, int32_t x_zero, const tl_weights *w, const tl_bias *b,
                      const tl_rescale *by, int8_t *y, uint8_t *mask, void *scratch) {
  int32_t count = s->kh * s->kw;
  int16_t *taps = scratch;
  if (mask) memset(mask, 0, (size_t)TL_MASK_BYTES(s->n * s->oh * s->ow * s->c));
  for (int32_t c = 0; c < s->c; c += TL_LANES) {
    tl_requantizer to;
    int32_t width = tl_min(TL_LANES, s->c - c);
    tl_requantizer_of(&to, b, by, s->c, c, width);
    memset(taps, 0, (size_t)(count * TL_LANES) * sizeof *taps);
    for (int32_t j = 0; j < width; j++) tl_load_taps_s16(w, count, c + j, taps + j, TL_LANES);
    if (x == y) {
      depthwise_inplace(s, x_zero, taps, &to, c, y, mask, (int8_t *)scratch + 4 * TL_LANES * count);
    } else {
      const pixels from = {x + c, s->c, x_zero};
      depthwise_lanes(s, &from, taps, &to, c, y, mask);
    }
  }
}

void tl_depthwise_s8(const tl_conv_shape *s, const int8_t *x, int32_t x_zero, const tl_weights *w, const tl_bias *b,
                     const float *scale, int32_t y_zero, int8_t *y, uint8_t *mask, void *scratch) {
  const tl_rescale by = {scale, NULL, y_zero};
  depthwise(s, x, x_zero, w, b, &by, y, mask, scratch);
}

void tl_depthwise_s8_fixed(const tl_conv_shape *s, const int8_t *x, int32_t x_zero, const tl_weights *w,
                           const tl_bias *b, const tl_fixed *to, int32_t y_zero, int8_t *y, uint8_t *mask,
                           void *scratch) {
  const tl_rescale by = {NULL, to, y_zero};
  depthwise(s, x, x_zero, w, b, &by, y, mask, scratch);
}
