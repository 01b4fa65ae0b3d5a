/* dx of strided depthwise convolutions. With stride 2 in a row, a pair of neighbouring pixels sees the same dy under
 * alternate taps; elsewhere and at the borders every pixel looks for its own. */
#include "tl_depthwise.h"
#include "tl_parallel.h"

enum { PAIRS = 2, MOST_ROWS = 8 };

/* One row of dx: the kernel rows under which a row of dy lies. */
typedef struct {
  const tl_depthwise *d;
  int32_t pitch, masks;
  int32_t row, n;
  int32_t count;
  const float *lines[MOST_ROWS]; /* dy, pixel 0 */
  const float *taps[MOST_ROWS];
} line_of;

static line_of make_line(const tl_depthwise *d, int32_t row) {
  const tl_conv_shape *s = &d->s;
  line_of l = {d, (s->c + TL_VL - 1) / TL_VL * TL_VL, tl_masks_in_registers(s->c), row, row / s->h, 0, {0}, {0}};
  int32_t iy = row - l.n * s->h;
  for (int32_t ky = 0; ky < s->kh && l.count < MOST_ROWS; ky++) {
    int32_t oy = iy + s->pt - ky * s->dh;
    if (oy < 0 || oy % s->sh || oy / s->sh >= s->oh) continue;
    l.lines[l.count] = d->x + ((int64_t)l.n * s->oh + oy / s->sh) * s->ow * s->c;
    l.taps[l.count++] = d->taps + ky * s->kw * l.pitch;
  }
  return l;
}

TL_INLINE void end(const line_of *l, tl_vf sum, int32_t ix, int32_t c) {
  const tl_conv_shape *s = &l->d->s;
  const tl_finish *f = &l->d->finish;
  int32_t index = (l->row * s->w + ix) * s->c + c, width = s->c - c;
  if (f->add) sum += tl_load_part(f->add + index, width);
  tl_save_part(l->d->y + index, tl_finish_value(f, sum, index, l->masks), width);
}

static void pixel(const line_of *l, int32_t ix, int32_t c) {
  const tl_conv_shape *s = &l->d->s;
  tl_vf acc = {0};
  for (int32_t r = 0; r < l->count; r++)
    for (int32_t kx = 0; kx < s->kw; kx++) {
      int32_t ox = ix + s->pl - kx * s->dw;
      if (ox < 0 || ox % s->sw || ox / s->sw >= s->ow) continue;
      acc += tl_load(l->lines[r] + ox / s->sw * s->c + c) * tl_load(l->taps[r] + kx * l->pitch + c);
    }
  end(l, acc, ix, c);
}

/* Pixels 2j .. 2j+2*pairs-1. kw, odd (of the padding), pairs: constants where it is called. Tap kx reaches pixel 2j+a, a
 * of the parity of kx + odd, from dy pixel j + pl/2 + (a + odd - kx) / 2. */
TL_INLINE void pairs_at(const line_of *l, int32_t j, int32_t c, const int kw, const int odd, const int pairs) {
  const tl_conv_shape *s = &l->d->s;
  tl_vf acc[2 * PAIRS];
#pragma GCC unroll 4
  for (int i = 0; i < 2 * pairs; i++) acc[i] = (tl_vf){0};
  for (int32_t r = 0; r < l->count; r++) {
    const float *dy = l->lines[r] + (int64_t)(j + s->pl / 2) * s->c + c, *taps = l->taps[r] + c;
#pragma GCC unroll 5
    for (int kx = 0; kx < kw; kx++) {
      const int a = (kx + odd) & 1, at = (a + odd - kx) / 2;
      tl_vf tap = tl_load(taps + kx * l->pitch);
#pragma GCC unroll 2
      for (int q = 0; q < pairs; q++) acc[2 * q + a] += tl_load(dy + (int64_t)(at + q) * s->c) * tap;
    }
  }
#pragma GCC unroll 4
  for (int i = 0; i < 2 * pairs; i++) end(l, acc[i], 2 * j + i, c);
}

/* All pixels of the row, channels from c on. */
TL_INLINE void pairs_row(const line_of *l, int32_t c, const int kw, const int odd) {
  const tl_conv_shape *s = &l->d->s;
  const int32_t low = s->pl / 2 + (odd - kw + 1) / 2, high = s->pl / 2 + (1 + odd) / 2; /* of dy, beside j */
  int32_t first = low < 0 ? -low : 0, last = s->ow - high < s->w / 2 ? s->ow - high : s->w / 2, j = first;
  if (last < first) j = last = first = s->w; /* none */
  for (int32_t ix = 0; ix < s->w && ix < 2 * first; ix++) pixel(l, ix, c);
  for (; j + PAIRS <= last; j += PAIRS) pairs_at(l, j, c, kw, odd, PAIRS);
  for (; j < last; j++) pairs_at(l, j, c, kw, odd, 1);
  for (int32_t ix = 2 * last; ix < s->w; ix++) pixel(l, ix, c);
}

static void row_of_dx(const line_of *l, int32_t c) {
  const tl_conv_shape *s = &l->d->s;
  int32_t odd = s->pl & 1, pairs = s->sw == 2 && s->dw == 1;
  if (pairs && s->kw == 3) {
    if (odd) pairs_row(l, c, 3, 1);
    if (!odd) pairs_row(l, c, 3, 0);
  } else if (pairs && s->kw == 5) {
    if (odd) pairs_row(l, c, 5, 1);
    if (!odd) pairs_row(l, c, 5, 0);
  } else {
    for (int32_t ix = 0; ix < s->w; ix++) pixel(l, ix, c);
  }
}

void tl_depthwise_grad_rows(const void *depthwise, int32_t part, int32_t parts) {
  const tl_depthwise *d = depthwise;
  const tl_conv_shape *s = &d->s;
  const int32_t masks = tl_masks_in_registers(s->c), rows = s->n * s->h;
  const int32_t grain = masks || !(d->finish.mask || d->finish.keep) ? 1 : 8;
  const int32_t first = tl_bound(rows, grain, part, parts), last = tl_bound(rows, grain, part + 1, parts);
  for (int32_t row = first; row < last; row++) {
    const line_of l = make_line(d, row);
    for (int32_t c = 0; c < s->c; c += TL_VL) row_of_dx(&l, c);
  }
  if (!masks) tl_finish_masks(&d->finish, d->y, first * s->w * s->c, last * s->w * s->c);
}
