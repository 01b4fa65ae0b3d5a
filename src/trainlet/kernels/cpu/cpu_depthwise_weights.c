/* dw[tap][c] = sum over results of dy * x under the tap: the taps of up to three kernel rows are summed in registers. */
#include "tl_depthwise.h"
#include "tl_parallel.h"
#include "tl_step.h"

enum { PIXELS = 4 };

typedef struct {
  const tl_depthwise_weights *g;
  int32_t pitch;
  int32_t ox0, ox1; /* results whose taps all lie inside a row */
} plan;

/* One row of results over `rows` kernel rows that lie inside, from channel c on. */
typedef struct {
  const float *x;  /* pixel under tap (ky0, 0) of result 0 */
  const float *dy; /* result 0 */
  float *sums;     /* tap (ky0, 0) */
} strip;

/* rows, kw, stride, pixels: constants where it is called. */
TL_INLINE void add_pixels(const plan *p, const strip *t, int32_t ox, tl_vf *acc, const int rows, const int kw,
                          const int stride, const int pixels) {
  const tl_conv_shape *s = &p->g->s;
  const int64_t c = s->c, line = (int64_t)s->w * c;
  const float *x = t->x + (int64_t)ox * stride * c, *dy = t->dy + (int64_t)ox * c;
#pragma GCC unroll 4
  for (int j = 0; j < pixels; j++) {
    tl_vf d = tl_load(dy + j * c);
#pragma GCC unroll 3
    for (int ky = 0; ky < rows; ky++)
#pragma GCC unroll 5
      for (int kx = 0; kx < kw; kx++) acc[ky * kw + kx] += d * tl_load(x + ky * line + (j * stride + kx) * c);
  }
}

TL_INLINE void add_row(const plan *p, const strip *t, const int rows, const int kw, const int stride) {
  tl_vf acc[9];
#pragma GCC unroll 9
  for (int i = 0; i < rows * kw; i++) acc[i] = tl_load(t->sums + i * p->pitch);
  int32_t ox = p->ox0;
  for (; ox + PIXELS <= p->ox1; ox += PIXELS) add_pixels(p, t, ox, acc, rows, kw, stride, PIXELS);
  for (; ox < p->ox1; ox++) add_pixels(p, t, ox, acc, rows, kw, stride, 1);
#pragma GCC unroll 9
  for (int i = 0; i < rows * kw; i++) tl_save(t->sums + i * p->pitch, acc[i]);
}

/* One result, the taps that lie inside. */
static void add_border(const plan *p, const strip *t, int32_t rows, int32_t ox) {
  const tl_conv_shape *s = &p->g->s;
  tl_vf d = tl_load(t->dy + (int64_t)ox * s->c);
  for (int32_t ky = 0; ky < rows; ky++)
    for (int32_t kx = 0; kx < s->kw; kx++) {
      int32_t ix = ox * s->sw - s->pl + kx * s->dw;
      if (ix < 0 || ix >= s->w) continue;
      float *sum = t->sums + (ky * s->kw + kx) * p->pitch;
      tl_save(sum, tl_load(sum) + d * tl_load(t->x + ((int64_t)ky * s->dh * s->w + ix + s->pl) * s->c));
    }
}

/* Whether a specialised body took the inner results of all rows. */
static int add_inside(const plan *p, const strip *t, int32_t rows) {
  const tl_conv_shape *s = &p->g->s;
  if (s->dh != 1 || s->dw != 1 || s->sw > 2 || (s->kw != 3 && s->kw != 5)) return 0;
  for (int32_t ky = 0; ky < rows;) {
    strip u = {t->x + (int64_t)ky * s->w * s->c, t->dy, t->sums + ky * s->kw * p->pitch};
    if (s->kw == 3 && rows - ky >= 3) {
      if (s->sw == 1) add_row(p, &u, 3, 3, 1);
      if (s->sw == 2) add_row(p, &u, 3, 3, 2);
      ky += 3;
    } else if (s->kw == 3) {
      if (s->sw == 1) add_row(p, &u, 1, 3, 1);
      if (s->sw == 2) add_row(p, &u, 1, 3, 2);
      ky++;
    } else {
      if (s->sw == 1) add_row(p, &u, 1, 5, 1);
      if (s->sw == 2) add_row(p, &u, 1, 5, 2);
      ky++;
    }
  }
  return 1;
}

static void add_strip(const plan *p, const strip *t, int32_t rows) {
  const tl_conv_shape *s = &p->g->s;
  int32_t done = add_inside(p, t, rows);
  for (int32_t ox = 0; ox < (done ? p->ox0 : s->ow); ox++) add_border(p, t, rows, ox);
  for (int32_t ox = done ? p->ox1 : s->ow; ox < s->ow; ox++) add_border(p, t, rows, ox);
}

/* Sums of channels first .. last-1 from [taps][c] to [c][taps], then their update. */
static void give(const plan *p, int32_t first, int32_t last) {
  const tl_conv_shape *s = &p->g->s;
  int32_t taps = s->kh * s->kw;
  float *turned = p->g->sums + taps * p->pitch + first * taps;
  for (int32_t c = first; c < last; c++)
    for (int32_t i = 0; i < taps; i++) turned[(c - first) * taps + i] = p->g->sums[i * p->pitch + c];
  tl_step_range(p->g->u, first * taps, turned, (last - first) * taps);
}

void tl_depthwise_weights_part(const void *weights, int32_t part, int32_t parts) {
  const tl_depthwise_weights *g = weights;
  const tl_conv_shape *s = &g->s;
  int32_t inner = s->w - 1 - (s->kw - 1) * s->dw + s->pl;
  plan p = {g, (s->c + TL_VL - 1) / TL_VL * TL_VL, (s->pl + s->sw - 1) / s->sw, inner < 0 ? 0 : inner / s->sw + 1};
  if (p.ox1 > s->ow) p.ox1 = s->ow;
  if (p.ox0 > p.ox1) p.ox0 = p.ox1;
  int32_t first = tl_bound(s->c, TL_VL, part, parts), last = tl_bound(s->c, TL_VL, part + 1, parts);
  for (int32_t i = 0; i < s->kh * s->kw; i++)
    for (int32_t c = first; c < last; c += TL_VL) tl_save(g->sums + i * p.pitch + c, (tl_vf){0});
  for (int32_t row = 0; row < s->n * s->oh; row++) {
    int32_t n = row / s->oh, iy = (row - n * s->oh) * s->sh - s->pt, ky0 = 0, ky1 = s->kh;
    while (ky0 < ky1 && iy + ky0 * s->dh < 0) ky0++;
    while (ky1 > ky0 && iy + (ky1 - 1) * s->dh >= s->h) ky1--;
    int64_t pixel = ((int64_t)n * s->h + iy + ky0 * s->dh) * s->w - s->pl;
    for (int32_t c = first; c < last; c += TL_VL) {
      strip t = {g->x + pixel * s->c + c, g->dy + (int64_t)row * s->ow * s->c + c, g->sums + ky0 * s->kw * p.pitch + c};
      add_strip(&p, &t, ky1 - ky0);
    }
  }
  give(&p, first, last);
}
