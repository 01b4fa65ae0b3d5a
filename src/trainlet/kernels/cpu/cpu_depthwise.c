/* Neighbouring results share the pixels they read: each is loaded once and added to every result that it lies under. All
 * channels of a group of results before the next group, so that memory is walked through in order. */
#include "tl_depthwise.h"

#include "tl_parallel.h"

enum { PIXELS = 4 };        /* results of a group */
enum { TAPS_FLOATS = 2048 }; /* taps that stay in the first-level cache while a row passes */

/* One row of results, channels c0 .. c1-1, and the kernel rows that lie inside. */
typedef struct {
  const tl_depthwise *d;
  int32_t pitch;      /* of taps: c rounded up */
  int32_t rows;
  const float *x;     /* pixel 0 of the row under kernel row 0 of these */
  const float *taps;  /* of that kernel row */
  int32_t at;         /* of result 0 in y */
  int32_t c0, c1;
} line;

/* Results ox .. ox+pixels-1. Constants where it is called: kw, stride, pixels, kind (tl_finish.h), checked: whether
 * pixels may lie beside the row; those count as 0. */
TL_INLINE void group(const line *l, int32_t ox, const int kw, const int stride, const int pixels, const int checked,
                     const int kind) {
  const tl_conv_shape *s = &l->d->s;
  const tl_finish f = l->d->finish; /* a copy, see tl_finish_save */
  const int columns = (pixels - 1) * stride + kw;
  const int64_t pitch = s->c, next = (int64_t)s->w * s->c * s->dh, taps_pitch = l->pitch;
  const int32_t left = ox * stride - s->pl, w = s->w, channels = s->c, rows = l->rows, c1 = l->c1;
  const float *const x0 = l->x + left * pitch, *const taps0 = l->taps;
  float *const y = l->d->y;
  int32_t at = l->at + ox * channels + l->c0;
  for (int32_t c = l->c0; c < c1; c += TL_VL, at += TL_VL) {
    const float *x = x0 + c, *taps = taps0 + c;
    tl_vf acc[PIXELS], bias = {0};
    if (f.bias) bias = kind == TL_ANY_ENDING ? tl_load_part(f.bias + c, channels - c) : tl_load(f.bias + c);
    TL_UNROLL(4)
    for (int j = 0; j < pixels; j++) acc[j] = bias;
    for (int32_t ky = 0; ky < rows; ky++, x += next, taps += kw * taps_pitch) {
      tl_vf tap[5];
      TL_UNROLL(5)
      for (int kx = 0; kx < kw; kx++) tap[kx] = tl_load(taps + kx * taps_pitch);
      TL_UNROLL(11)
      for (int i = 0; i < columns; i++) {
        if (checked && (uint32_t)(left + i) >= (uint32_t)w) continue;
        tl_vf v = tl_load(x + i * pitch);
        TL_UNROLL(4)
        for (int j = 0; j < pixels; j++)
          if (i >= j * stride && i < j * stride + kw) acc[j] += v * tap[i - j * stride];
      }
    }
    tl_finish_save_all(&f, y, acc, pixels, at, channels, channels - c, channels, kind);
  }
}

/* One result, of any kind: each copy of a group takes its time to compile. */
typedef void (*run_single)(const line *, int32_t);

TL_INLINE void row_of(const line *l, const int kw, const int stride, const int kind, const run_single single) {
  const tl_conv_shape *s = &l->d->s;
  int32_t ox = 0;
  for (; ox + PIXELS <= s->ow; ox += PIXELS) {
    int32_t left = ox * stride - s->pl;
    if (kind != TL_ANY_ENDING && left >= 0 && left + (PIXELS - 1) * stride + kw <= s->w) {
      group(l, ox, kw, stride, PIXELS, 0, kind);
    } else {
      group(l, ox, kw, stride, PIXELS, 1, kind);
    }
  }
  for (; ox < s->ow; ox++) single(l, ox);
}

/* Any window. */
static void row_of_any(const line *l) {
  const tl_conv_shape *s = &l->d->s;
  for (int32_t ox = 0; ox < s->ow; ox++)
    for (int32_t c = l->c0; c < l->c1; c += TL_VL) {
      const float *bias = l->d->finish.bias;
      tl_vf acc = bias ? tl_load_part(bias + c, s->c - c) : (tl_vf){0};
      for (int32_t ky = 0; ky < l->rows; ky++)
        for (int32_t kx = 0; kx < s->kw; kx++) {
          int32_t ix = ox * s->sw - s->pl + kx * s->dw;
          if (ix < 0 || ix >= s->w) continue;
          acc += tl_load(l->x + ((int64_t)ky * s->dh * s->w + ix) * s->c + c) *
                 tl_load(l->taps + (ky * s->kw + kx) * l->pitch + c);
        }
      tl_finish_save(&l->d->finish, l->d->y, acc, l->at + ox * s->c + c, s->c - c, s->c, TL_ANY_ENDING);
    }
}

typedef void (*run_row)(const line *);

#define ROW(NAME, KW, STRIDE)                                                                                      \
  static void NAME##_single(const line *l, int32_t ox) { group(l, ox, KW, STRIDE, 1, 1, TL_ANY_ENDING); }          \
  static void NAME##_plain(const line *l) { row_of(l, KW, STRIDE, TL_PLAIN, NAME##_single); }                      \
  static void NAME##_mask(const line *l) { row_of(l, KW, STRIDE, TL_WRITES_MASK, NAME##_single); }                 \
  static void NAME##_keep(const line *l) { row_of(l, KW, STRIDE, TL_KEEPS, NAME##_single); }                       \
  static void NAME##_any(const line *l) { row_of(l, KW, STRIDE, TL_ANY_ENDING, NAME##_single); }                   \
  static const run_row NAME[] = {NAME##_plain, NAME##_mask, NAME##_keep, NAME##_any};
ROW(row_3_1, 3, 1)
ROW(row_3_2, 3, 2)
ROW(row_5_1, 5, 1)
ROW(row_5_2, 5, 2)

static run_row row_for(const tl_depthwise *d) {
  const tl_conv_shape *s = &d->s;
  int32_t kind = tl_finish_kind(&d->finish, s->c);
  if (s->dw == 1 && s->kw == 3 && s->sw == 1) return row_3_1[kind];
  if (s->dw == 1 && s->kw == 3 && s->sw == 2) return row_3_2[kind];
  if (s->dw == 1 && s->kw == 5 && s->sw == 1) return row_5_1[kind];
  if (s->dw == 1 && s->kw == 5 && s->sw == 2) return row_5_2[kind];
  return row_of_any;
}

void tl_depthwise_rows(const void *depthwise, int32_t part, int32_t parts) {
  const tl_depthwise *d = depthwise;
  const tl_conv_shape *s = &d->s;
  const run_row run = row_for(d);
  const int32_t masks = tl_masks_in_registers(s->c), pitch = (s->c + TL_VL - 1) / TL_VL * TL_VL;
  const int32_t grain = masks || !(d->finish.mask || d->finish.keep) ? 1 : 8, rows = s->n * s->oh;
  const int32_t first = tl_bound(rows, grain, part, parts), last = tl_bound(rows, grain, part + 1, parts);
  const int32_t tile = TAPS_FLOATS / (s->kh * s->kw) / TL_VL * TL_VL + TL_VL;
  for (int32_t row = first; row < last; row++) {
    int32_t n = row / s->oh, iy = (row - n * s->oh) * s->sh - s->pt, ky0 = 0, ky1 = s->kh;
    while (ky0 < ky1 && iy + ky0 * s->dh < 0) ky0++;
    while (ky1 > ky0 && iy + (ky1 - 1) * s->dh >= s->h) ky1--;
    line l = {d, pitch, ky1 - ky0, d->x + ((int64_t)n * s->h + iy + ky0 * s->dh) * s->w * s->c,
              d->taps + ky0 * s->kw * pitch, row * s->ow * s->c, 0, 0};
    for (; l.c0 < s->c; l.c0 = l.c1) {
      l.c1 = l.c0 + tile < s->c ? l.c0 + tile : s->c;
      run(&l);
    }
  }
  if (!masks) tl_finish_masks(&d->finish, d->y, first * s->ow * s->c, last * s->ow * s->c);
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
