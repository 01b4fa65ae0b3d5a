/* Where every tap lies inside, four neighbouring results share their loads; at the borders one result at a time. */
#include "tl_depthwise.h"

#include "tl_parallel.h"

enum { PIXELS = 4 };

typedef struct {
  const tl_depthwise *d;
  int32_t pitch;      /* of taps: c rounded up */
  int32_t masks;      /* tl_masks_in_registers */
  int32_t ox0, ox1;   /* results whose taps all lie inside a row */
} plan;

static plan plan_of(const tl_depthwise *d) {
  const tl_conv_shape *s = &d->s;
  int32_t reach = (s->kw - 1) * s->dw, first = (s->pl + s->sw - 1) / s->sw, last = s->w - 1 - reach + s->pl;
  plan p = {d, (s->c + TL_VL - 1) / TL_VL * TL_VL, tl_masks_in_registers(s->c), first, 0};
  p.ox1 = last < 0 ? 0 : last / s->sw + 1;
  if (p.ox1 > s->ow) p.ox1 = s->ow;
  if (p.ox0 > p.ox1) p.ox0 = p.ox1;
  return p;
}

/* index: of the first channel in y. width: channels that exist. */
TL_INLINE void end(const plan *p, tl_vf sum, int32_t index, int32_t width) {
  const tl_finish *f = &p->d->finish;
  if (f->add) sum += tl_load_part(f->add + index, width);
  tl_save_part(p->d->y + index, tl_finish_value(f, sum, index, p->masks), width);
}

/* The valid taps of one row of the kernel window. */
typedef struct {
  const float *x;     /* pixel under tap (ky0, 0) of result 0, from channel c on; may lie outside where kx is not valid */
  const float *taps;  /* row ky0, from channel c on */
  int32_t rows;
  int32_t index;      /* of result 0 in y */
  int32_t c, width;
} strip;

/* Results ox .. ox+pixels-1. kw, stride (0: as the shape says), pixels: constants where it is called. */
TL_INLINE void inside(const plan *p, const strip *t, int32_t ox, tl_vf bias, const int kw, const int stride,
                      const int pixels) {
  const tl_conv_shape *s = &p->d->s;
  const int64_t c = s->c, line = (int64_t)s->w * c * s->dh;
  const float *x = t->x + (int64_t)ox * stride * c, *taps = t->taps;
  tl_vf acc[PIXELS];
#pragma GCC unroll 4
  for (int j = 0; j < pixels; j++) acc[j] = bias;
  for (int32_t ky = 0; ky < t->rows; ky++, x += line, taps += s->kw * p->pitch) {
#pragma GCC unroll 8
    for (int kx = 0; kx < kw; kx++) {
      tl_vf tap = tl_load(taps + kx * p->pitch);
#pragma GCC unroll 4
      for (int j = 0; j < pixels; j++) acc[j] += tl_load(x + (j * stride + kx) * c) * tap;
    }
  }
#pragma GCC unroll 4
  for (int j = 0; j < pixels; j++) end(p, acc[j], t->index + (ox + j) * s->c, t->width);
}

TL_INLINE void inside_row(const plan *p, const strip *t, tl_vf bias, const int kw, const int stride) {
  int32_t ox = p->ox0;
  for (; ox + PIXELS <= p->ox1; ox += PIXELS) inside(p, t, ox, bias, kw, stride, PIXELS);
  for (; ox < p->ox1; ox++) inside(p, t, ox, bias, kw, stride, 1);
}

/* One result, only the taps that lie inside. */
static void border(const plan *p, const strip *t, int32_t ox, tl_vf bias) {
  const tl_conv_shape *s = &p->d->s;
  int32_t left = ox * s->sw - s->pl;
  tl_vf acc = bias;
  for (int32_t ky = 0; ky < t->rows; ky++)
    for (int32_t kx = 0; kx < s->kw; kx++) {
      int32_t ix = left + kx * s->dw;
      if (ix < 0 || ix >= s->w) continue;
      acc += tl_load(t->x + ((int64_t)ky * s->dh * s->w + ix + s->pl) * s->c) * tl_load(t->taps + (ky * s->kw + kx) * p->pitch);
    }
  end(p, acc, t->index + ox * s->c, t->width);
}

static void strip_row(const plan *p, const strip *t) {
  const tl_conv_shape *s = &p->d->s;
  const float *b = p->d->finish.bias;
  tl_vf bias = {0};
  if (b) bias = tl_load_part(b + t->c, t->width);
  for (int32_t ox = 0; ox < p->ox0; ox++) border(p, t, ox, bias);
  if (s->kw == 3 && s->sw == 1 && s->dw == 1) {
    inside_row(p, t, bias, 3, 1);
  } else if (s->kw == 3 && s->sw == 2 && s->dw == 1) {
    inside_row(p, t, bias, 3, 2);
  } else if (s->kw == 5 && s->sw == 1 && s->dw == 1) {
    inside_row(p, t, bias, 5, 1);
  } else if (s->kw == 5 && s->sw == 2 && s->dw == 1) {
    inside_row(p, t, bias, 5, 2);
  } else {
    for (int32_t ox = p->ox0; ox < p->ox1; ox++) border(p, t, ox, bias);
  }
  for (int32_t ox = p->ox1; ox < s->ow; ox++) border(p, t, ox, bias);
}

void tl_depthwise_rows(const void *depthwise, int32_t part, int32_t parts) {
  const tl_depthwise *d = depthwise;
  const tl_conv_shape *s = &d->s;
  const plan p = plan_of(d);
  const int32_t grain = p.masks || !(d->finish.mask || d->finish.keep) ? 1 : 8, rows = s->n * s->oh;
  const int32_t first = tl_bound(rows, grain, part, parts), last = tl_bound(rows, grain, part + 1, parts);
  for (int32_t row = first; row < last; row++) {
    int32_t n = row / s->oh, iy = (row - n * s->oh) * s->sh - s->pt, ky0 = 0, ky1 = s->kh;
    while (ky0 < ky1 && iy + ky0 * s->dh < 0) ky0++;
    while (ky1 > ky0 && iy + (ky1 - 1) * s->dh >= s->h) ky1--;
    for (int32_t c = 0; c < s->c; c += TL_VL) {
      int64_t pixel = ((int64_t)n * s->h + iy + ky0 * s->dh) * s->w - s->pl;
      strip t = {d->x + pixel * s->c + c, d->taps + ky0 * s->kw * p.pitch + c, ky1 - ky0,
                 row * s->ow * s->c + c, c, s->c - c};
      strip_row(&p, &t);
    }
  }
  if (!p.masks) tl_finish_masks(&d->finish, d->y, first * s->ow * s->c, last * s->ow * s->c);
}

void tl_pack_taps(const void *taps, int32_t part, int32_t parts) {
  const tl_taps *t = taps;
  int32_t pitch = (t->c + TL_VL - 1) / TL_VL * TL_VL;
  (void)parts;
  if (part != 0) return;
  for (int32_t i = 0; i < t->count; i++) {
    const float *from = t->w + (t->turn ? t->count - 1 - i : i);
    for (int32_t c = 0; c < t->c; c++) t->taps[i * pitch + c] = from[c * t->count];
    for (int32_t c = t->c; c < pitch; c++) t->taps[i * pitch + c] = 0.0f;
  }
}
