/* The int8 convolution as a matrix product on SMLAD: positions x K times K x outputs, K = kh * kw * c/g.
 *
 * Both operands are widened to pairs of 16 bits in scratch, x centred by its zero point on the way. The weights of some
 * outputs are a panel: as many as fit for a short K, few for a long one, whose columns come in chunks. Positions are
 * swept four at a time, packed once for all outputs of the panel; the sums of a block of positions wait in scratch.
 * scratch: panel (half), x (a quarter), sums (a quarter).
 */
#include "tl_block.h"
#include "tl_conv.h"
#include "tl_ending.h"
#include "tl_weights.h"
#include "tl_window.h"

enum {
  PANEL = TL_CONV_SCRATCH_BYTES / 8,  /* words: pairs of two outputs */
  ROWS = TL_CONV_SCRATCH_BYTES / 16,  /* words: pairs of four positions */
  SUMS = TL_CONV_SCRATCH_BYTES / 16,
  CHUNK = ROWS / 2,                   /* columns of K, a multiple of 8 */
  TILE = 8,                           /* sums of four positions and two outputs */
  MOST = 16,                          /* outputs of a panel: few enough for a block of several tiles */
};

typedef struct {
  const tl_conv_shape *s;
  const int8_t *x;
  const tl_weights *w;
  const tl_bias *b;
  const tl_rescale *by;
  int32_t x_zero, group, group_channels; /* the group being computed; input channels of each */
  int32_t in_place;                 /* position p is row p of a matrix and the chunk needs no filling up */
  int32_t o, outputs, pairs;        /* of the panel; pairs of outputs */
  int32_t first, count, eights;     /* columns of the chunk; groups of eight that hold them */
  uint32_t *panel, *rows;
  int32_t *sums;
  tl_ending end[MOST];
} sweep;

static inline int32_t eights_of(int32_t count) { return (count + 7) >> 3; }

/* The trained or rounded weights of one output, to every second word of `to`; columns from a->count on are 0. */
static void load_row(const sweep *a, int32_t row, uint32_t *to) {
  int16_t wide[CHUNK];
  int32_t columns = 8 * a->eights;
  tl_load_weights_s16(a->w, a->s->kh * a->s->kw, a->s->c / a->s->groups, row, a->first, a->count, wide, 1);
  for (int32_t k = a->count; k < columns; k++) wide[k] = 0;
  for (int32_t k = 0; k < columns; k += 4, to += 4) {
    to[0] = tl_pair(wide[k], wide[k + 2]);
    to[2] = tl_pair(wide[k + 1], wide[k + 3]);
  }
}

/* Columns first .. of K: [pairs][columns / 2][2]. The partner of an odd last output is that output again; its sums are
 * not read. Frozen int8 weights are widened from where they are. */
static void load_panel(sweep *a, int32_t first, int32_t columns) {
  uint32_t base = tl_pair(-a->w->zero, -a->w->zero), *to = a->panel;
  a->first = first;
  a->count = tl_min(CHUNK, columns - first);
  a->eights = eights_of(a->count);
  a->in_place = tl_window_is_row(a->s) && a->count == 8 * a->eights;
  int32_t plain = a->w->kind_base == TL_W_S8 && !a->w->trained && a->count == 8 * a->eights;
  for (int32_t j = 0; j < a->pairs; j++, to += 8 * a->eights) {
    int32_t even = a->o + 2 * j, odd = a->o + tl_min(2 * j + 1, a->outputs - 1);
    if (plain) {
      const int8_t *w = (const int8_t *)a->w->base + first;
      tl_widen_2(w + even * columns, w + odd * columns, base, 2 * a->eights, to);
    } else {
      load_row(a, even, to);
      load_row(a, odd, to + 1);
    }
  }
}

/* The chunk's columns of one position to a row of bytes, x_zero in the padding and behind the last. */
static void gather(const sweep *a, const tl_window *at, int8_t *row) {
  const tl_conv_shape *s = a->s;
  int32_t cg = s->c / s->groups, tap = a->first / cg, c = a->first - tap * cg;
  int32_t ky = tap / s->kw, kx = tap - ky * s->kw;
  int32_t whole_rows = s->dw == 1 && s->groups == 1 && tl_window_inside(s, at);
  for (int32_t k = 0; k < a->count;) {
    int32_t run = tl_min(a->count - k, (whole_rows ? s->kw - kx : 1) * cg - c);
    if (tl_window_has(s, at, ky, kx)) {
      const int8_t *x = a->x + ((at->pixel + ky * s->dh * s->w + kx * s->dw) * s->c + a->group * cg + c);
      for (int32_t i = 0; i < run; i++) row[k + i] = x[i];
    } else {
      for (int32_t i = 0; i < run; i++) row[k + i] = (int8_t)a->x_zero;
    }
    k += run;
    c = 0;
    kx = whole_rows ? s->kw : kx + 1;
    if (kx == s->kw) {
      kx = 0;
      ky++;
    }
  }
  for (int32_t k = a->count; k < 8 * a->eights; k++) row[k] = (int8_t)a->x_zero;
}

/* Positions p .. p+3 side by side, the last of all in place of those that do not exist. */
static void load_rows(const sweep *a, int32_t p, int32_t positions) {
  const int32_t c = a->s->c, last = positions - 1;
  const int8_t *x0 = a->x + a->group * a->group_channels + a->first;
  const int8_t *x[4] = {x0 + p * c, x0 + tl_min(p + 1, last) * c, x0 + tl_min(p + 2, last) * c,
                        x0 + tl_min(p + 3, last) * c};
  tl_widen_4(x, tl_pair(-a->x_zero, -a->x_zero), 2 * a->eights, a->rows);
}

static void gather_rows(const sweep *a, int32_t p, int32_t positions) {
  int8_t bytes[4][CHUNK];
  const int8_t *x[4] = {bytes[0], bytes[1], bytes[2], bytes[3]};
  for (int32_t r = 0; r < 4; r++) {
    tl_window at = tl_window_of(a->s, tl_min(p + r, positions - 1));
    gather(a, &at, bytes[r]);
  }
  tl_widen_4(x, tl_pair(-a->x_zero, -a->x_zero), 2 * a->eights, a->rows);
}

/* Sums of positions p .. p+count-1: [positions / 4][pairs][TILE]. */
static void sweep_positions(const sweep *a, int32_t p, int32_t count, int32_t positions) {
  static const int32_t zeros[TILE];
  int32_t *sums = a->sums;
  for (int32_t q = 0; q < count; q += 4) {
    const uint32_t *panel = a->panel;
    if (a->in_place) {
      load_rows(a, p + q, positions);
    } else {
      gather_rows(a, p + q, positions);
    }
    for (int32_t j = 0; j < a->pairs; j++, sums += TILE, panel += a->eights * 8)
      tl_dot_4x2(a->rows, panel, a->eights, a->first ? sums : zeros, sums);
  }
}

/* One sum to y and, unless NULL, its mask bit. */
static inline void end_sum(const sweep *a, const tl_ending *e, int32_t zero, int32_t sum, int32_t at, int8_t *y,
                           uint8_t *mask, int32_t fixed) {
  uint32_t inside;
  y[at] = (int8_t)(fixed ? tl_end_fixed(e, a->by, sum, &inside)
                         : tl_end_float(e->bias, e->scale, zero, sum, &inside));
  if (mask) mask[at >> 3] = (uint8_t)(mask[at >> 3] | inside << (at & 7));
}

/* One output of `count` positions, from its place in the first tile on; at: index of the first in y. Inlined for fp32
 * without a mask, which is most of a network, for fp32 with one, and for the rest. */
static inline void end_output(const sweep *a, const tl_ending *ending, const int32_t *sums, int32_t count, int32_t at,
                              int8_t *y, uint8_t *mask, int32_t fixed) {
  const int32_t channels = a->s->o, next = a->pairs * TILE, zero = a->by->y_zero;
  const tl_ending e = *ending;
  for (; count >= 4; count -= 4, sums += next)
#pragma GCC unroll 4
    for (int32_t r = 0; r < 4; r++, at += channels) end_sum(a, &e, zero, sums[2 * r], at, y, mask, fixed);
  for (int32_t r = 0; r < count; r++, at += channels) end_sum(a, &e, zero, sums[2 * r], at, y, mask, fixed);
}

static void end_outputs(const sweep *a, int32_t p, int32_t count, int8_t *y, uint8_t *mask) {
  for (int32_t j = 0; j < a->outputs; j++) {
    const int32_t *sums = a->sums + ((j >> 1) * TILE + (j & 1));
    const tl_ending *e = &a->end[j];
    int32_t at = p * a->s->o + a->o + j;
    if (a->by->fixed) {
      end_output(a, e, sums, count, at, y, mask, 1);
    } else if (mask) {
      end_output(a, e, sums, count, at, y, mask, 0);
    } else {
      end_output(a, e, sums, count, at, y, NULL, 0);
    }
  }
}

/* The panel's outputs of all positions. */
static void conv_outputs(sweep *a, int8_t *y, uint8_t *mask) {
  const tl_conv_shape *s = a->s;
  int32_t positions = s->n * s->oh * s->ow, columns = s->kh * s->kw * (s->c / s->groups);
  int32_t block = SUMS / (a->pairs * TILE) * 4;
  for (int32_t j = 0; j < a->outputs; j++) tl_ending_of(&a->end[j], a->b, a->by, s->o, a->o + j);
  for (int32_t p = 0; p < positions; p += block) {
    int32_t count = tl_min(block, positions - p);
    for (int32_t first = 0; first < columns; first += CHUNK) {
      if (p == 0 || columns > CHUNK) load_panel(a, first, columns);
      sweep_positions(a, p, count, positions);
    }
    end_outputs(a, p, count, y, mask);
  }
}

static void conv(sweep *a, int8_t *y, uint8_t *mask, void *scratch) {
  const tl_conv_shape *s = a->s;
  int32_t og = s->o / s->groups, padded = 8 * eights_of(tl_min(CHUNK, s->kh * s->kw * (s->c / s->groups)));
  int32_t most = tl_min(PANEL / padded * 2, MOST);
  a->group_channels = s->c / s->groups;
  a->panel = scratch;
  a->rows = a->panel + PANEL;
  a->sums = (int32_t *)(a->rows + ROWS);
  if (mask) memset(mask, 0, (size_t)TL_MASK_BYTES(s->n * s->oh * s->ow * s->o));
  for (a->group = 0; a->group < s->groups; a->group++)
    for (int32_t o = 0; o < og; o += most) {
      a->o = a->group * og + o;
      a->outputs = tl_min(most, og - o);
      a->pairs = (a->outputs + 1) >> 1;
      conv_outputs(a, y, mask);
    }
}

void tl_conv_s8(const tl_conv_shape *s, const int8_t *x, int32_t x_zero, const tl_weights *w, const tl_bias *b,
                const float *scale, int32_t y_zero, int8_t *y, uint8_t *mask, void *scratch) {
  const tl_rescale by = {scale, NULL, y_zero};
  sweep a = {.s = s, .x = x, .x_zero = x_zero, .w = w, .b = b, .by = &by};
  conv(&a, y, mask, scratch);
}

void tl_conv_s8_fixed(const tl_conv_shape *s, const int8_t *x, int32_t x_zero, const tl_weights *w, const tl_bias *b,
                      const tl_fixed *to, int32_t y_zero, int8_t *y, uint8_t *mask, void *scratch) {
  const tl_rescale by = {NULL, to, y_zero};
  sweep a = {.s = s, .x = x, .x_zero = x_zero, .w = w, .b = b, .by = &by};
  conv(&a, y, mask, scratch);
}
