/* Depthwise in fp32, forward and input gradient, TL_LANES channels at a time.
 *
 * Forward gathers: y[p] = sum over taps of x[p + tap] * w[tap]. Backward scatters: dx[p + tap] += dy[p] * w[tap].
 * For one dx the positions that reach it come in descending tap order when swept ascending, so the taps are the
 * outer loop. scratch: taps of those channels, f32 [kh * kw][lanes].
 */
#include "tl_block.h"
#include "tl_conv.h"
#include "tl_requantize.h"
#include "tl_weights.h"
#include "tl_window.h"

static void load_lanes(const tl_conv_shape *s, const tl_weights *w, int32_t c, int32_t width, float *taps) {
  int32_t count = s->kh * s->kw;
  memset(taps, 0, (size_t)(count * TL_LANES) * sizeof *taps);
  for (int32_t j = 0; j < width; j++) tl_load_taps(w, count, c + j, taps + j, TL_LANES);
}

static inline void sum_taps(const tl_conv_shape *s, const tl_window *at, const float *x, const float *taps,
                            int32_t width, float *sum) {
  int32_t ky1 = tl_last_tap(at->iy, s->dh, s->h, s->kh), kx0 = tl_first_tap(at->ix, s->dw);
  int32_t kx1 = tl_last_tap(at->ix, s->dw, s->w, s->kw);
  tl_f32_lanes acc = {0};
  for (int32_t ky = tl_first_tap(at->iy, s->dh); ky < ky1; ky++) {
    int32_t row = at->pixel + ky * s->dh * s->w;
    for (int32_t kx = kx0; kx < kx1; kx++) {
      tl_f32_lanes pixel, tap;
      tl_get_f32(&pixel, x + (row + kx * s->dw) * s->c, width);
      tl_get_f32(&tap, taps + (ky * s->kw + kx) * TL_LANES, TL_LANES);
      tl_fma_each(&acc, &pixel, &tap);
    }
  }
  memcpy(sum, &acc, sizeof acc);
}

void tl_depthwise_f32(const tl_conv_shape *s, const float *x, const tl_weights *w, const tl_bias *b, float lo, float hi,
                      float *y, uint8_t *mask, void *scratch) {
  int32_t positions = s->n * s->oh * s->ow;
  if (mask) memset(mask, 0, (size_t)TL_MASK_BYTES(positions * s->c));
  for (int32_t c = 0; c < s->c; c += TL_LANES) {
    int32_t width = tl_min(TL_LANES, s->c - c);
    tl_clipper to;
    tl_clipper_of(&to, b, c, width, lo, hi);
    load_lanes(s, w, c, width, scratch);
    tl_window at = tl_window_of(s, 0);
    for (int32_t p = 0; p < positions; p++, tl_window_next(s, &at)) {
      float sum[TL_LANES];
      sum_taps(s, &at, x + c, scratch, width, sum);
      tl_clip_lanes(&to, sum, p * s->c + c, y, mask);
    }
  }
}

/* dx[first + i * step] += dy[i] * tap for one row of positions. */
static inline void scatter_row(const float *dy, float *dx, int32_t count, int32_t c, int32_t step,
                               const tl_f32_lanes *tap, int32_t width) {
  for (int32_t i = 0; i < count; i++) {
    tl_f32_lanes acc, gradient;
    tl_get_f32(&gradient, dy + i * c, width);
    tl_get_f32(&acc, dx + i * step, width);
    tl_fma_each(&acc, &gradient, tap);
    tl_put_f32(dx + i * step, &acc, width);
  }
}

/* Tap (ky, kx): for each output row, the run of ox whose input pixel exists. */
static void scatter_tap(const tl_conv_shape *s, const float *dy, float *dx, int32_t ky, int32_t kx, const float *taps,
                        int32_t width) {
  int32_t shift = kx * s->dw - s->pl;
  int32_t ox0 = tl_first_tap(shift, s->sw), ox1 = tl_last_tap(shift, s->sw, s->w, s->ow);
  tl_f32_lanes tap;
  tl_get_f32(&tap, taps + (ky * s->kw + kx) * TL_LANES, TL_LANES);
  if (ox0 >= ox1) return;
  for (int32_t row = 0; row < s->n * s->oh; row++) {
    int32_t image = row / s->oh, iy = (row - image * s->oh) * s->sh + ky * s->dh - s->pt;
    if (iy < 0 || iy >= s->h) continue;
    const float *from = dy + (row * s->ow + ox0) * s->c;
    float *to = dx + ((image * s->h + iy) * s->w + ox0 * s->sw + shift) * s->c;
    if (width == TL_LANES) {
      scatter_row(from, to, ox1 - ox0, s->c, s->sw * s->c, &tap, TL_LANES);
    } else {
      scatter_row(from, to, ox1 - ox0, s->c, s->sw * s->c, &tap, width);
    }
  }
}

void tl_depthwise_input_grad(const tl_conv_shape *s, const float *dy, const tl_weights *w, float *dx,
                             int32_t accumulate, void *scratch) {
  if (!accumulate) memset(dx, 0, (size_t)(s->n * s->h * s->w * s->c) * sizeof *dx);
  for (int32_t c = 0; c < s->c; c += TL_LANES) {
    int32_t width = tl_min(TL_LANES, s->c - c);
    load_lanes(s, w, c, width, scratch);
    for (int32_t ky = 0; ky < s->kh; ky++)
      for (int32_t kx = 0; kx < s->kw; kx++) scatter_tap(s, dy + c, dx + c, ky, kx, scratch, width);
  }
}
