/* dx of strided depthwise convolutions. With stride 2 in a row, a pair of neighbouring pixels sees the same dy under
 * alternate taps: groups of pairs share what they load. Elsewhere every pixel looks for its own. */
#include "tl_depthwise.h"
#include "tl_parallel.h"

enum { PAIRS = 4, MOST_ROWS = 8 };

/* One row of dx: the kernel rows under which a row of dy lies. */
typedef struct {
  const tl_depthwise *d;
  int32_t pitch;
  int32_t at; /* of pixel 0 in dx */
  int32_t count;
  const float *lines[MOST_ROWS]; /* dy, pixel 0 */
  const float *taps[MOST_ROWS];
} line;

static line make_line(const tl_depthwise *d, int32_t row) {
  const tl_conv_shape *s = &d->s;
  line l = {d, (s->c + TL_VL - 1) / TL_VL * TL_VL, row * s->w * s->c, 0, {0}, {0}};
  int32_t n = row / s->h, iy = row - n * s->h;
  for (int32_t ky = 0; ky < s->kh && l.count < MOST_ROWS; ky++) {
    int32_t oy = iy + s->pt - ky * s->dh;
    if (oy < 0 || oy % s->sh || oy / s->sh >= s->oh) continue;
    l.lines[l.count] = d->x + ((int64_t)n * s->oh + oy / s->sh) * s->ow * s->c;
    l.taps[l.count++] = d->taps + ky * s->kw * l.pitch;
  }
  return l;
}

static void pixel(const line *l, int32_t ix) {
  const tl_conv_shape *s = &l->d->s;
  for (int32_t c = 0; c < s->c; c += TL_VL) {
    tl_vf acc = {0};
    for (int32_t r = 0; r < l->count; r++)
      for (int32_t kx = 0; kx < s->kw; kx++) {
        int32_t ox = ix + s->pl - kx * s->dw;
        if (ox < 0 || ox % s->sw || ox / s->sw >= s->ow) continue;
        acc += tl_load(l->lines[r] + ox / s->sw * s->c + c) * tl_load(l->taps[r] + kx * l->pitch + c);
      }
    tl_finish_save(&l->d->finish, l->d->y, acc, l->at + ix * s->c + c, s->c - c, s->c, TL_ANY_ENDING);
  }
}

/* Pixels 2j .. 2j+2*pairs-1. Constants where it is called: kw, odd (of the padding), pairs, checked: whether dy may lie
 * beside the row, kind (tl_finish.h). Tap kx reaches pixel 2(j+q)+a, a of the parity of kx + odd, from the dy pixel
 * first + q + (a + odd - kx) / 2. */
TL_INLINE void group(const line *l, int32_t j, const int kw, const int odd, const int pairs, const int checked,
                     const int kind) {
  const tl_conv_shape *s = &l->d->s;
  const tl_finish f = l->d->finish; /* a copy, see tl_finish_save */
  const int low = (odd - kw + 1) / 2, high = pairs - 1 + (1 + odd) / 2;
  const int64_t channels = s->c, taps_pitch = l->pitch;
  const int32_t first = j + s->pl / 2, ow = s->ow, count = l->count;
  float *const y = l->d->y;
  int32_t at = l->at + 2 * j * s->c;
  for (int32_t c = 0; c < channels; c += TL_VL, at += TL_VL) {
    tl_vf acc[2 * PAIRS];
    TL_UNROLL(8)
    for (int i = 0; i < 2 * pairs; i++) acc[i] = (tl_vf){0};
    for (int32_t r = 0; r < count; r++) {
      const float *dy = l->lines[r] + first * channels + c, *taps = l->taps[r] + c;
      tl_vf tap[5];
      TL_UNROLL(5)
      for (int kx = 0; kx < kw; kx++) tap[kx] = tl_load(taps + kx * taps_pitch);
      TL_UNROLL(8)
      for (int i = high; i >= low; i--) {
        if (checked && (uint32_t)(first + i) >= (uint32_t)ow) continue;
        tl_vf v = tl_load(dy + i * channels);
        TL_UNROLL(8)
        for (int p = 0; p < 2 * pairs; p++) {
          const int kx = p % 2 + odd - 2 * (i - p / 2);
          if (kx >= 0 && kx < kw) acc[p] += v * tap[kx];
        }
      }
    }
    tl_finish_save_all(&f, y, acc, 2 * pairs, at, (int32_t)channels, (int32_t)channels - c, (int32_t)channels, kind);
  }
}

/* One pair, of any kind: each copy of a group takes its time to compile. */
typedef void (*run_pair)(const line *, int32_t);

TL_INLINE void row_of(const line *l, const int kw, const int odd, const int kind, const run_pair pair) {
  const tl_conv_shape *s = &l->d->s;
  const int32_t low = s->pl / 2 + (odd - kw + 1) / 2, high = s->pl / 2 + PAIRS - 1 + (1 + odd) / 2; /* of dy, beside j */
  int32_t j = 0;
  for (; 2 * (j + PAIRS) <= s->w; j += PAIRS) {
    if (kind != TL_ANY_ENDING && j + low >= 0 && j + high < s->ow) {
      group(l, j, kw, odd, PAIRS, 0, kind);
    } else {
      group(l, j, kw, odd, PAIRS, 1, kind);
    }
  }
  for (; 2 * (j + 1) <= s->w; j++) pair(l, j);
  if (2 * j < s->w) pixel(l, 2 * j);
}

static void row_of_any(const line *l) {
  for (int32_t ix = 0; ix < l->d->s.w; ix++) pixel(l, ix);
}

typedef void (*run_row)(const line *);

/* A gradient has no bias and writes no mask. */
#define ROW(NAME, KW, ODD)                                                                               \
  static void NAME##_pair(const line *l, int32_t j) { group(l, j, KW, ODD, 1, 1, TL_ANY_ENDING); }       \
  static void NAME##_plain(const line *l) { row_of(l, KW, ODD, TL_PLAIN, NAME##_pair); }                 \
  static void NAME##_keep(const line *l) { row_of(l, KW, ODD, TL_KEEPS, NAME##_pair); }                  \
  static void NAME##_any(const line *l) { row_of(l, KW, ODD, TL_ANY_ENDING, NAME##_pair); }              \
  static const run_row NAME[] = {NAME##_plain, NAME##_any, NAME##_keep, NAME##_any};
ROW(row_3_even, 3, 0)
ROW(row_3_odd, 3, 1)
ROW(row_5_even, 5, 0)
ROW(row_5_odd, 5, 1)

static run_row row_for(const tl_depthwise *d) {
  const tl_conv_shape *s = &d->s;
  int32_t kind = tl_finish_kind(&d->finish, s->c);
  if (s->sw != 2 || s->dw != 1) return row_of_any;
  if (s->kw == 3) return s->pl & 1 ? row_3_odd[kind] : row_3_even[kind];
  if (s->kw == 5) return s->pl & 1 ? row_5_odd[kind] : row_5_even[kind];
  return row_of_any;
}

void tl_depthwise_grad_rows(const void *depthwise, int32_t part, int32_t parts) {
  const tl_depthwise *d = depthwise;
  const tl_conv_shape *s = &d->s;
  const run_row run = row_for(d);
  const int32_t masks = tl_masks_in_registers(s->c), rows = s->n * s->h;
  const int32_t grain = masks || !(d->finish.mask || d->finish.keep) ? 1 : 8;
  const int32_t first = tl_bound(rows, grain, part, parts), last = tl_bound(rows, grain, part + 1, parts);
  for (int32_t row = first; row < last; row++) {
    const line l = make_line(d, row);
    run(&l);
  }
  if (!masks) tl_finish_masks(&d->finish, d->y, first * s->w * s->c, last * s->w * s->c);
}
