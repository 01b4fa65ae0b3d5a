/* The int8 depthwise convolution: y[p][c] = sum over taps of x[p + tap][c] * w[tap][c], TL_LANES channels at a time.
 *
 * scratch: taps of those channels, s16 [kh * kw][lanes], so that a tap is one load next to one load of x.
 */
#include "tl_block.h"
#include "tl_conv.h"
#include "tl_requantize.h"
#include "tl_weights.h"
#include "tl_window.h"

/* One output position; width is a constant wherever it is TL_LANES. */
static inline void sum_taps(const tl_conv_shape *s, const tl_window *at, const int8_t *x, int32_t x_zero,
                            const int16_t *taps, int32_t width, tl_s32_lanes *sum) {
  int32_t ky1 = tl_last_tap(at->iy, s->dh, s->h, s->kh), kx0 = tl_first_tap(at->ix, s->dw);
  int32_t kx1 = tl_last_tap(at->ix, s->dw, s->w, s->kw);
  tl_s32_lanes acc = {0};
  for (int32_t ky = tl_first_tap(at->iy, s->dh); ky < ky1; ky++) {
    int32_t row = at->pixel + ky * s->dh * s->w;
    for (int32_t kx = kx0; kx < kx1; kx++) {
      tl_s32_lanes pixel, tap = {0};
      tl_get_s8(&pixel, x + (row + kx * s->dw) * s->c, width);
      const int16_t *row_taps = taps + (ky * s->kw + kx) * TL_LANES;
      for (int j = 0; j < TL_LANES; j++) tap[j] = row_taps[j];
      acc += (pixel - x_zero) * tap;
    }
  }
  *sum = acc;
}

static void depthwise_lanes(const tl_conv_shape *s, const int8_t *x, int32_t x_zero, const int16_t *taps,
                            const tl_requantizer *to, int32_t c, int8_t *y, uint8_t *mask) {
  int32_t positions = s->n * s->oh * s->ow;
  tl_window at = tl_window_of(s, 0);
  for (int32_t p = 0; p < positions; p++, tl_window_next(s, &at)) {
    tl_s32_lanes sum;
    int32_t acc[TL_LANES];
    if (to->width == TL_LANES) {
      sum_taps(s, &at, x + c, x_zero, taps, TL_LANES, &sum);
    } else {
      sum_taps(s, &at, x + c, x_zero, taps, to->width, &sum);
    }
    memcpy(acc, &sum, sizeof acc);
    tl_requantize_lanes(to, acc, p * s->c + c, y, mask);
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
    depthwise_lanes(s, x, x_zero, taps, &to, c, y, mask);
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
