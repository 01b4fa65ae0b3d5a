/* Rows of an image with their padding, as tl_lines.h needs them. Internal to its kernels. */
#ifndef TL_LINE_WINDOW_H
#define TL_LINE_WINDOW_H

#include "tl_lines.h"

enum { TL_MOST_LINES = 8 };

/* The input rows under one row of results, padded. Row iy has slot iy % kh, so most are there already. */
typedef struct {
  const tl_conv_shape *s;
  const float *x;
  float *slots;
  int32_t image, have;          /* rows below `have` of this image were copied */
  int32_t ky0, ky1;             /* kernel rows that lie inside */
  const float *at[TL_MOST_LINES];     /* column 0 of the padded row under each of them */
} tl_line_window;

static inline tl_line_window tl_open_window(const tl_conv_shape *s, const float *x, float *slots) {
  tl_line_window v = {s, x, slots, -1, 0, 0, 0, {0}};
  memset(slots, 0, (size_t)s->kh * tl_line_floats(s) * sizeof *slots);
  return v;
}

/* To row `row` of all results. */
static inline void tl_move_window(tl_line_window *v, int32_t row) {
  const tl_conv_shape *s = v->s;
  const int32_t n = row / s->oh, top = (row - n * s->oh) * s->sh - s->pt, floats = tl_line_floats(s);
  if (n != v->image) v->image = n, v->have = 0;
  for (v->ky0 = 0; v->ky0 < s->kh && top + v->ky0 < 0;) v->ky0++;
  for (v->ky1 = s->kh; v->ky1 > v->ky0 && top + v->ky1 > s->h;) v->ky1--;
  for (int32_t ky = v->ky0; ky < v->ky1; ky++) {
    int32_t iy = top + ky;
    float *to = v->slots + iy % s->kh * floats;
    v->at[ky] = to;
    if (iy < v->have) continue;
    memcpy(to + s->pl * s->c, v->x + ((int64_t)n * s->h + iy) * s->w * s->c, (size_t)s->w * s->c * sizeof *to);
    v->have = iy + 1;
  }
}

#endif
