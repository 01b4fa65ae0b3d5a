/* The int8 depthwise convolution: y[p][c] = sum over taps of x[p + tap][c] * w[tap][c], four channels at a time.
 *
 * Channels that are no multiple of four end with a block that overlaps the one before: the same results again.
 * scratch: taps of the four channels, pairs (0, 2), (1, 3): [kh * kw][2]; in place, behind them a copy of those channels
 * of an image, s8 [h][w][4], and the last one to three channels one at a time, because a block may not overlap.
 */
#include "tl_block.h"
#include "tl_conv.h"
#include "tl_ending.h"
#include "tl_weights.h"
#include "tl_window.h"

enum { LANES = 4 };

typedef struct {
  const tl_conv_shape *s;
  const int8_t *x;      /* of an image, at the first lane */
  int32_t pitch;        /* from a pixel of x to the next */
  uint32_t base;        /* minus the zero point, twice */
  const uint32_t *taps;
  const tl_rescale *by;
  tl_ending end[LANES];
} lanes;

/* Four sums to y and mask bits at, at + 1, ...: inlined for fp32 without and with a mask, and for fixed point. */
static inline void end_lanes(const tl_ending *e, const tl_rescale *by, const int32_t *sums, int32_t at, int8_t *y,
                             uint8_t *mask, int32_t fixed) {
  const int32_t zero = by->y_zero;
  uint32_t bits = 0, inside;
#pragma GCC unroll 4
  for (int32_t j = 0; j < LANES; j++) {
    y[at + j] = (int8_t)(fixed ? tl_end_fixed(&e[j], by, sums[j], &inside)
                               : tl_end_float(e[j].bias, e[j].scale, zero, sums[j], &inside));
    bits |= inside << j;
  }
  if (mask) tl_mask_or(mask, at, bits, LANES);
}

/* cols: taps of a row that lie inside x. */
static inline tl_walk walk_of(const lanes *a, int32_t cols) {
  const tl_conv_shape *s = a->s;
  const int32_t step = s->dw * a->pitch;
  const tl_walk walk = {a->base, step, s->dh * s->w * a->pitch - cols * step, 8 * (s->kw - cols), cols};
  return walk;
}

/* One row of y. x: the first row of its windows that exists, at ix = 0; taps: that row's. */
static void sweep_row(const lanes *a, const int8_t *x, const uint32_t *taps, int32_t rows, int32_t at, int8_t *y,
                      uint8_t *mask) {
  const tl_conv_shape *s = a->s;
  const int32_t last = s->w - 1 - (s->kw - 1) * s->dw, channels = s->c, pitch = a->pitch;
  const tl_walk inside = walk_of(a, s->kw);
  const int32_t stride = s->sw, outputs = s->ow;
  int32_t ix = -s->pl;
  for (int32_t ox = 0; ox < outputs; ox++, ix += stride, at += channels) {
    int32_t sums[LANES];
    if (ix >= 0 && ix <= last) {
      tl_sum_taps(x + ix * pitch, taps, &inside, rows, sums);
    } else {
      int32_t first = tl_first_tap(ix, s->dw);
      const tl_walk border = walk_of(a, tl_last_tap(ix, s->dw, s->w, s->kw) - first);
      tl_sum_taps(x + (ix + first * s->dw) * pitch, taps + 2 * first, &border, rows, sums);
    }
    if (a->by->fixed) {
      end_lanes(a->end, a->by, sums, at, y, mask, 1);
    } else if (mask) {
      end_lanes(a->end, a->by, sums, at, y, mask, 0);
    } else {
      end_lanes(a->end, a->by, sums, at, y, NULL, 0);
    }
  }
}

/* One image; at: index of the first element of y. */
static void sweep_image(const lanes *a, int32_t at, int8_t *y, uint8_t *mask) {
  const tl_conv_shape *s = a->s;
  for (int32_t oy = 0; oy < s->oh; oy++, at += s->ow * s->c) {
    int32_t iy = oy * s->sh - s->pt, first = tl_first_tap(iy, s->dh);
    int32_t rows = tl_last_tap(iy, s->dh, s->h, s->kh) - first;
    sweep_row(a, a->x + (iy + first * s->dh) * s->w * a->pitch, a->taps + 2 * first * s->kw, rows, at, y, mask);
  }
}

/* Fewer than four channels: one at a time, in plain C. x: at the channel; first: index of its first output. */
static void sum_channel(const tl_conv_shape *s, const int8_t *x, int32_t pitch, int32_t x_zero, const int16_t *taps,
                        const tl_rescale *by, const tl_ending *e, int32_t first, int8_t *y, uint8_t *mask) {
  tl_window at = tl_window_of(s, 0);
  for (int32_t p = 0; p < s->n * s->oh * s->ow; p++, tl_window_next(s, &at)) {
    int32_t sum = 0, index = first + p * s->c;
    uint32_t inside;
    for (int32_t tap = 0; tap < s->kh * s->kw; tap++) {
      int32_t ky = tap / s->kw, kx = tap - ky * s->kw;
      if (!tl_window_has(s, &at, ky, kx)) continue;
      sum += (x[(at.pixel + ky * s->dh * s->w + kx * s->dw) * pitch] - x_zero) * taps[tap];
    }
    y[index] = (int8_t)(by->fixed ? tl_end_fixed(e, by, sum, &inside)
                                  : tl_end_float(e->bias, e->scale, by->y_zero, sum, &inside));
    if (mask) tl_mask_or(mask, index, inside, 1);
  }
}

/* The pixels of an image, `width` channels of each (a constant where it is called), side by side. */
static inline void copy_channels(const tl_conv_shape *s, const int8_t *from, int32_t width, int8_t *copy) {
  for (int32_t p = 0; p < s->h * s->w; p++, from += s->c, copy += width) memcpy(copy, from, (size_t)width);
}

/* Channels from c on. copy: where the operand is overwritten, else NULL. */
static void few_channels(const tl_conv_shape *s, const int8_t *x, int32_t x_zero, const tl_weights *w, const tl_bias *b,
                         const tl_rescale *by, int32_t c, int8_t *y, uint8_t *mask, void *scratch, int8_t *copy) {
  tl_conv_shape one = *s;
  one.n = 1;
  for (; c < s->c; c++) {
    tl_ending e;
    tl_ending_of(&e, b, by, s->c, c);
    tl_load_taps_s16(w, s->kh * s->kw, c, scratch, 1);
    for (int32_t image = 0; image < s->n; image++) {
      const int32_t in = image * s->h * s->w * s->c + c, out = image * s->oh * s->ow * s->c + c;
      if (copy) copy_channels(s, x + in, 1, copy);
      sum_channel(&one, copy ? copy : x + in, copy ? 1 : s->c, x_zero, scratch, by, &e, out, y, mask);
    }
  }
}

static void depthwise(const tl_conv_shape *s, const int8_t *x, int32_t x_zero, const tl_weights *w, const tl_bias *b,
                      const tl_rescale *by, int8_t *y, uint8_t *mask, void *scratch) {
  int32_t count = s->kh * s->kw;
  int16_t *taps = scratch;
  int8_t *copy = x == y ? (int8_t *)scratch + 4 * TL_LANES * count : NULL;
  if (mask) memset(mask, 0, (size_t)TL_MASK_BYTES(s->n * s->oh * s->ow * s->c));
  if (s->c < LANES) {
    few_channels(s, x, x_zero, w, b, by, 0, y, mask, scratch, copy);
    return;
  }
  for (int32_t block = 0; block < s->c; block += LANES) {
    if (copy && block + LANES > s->c) {
      few_channels(s, x, x_zero, w, b, by, block, y, mask, scratch, copy);
      return;
    }
    static const int32_t place[LANES] = {0, 2, 1, 3}; /* of a lane among the 16-bit halves of two pairs */
    int32_t c = tl_min(block, s->c - LANES);
    lanes a = {.s = s, .pitch = copy ? LANES : s->c, .base = tl_pair(-x_zero, -x_zero), .taps = scratch, .by = by};
    for (int32_t j = 0; j < LANES; j++) {
      tl_load_taps_s16(w, count, c + j, taps + place[j], LANES);
      tl_ending_of(&a.end[j], b, by, s->c, c + j);
    }
    for (int32_t image = 0; image < s->n; image++) {
      const int8_t *from = x + (image * s->h * s->w * s->c + c);
      if (copy) copy_channels(s, from, LANES, copy);
      a.x = copy ? copy : from;
      sweep_image(&a, image * s->oh * s->ow * s->c + c, y, mask);
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
