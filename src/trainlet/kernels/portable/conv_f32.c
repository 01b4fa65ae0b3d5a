/* The fp32 convolution: conv_s8.c with floats, the sums in the order (ky, kx, c) whatever the chunks.
 *
 * scratch: panel f32 [CHUNK][lanes], sums f32 [BLOCK][lanes], half each.
 */
#include "tl_block.h"
#include "tl_conv.h"
#include "tl_requantize.h"
#include "tl_weights.h"
#include "tl_window.h"

enum { CHUNK = TL_CONV_SCRATCH_BYTES / 8 / TL_LANES, BLOCK = TL_CONV_SCRATCH_BYTES / 8 / TL_LANES, PADDING = 64 };

typedef struct {
  const tl_conv_shape *s;
  const float *x;
  int32_t group;
  float padding[PADDING];
  float *panel;
  int32_t first, end, ky, kx, c; /* (ky, kx, c): column first */
} sweep;

static void sweep_rows(const sweep *a, const tl_window *at, tl_f32_lanes *sums) {
  const tl_conv_shape *s = a->s;
  int32_t cg = s->c / s->groups, inside = 1;
  for (int r = 0; r < TL_ROWS; r++) inside &= tl_window_inside(s, &at[r]);
  int32_t whole_rows = inside && s->dw == 1 && s->groups == 1;
  int32_t ky = a->ky, kx = a->kx, c = a->c;
  for (int32_t k = a->first; k < a->end;) {
    int32_t count = tl_min(a->end - k, (whole_rows ? s->kw - kx : 1) * cg - c);
    if (!inside) count = tl_min(count, PADDING);
    int32_t offset = (ky * s->dh * s->w + kx * s->dw) * s->c + a->group * cg + c;
    const float *x[TL_ROWS];
    for (int r = 0; r < TL_ROWS; r++)
      x[r] = inside || tl_window_has(s, &at[r], ky, kx) ? a->x + (at[r].pixel * s->c + offset) : a->padding;
    tl_block_f32(sums, x, 1, a->panel + (k - a->first) * TL_LANES, count);
    k += count;
    c += count;
    if (!whole_rows && c < cg) continue;
    c = 0;
    if (whole_rows || ++kx == s->kw) {
      kx = 0;
      ky++;
    }
  }
}

static void sweep_positions(const sweep *a, int32_t p, int32_t count, float *sums) {
  tl_window next = tl_window_of(a->s, p);
  for (int32_t q = 0; q < count; q += TL_ROWS) {
    tl_window at[TL_ROWS];
    tl_f32_lanes acc[TL_ROWS] = {{0}};
    int32_t rows = tl_min(TL_ROWS, count - q);
    for (int32_t r = 0; r < TL_ROWS; r++) {
      at[r] = next;
      if (r < rows - 1) tl_window_next(a->s, &next);
    }
    tl_window_next(a->s, &next);
    if (a->first > 0) memcpy(acc, sums + q * TL_LANES, (size_t)rows * sizeof acc[0]);
    sweep_rows(a, at, acc);
    memcpy(sums + q * TL_LANES, acc, (size_t)rows * sizeof acc[0]);
  }
}

static void load_panel(sweep *a, const tl_weights *w, int32_t o, int32_t width, int32_t first) {
  int32_t taps = a->s->kh * a->s->kw, cg = a->s->c / a->s->groups;
  a->first = first;
  a->end = tl_min(first + CHUNK, taps * cg);
  a->ky = first / cg / a->s->kw;
  a->kx = first / cg % a->s->kw;
  a->c = first % cg;
  for (int32_t j = 0; j < width; j++)
    tl_load_weights(w, taps, cg, o + j, first, a->end - first, a->panel + j, TL_LANES);
  for (int32_t j = width; j < TL_LANES; j++)
    for (int32_t k = 0; k < a->end - first; k++) a->panel[k * TL_LANES + j] = 0.0f;
}

static void conv_lanes(sweep *a, const tl_weights *w, const tl_bias *b, int32_t o, int32_t width, float lo, float hi,
                       float *y, uint8_t *mask, float *sums) {
  const tl_conv_shape *s = a->s;
  int32_t positions = s->n * s->oh * s->ow, k_all = s->kh * s->kw * (s->c / s->groups);
  tl_clipper to;
  tl_clipper_of(&to, b, o, width, lo, hi);
  if (k_all <= CHUNK) load_panel(a, w, o, width, 0);
  for (int32_t p = 0; p < positions; p += BLOCK) {
    int32_t count = tl_min(BLOCK, positions - p);
    for (int32_t first = 0; first < k_all; first += CHUNK) {
      if (k_all > CHUNK) load_panel(a, w, o, width, first);
      sweep_positions(a, p, count, sums);
    }
    for (int32_t q = 0; q < count; q++) tl_clip_lanes(&to, sums + q * TL_LANES, (p + q) * s->o + o, y, mask);
  }
}

void tl_conv_f32(const tl_conv_shape *s, const float *x, const tl_weights *w, const tl_bias *b, float lo, float hi,
                 float *y, uint8_t *mask, void *scratch) {
  sweep a = {.s = s, .x = x, .panel = scratch};
  float *sums = (float *)scratch + TL_CONV_SCRATCH_BYTES / 8;
  int32_t og = s->o / s->groups;
  if (mask) memset(mask, 0, (size_t)TL_MASK_BYTES(s->n * s->oh * s->ow * s->o));
  for (a.group = 0; a.group < s->groups; a.group++)
    for (int32_t o = 0; o < og; o += TL_LANES)
      conv_lanes(&a, w, b, a.group * og + o, tl_min(TL_LANES, og - o), lo, hi, y, mask, sums);
}
