#include "tl_maxpool.h"

#include "tl_parallel.h"

/* Taps of one window that lie inside x, and the pixel of tap (0, 0), which may not. */
typedef struct {
  int32_t ky0, ky1, kx0, kx1;
  int64_t pixel;
} window;

static window window_of(const tl_conv_shape *s, int32_t n, int32_t oy, int32_t ox) {
  int32_t iy = oy * s->sh - s->pt, ix = ox * s->sw - s->pl;
  window w = {0, s->kh, 0, s->kw, ((int64_t)n * s->h + iy) * s->w + ix};
  while (w.ky0 < w.ky1 && iy + w.ky0 < 0) w.ky0++;
  while (w.ky1 > w.ky0 && iy + w.ky1 > s->h) w.ky1--;
  while (w.kx0 < w.kx1 && ix + w.kx0 < 0) w.kx0++;
  while (w.kx1 > w.kx0 && ix + w.kx1 > s->w) w.kx1--;
  return w;
}

TL_INLINE int64_t under(const tl_conv_shape *s, const window *w, int32_t ky, int32_t kx) {
  return (w->pixel + (int64_t)ky * s->w + kx) * s->c;
}

void tl_maxpool_rows(const void *pool, int32_t part, int32_t parts) {
  const tl_maxpool *p = pool;
  const tl_conv_shape *s = &p->s;
  int32_t rows = s->n * s->oh, last = tl_bound(rows, 1, part + 1, parts);
  for (int32_t row = tl_bound(rows, 1, part, parts); row < last; row++)
    for (int32_t ox = 0; ox < s->ow; ox++) {
      window w = window_of(s, row / s->oh, row % s->oh, ox);
      for (int32_t c = 0; c < s->c; c += TL_VL) {
        tl_vf best = tl_load(p->x + under(s, &w, w.ky0, w.kx0) + c);
        for (int32_t ky = w.ky0; ky < w.ky1; ky++)
          for (int32_t kx = w.kx0; kx < w.kx1; kx++) {
            tl_vf v = tl_load(p->x + under(s, &w, ky, kx) + c);
            best = tl_choose(v > best, v, best);
          }
        tl_save_part(p->y + ((int64_t)row * s->ow + ox) * s->c + c, best, s->c - c);
      }
    }
}

/* dy of one window to the place of its first maximum, channels c .. */
static void give(const tl_maxpool *p, const window *w, int64_t from, int32_t c) {
  const tl_conv_shape *s = &p->s;
  tl_vf best = tl_load(p->x + under(s, w, w->ky0, w->kx0) + c), dy = tl_load(p->dy + from + c);
  tl_vi where = {0};
  int32_t tap = 0;
  for (int32_t ky = w->ky0; ky < w->ky1; ky++)
    for (int32_t kx = w->kx0; kx < w->kx1; kx++, tap++) {
      tl_vf v = tl_load(p->x + under(s, w, ky, kx) + c);
      tl_vi better = v > best;
      best = tl_choose(better, v, best);
      where = (better & tap) | (~better & where);
    }
  tap = 0;
  for (int32_t ky = w->ky0; ky < w->ky1; ky++)
    for (int32_t kx = w->kx0; kx < w->kx1; kx++, tap++) {
      float *to = p->dx + under(s, w, ky, kx) + c;
      tl_vf share = (tl_vf)((tl_vi)dy & (where == tap));
      tl_save_part(to, tl_load_part(to, s->c - c) + share, s->c - c);
    }
}

void tl_maxpool_grad_channels(const void *pool, int32_t part, int32_t parts) {
  const tl_maxpool *p = pool;
  const tl_conv_shape *s = &p->s;
  int32_t first = tl_bound(s->c, TL_VL, part, parts), last = tl_bound(s->c, TL_VL, part + 1, parts);
  for (int64_t pixel = 0; pixel < (int64_t)s->n * s->h * s->w; pixel++)
    memset(p->dx + pixel * s->c + first, 0, (size_t)(last - first) * sizeof(float));
  for (int32_t row = 0; row < s->n * s->oh; row++)
    for (int32_t ox = 0; ox < s->ow; ox++) {
      window w = window_of(s, row / s->oh, row % s->oh, ox);
      for (int32_t c = first; c < last; c += TL_VL) give(p, &w, ((int64_t)row * s->ow + ox) * s->c, c);
    }
}
