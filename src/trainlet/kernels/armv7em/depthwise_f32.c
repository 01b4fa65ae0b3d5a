/* Depthwise in fp32, forward and input gradient, four channels at a time. Both gather: an output is a sum over the taps
 * of its window, a row of them a call.
 *
 * The taps that reach dx at (y, x) are those with y + pt - ky * dh a multiple of the stride, likewise in x: every so
 * many taps, while dy moves backwards. scratch: taps of the channels, f32 [kh * kw][4].
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

/* A row of taps. With fewer than four channels left, one channel at a time, as nothing lies behind the last. */
static inline void add_taps(float *sum, const float *x, int32_t x_step, const float *taps, int32_t taps_step,
                            int32_t count, int32_t width) {
  if (count <= 0) return;
  if (width == TL_LANES) {
    tl_fma_taps(sum, x, x_step, taps, taps_step, count);
    return;
  }
  for (int32_t i = 0; i < count; i++)
    for (int32_t j = 0; j < width; j++) sum[j] = TL_FMA(x[i * x_step + j], taps[i * taps_step + j], sum[j]);
}

static void sum_window(const tl_conv_shape *s, const tl_window *at, const float *x, const float *taps, int32_t width,
                       float *sum) {
  int32_t ky1 = tl_last_tap(at->iy, s->dh, s->h, s->kh), kx0 = tl_first_tap(at->ix, s->dw);
  int32_t cols = tl_last_tap(at->ix, s->dw, s->w, s->kw) - kx0;
  memset(sum, 0, TL_LANES * sizeof *sum);
  for (int32_t ky = tl_first_tap(at->iy, s->dh); ky < ky1; ky++)
    add_taps(sum, x + (at->pixel + ky * s->dh * s->w + kx0 * s->dw) * s->c, s->dw * s->c,
             taps + (ky * s->kw + kx0) * TL_LANES, TL_LANES, cols, width);
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
      sum_window(s, &at, x + c, scratch, width, sum);
      tl_clip_lanes(&to, sum, p * s->c + c, y, mask);
    }
  }
}

/* Along one axis the taps k = first, first + step, ... (count of them) that reach an input coordinate, from outputs at,
 * at - back, ... */
typedef struct {
  int32_t first, step, count, at, back;
} reach;

static int32_t common_divisor(int32_t a, int32_t b) { return b ? common_divisor(b, a % b) : a; }

/* coordinate: y + pt or x + pl. */
static reach reach_of(int32_t coordinate, int32_t stride, int32_t dilation, int32_t taps, int32_t outputs) {
  int32_t divisor = common_divisor(stride, dilation);
  reach r = {0, stride / divisor, 0, 0, dilation / divisor};
  while (r.first < taps && (coordinate - r.first * dilation) % stride != 0) r.first++;
  while (r.first < taps && coordinate - r.first * dilation >= outputs * stride) r.first += r.step;
  for (int32_t k = r.first; k < taps && coordinate - k * dilation >= 0; k += r.step) r.count++;
  if (r.count > 0) r.at = (coordinate - r.first * dilation) / stride;
  return r;
}

/* Column x of dx for all rows and images: what reaches it from the left and right is the same everywhere. */
static void grad_column(const tl_conv_shape *s, const float *dy, float *dx, int32_t x, const float *taps, int32_t width,
                        int32_t accumulate) {
  const reach across = reach_of(x + s->pl, s->sw, s->dw, s->kw, s->ow);
  for (int32_t y = 0; y < s->h; y++) {
    const reach down = reach_of(y + s->pt, s->sh, s->dh, s->kh, s->oh);
    for (int32_t image = 0; image < s->n; image++) {
      float sum[TL_LANES] = {0}, *to = dx + ((image * s->h + y) * s->w + x) * s->c;
      if (accumulate) memcpy(sum, to, (size_t)width * sizeof *sum);
      for (int32_t i = 0; i < down.count; i++) {
        int32_t oy = down.at - i * down.back, ky = down.first + i * down.step;
        add_taps(sum, dy + ((image * s->oh + oy) * s->ow + across.at) * s->c, -across.back * s->c,
                 taps + (ky * s->kw + across.first) * TL_LANES, across.step * TL_LANES, across.count, width);
      }
      memcpy(to, sum, (size_t)width * sizeof *sum);
    }
  }
}

void tl_depthwise_input_grad(const tl_conv_shape *s, const float *dy, const tl_weights *w, float *dx,
                             int32_t accumulate, void *scratch) {
  for (int32_t c = 0; c < s->c; c += TL_LANES) {
    int32_t width = tl_min(TL_LANES, s->c - c);
    load_lanes(s, w, c, width, scratch);
    for (int32_t x = 0; x < s->w; x++) grad_column(s, dy + c, dx + c, x, scratch, width, accumulate);
  }
}
