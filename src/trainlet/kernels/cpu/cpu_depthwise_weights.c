/* dw[tap][c] = sum over results of dy * x under the tap. Groups of neighbouring results share the pixels they read; the
 * sums of one kernel row are in registers meanwhile, and in the first-level cache from group to group. */
#include "tl_chunks.h"
#include "tl_depthwise.h"

enum { PIXELS = 8, FEW = 4 }; /* results of a group */

/* One row of results and the kernel rows that lie inside. */
typedef struct {
  const tl_depthwise_weights *g;
  int32_t pitch;
  int32_t rows;
  const float *x;  /* pixel 0 of the row under kernel row 0 of these */
  const float *dy; /* result 0 */
  float *sums;     /* of that kernel row */
} line;

/* Results ox .. ox+pixels-1. Constants where it is called: kw, stride, pixels, checked: whether pixels may lie beside the
 * row. */
TL_INLINE void group(const line *l, int32_t ox, const int kw, const int stride, const int pixels, const int checked) {
  const tl_conv_shape *s = &l->g->s;
  const int columns = (pixels - 1) * stride + kw;
  const int64_t pitch = s->c, next = (int64_t)s->w * s->c * s->dh;
  const int64_t sums_pitch = l->pitch;
  const int32_t left = ox * stride - s->pl, w = s->w, rows = l->rows, channels = s->c;
  const float *const x0 = l->x + left * pitch, *const dy0 = l->dy + ox * pitch;
  float *const sums0 = l->sums;
  for (int32_t c = 0; c < channels; c += TL_VL) {
    const float *x = x0 + c, *dy = dy0 + c;
    float *sums = sums0 + c;
    tl_vf d[PIXELS];
    TL_UNROLL(8)
    for (int j = 0; j < pixels; j++) d[j] = tl_load(dy + j * pitch);
    for (int32_t ky = 0; ky < rows; ky++, x += next, sums += kw * sums_pitch) {
      tl_vf acc[5];
      TL_UNROLL(5)
      for (int kx = 0; kx < kw; kx++) acc[kx] = tl_load(sums + kx * sums_pitch);
      TL_UNROLL(19)
      for (int i = 0; i < columns; i++) {
        if (checked && (uint32_t)(left + i) >= (uint32_t)w) continue;
        tl_vf v = tl_load(x + i * pitch);
        TL_UNROLL(8)
        for (int j = 0; j < pixels; j++)
          if (i >= j * stride && i < j * stride + kw) acc[i - j * stride] += d[j] * v;
      }
      TL_UNROLL(5)
      for (int kx = 0; kx < kw; kx++) tl_save(sums + kx * sums_pitch, acc[kx]);
    }
  }
}

TL_INLINE int32_t groups(const line *l, int32_t ox, const int kw, const int stride, const int pixels) {
  const tl_conv_shape *s = &l->g->s;
  for (; ox + pixels <= s->ow; ox += pixels) {
    int32_t left = ox * stride - s->pl;
    if (left >= 0 && left + (pixels - 1) * stride + kw <= s->w) {
      group(l, ox, kw, stride, pixels, 0);
    } else {
      group(l, ox, kw, stride, pixels, 1);
    }
  }
  return ox;
}

TL_INLINE void row_of(const line *l, const int kw, const int stride) {
  int32_t ox = groups(l, groups(l, 0, kw, stride, PIXELS), kw, stride, FEW);
  for (; ox < l->g->s.ow; ox++) group(l, ox, kw, stride, 1, 1);
}

/* Any window. */
static void row_of_any(const line *l) {
  const tl_conv_shape *s = &l->g->s;
  for (int32_t ox = 0; ox < s->ow; ox++)
    for (int32_t kx = 0; kx < s->kw; kx++) {
      int32_t ix = ox * s->sw - s->pl + kx * s->dw;
      if (ix < 0 || ix >= s->w) continue;
      for (int32_t ky = 0; ky < l->rows; ky++)
        for (int32_t c = 0; c < s->c; c += TL_VL) {
          float *sum = l->sums + (ky * s->kw + kx) * l->pitch + c;
          tl_vf d = tl_load(l->dy + (int64_t)ox * s->c + c);
          tl_save(sum, tl_load(sum) + d * tl_load(l->x + ((int64_t)ky * s->dh * s->w + ix) * s->c + c));
        }
    }
}

static void row_3_1(const line *l) { row_of(l, 3, 1); }
static void row_3_2(const line *l) { row_of(l, 3, 2); }
static void row_5_1(const line *l) { row_of(l, 5, 1); }
static void row_5_2(const line *l) { row_of(l, 5, 2); }

typedef void (*run_row)(const line *);

static run_row row_for(const tl_conv_shape *s) {
  if (s->dw == 1 && s->kw == 3 && s->sw == 1) return row_3_1;
  if (s->dw == 1 && s->kw == 3 && s->sw == 2) return row_3_2;
  if (s->dw == 1 && s->kw == 5 && s->sw == 1) return row_5_1;
  if (s->dw == 1 && s->kw == 5 && s->sw == 2) return row_5_2;
  return row_of_any;
}

static void chunk_of(const tl_depthwise_weights *g, int32_t chunk) {
  const tl_conv_shape *s = &g->s;
  const run_row run = row_for(s);
  const int32_t pitch = (s->c + TL_VL - 1) / TL_VL * TL_VL, size = s->kh * s->kw * pitch, rows = s->n * s->oh;
  float *sums = g->sums + chunk * size;
  memset(sums, 0, (size_t)size * sizeof *sums);
  for (int32_t row = tl_chunk_bound(rows, chunk); row < tl_chunk_bound(rows, chunk + 1); row++) {
    int32_t n = row / s->oh, iy = (row - n * s->oh) * s->sh - s->pt, ky0 = 0, ky1 = s->kh;
    while (ky0 < ky1 && iy + ky0 * s->dh < 0) ky0++;
    while (ky1 > ky0 && iy + (ky1 - 1) * s->dh >= s->h) ky1--;
    line l = {g, pitch, ky1 - ky0, g->x + ((int64_t)n * s->h + iy + ky0 * s->dh) * s->w * s->c,
              g->dy + (int64_t)row * s->ow * s->c, sums + ky0 * s->kw * pitch};
    run(&l);
  }
}

void tl_depthwise_weights_part(const void *weights, int32_t part, int32_t parts) {
  for (int32_t chunk = tl_first_chunk(part, parts); chunk < tl_first_chunk(part + 1, parts); chunk++)
    chunk_of(weights, chunk);
}
