/* The int8 convolution as a matrix product: positions x K times K x outputs, K = kh * kw * c/g.
 *
 * For TL_LANES outputs at a time their weights are packed to panel[K][lanes] (read, rounded, overlaid once), then
 * swept over the positions, TL_ROWS_S8 at a time. A K longer than the panel goes in chunks; the sums of a block of
 * positions wait in scratch meanwhile.   scratch: panel s16 [CHUNK][lanes], sums s32 [BLOCK][lanes], half each.
 *
 * Where the machine multiplies pairs of 16 bits (tl_pairs.h) the columns of the panel are paired, x is not centred, and
 * each sum begins with what centring would have taken off: -x_zero * (sum of its weights). The same integers.
 */
#include "tl_block.h"
#include "tl_conv.h"
#include "tl_pairs.h"
#include "tl_requantize.h"
#include "tl_weights.h"
#include "tl_window.h"

enum {
  WORK = TL_PAIRS ? 16384 : TL_CONV_SCRATCH_BYTES, /* bytes of panel and sums */
  CHUNK = WORK / 4 / TL_LANES,
  BLOCK = WORK / 8 / TL_LANES,
  PADDING = 128
};

typedef struct {
  const tl_conv_shape *s;
  const int8_t *x;
  int32_t x_zero, group;   /* group: the one being computed */
  int8_t padding[PADDING];   /* x_zero everywhere: what a tap in the padding reads */
  int16_t *panel;          /* columns first .. end-1 of K */
  int32_t first, end, ky, kx, c; /* (ky, kx, c) is column first */
  int32_t paired;          /* whether the panel is */
  tl_s32_lanes start;      /* of every sum of the panel's columns */
} sweep;

/* One group of rows over the panel's columns. A piece is a run that is contiguous in x for every row: a tap's
 * channels, or the rest of a kernel row when nothing lies between its taps. */
static void sweep_rows(const sweep *a, const tl_window *at, tl_s32_lanes *sums) {
  const tl_conv_shape *s = a->s;
  int32_t cg = s->c / s->groups, inside = 1;
  for (int r = 0; r < TL_ROWS_S8; r++) inside &= tl_window_inside(s, &at[r]);
  int32_t whole_rows = inside && s->dw == 1 && s->groups == 1;
  int32_t ky = a->ky, kx = a->kx, c = a->c;
  for (int32_t k = a->first; k < a->end;) {
    int32_t count = tl_min(a->end - k, (whole_rows ? s->kw - kx : 1) * cg - c);
    if (!inside) count = tl_min(count, PADDING);
    int32_t offset = (ky * s->dh * s->w + kx * s->dw) * s->c + a->group * cg + c;
    const int8_t *x[TL_ROWS_S8];
    for (int r = 0; r < TL_ROWS_S8; r++)
      x[r] = inside || tl_window_has(s, &at[r], ky, kx) ? a->x + (at[r].pixel * s->c + offset) : a->padding;
    if (a->paired) {
      tl_block_pairs(sums, x, a->panel + (k - a->first) * TL_LANES, count);
    } else {
      tl_block_s8(sums, x, a->x_zero, a->panel + (k - a->first) * TL_LANES, count);
    }
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

/* Positions p .. p+count-1; the last group of rows repeats its last position so that it is full. */
static void sweep_positions(const sweep *a, int32_t p, int32_t count, int32_t *sums) {
  const tl_conv_shape *s = a->s;
  tl_window next = tl_window_of(s, p);
  for (int32_t q = 0; q < count; q += TL_ROWS_S8) {
    tl_window at[TL_ROWS_S8];
    tl_s32_lanes acc[TL_ROWS_S8] = {{0}};
    int32_t rows = tl_min(TL_ROWS_S8, count - q);
    for (int32_t r = 0; r < TL_ROWS_S8; r++) {
      at[r] = next;
      if (r < rows - 1) tl_window_next(s, &next);
    }
    tl_window_next(s, &next);
    if (a->first > 0) memcpy(acc, sums + q * TL_LANES, (size_t)rows * sizeof acc[0]);
    if (a->paired)
      for (int r = 0; r < TL_ROWS_S8; r++) tl_add_wrapped(&acc[r], &a->start);
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
  tl_load_panel_s16(w, taps, cg, o, width, first, a->end - first, a->panel);
  if (a->paired) tl_pair_panel(a->panel, a->end - first, a->x_zero, &a->start);
}

/* Outputs o .. o+width-1 of all positions. */
static void conv_lanes(sweep *a, const tl_weights *w, const tl_bias *b, const tl_rescale *by, int32_t o, int32_t width,
                       int8_t *y, uint8_t *mask, int32_t *sums) {
  const tl_conv_shape *s = a->s;
  int32_t positions = s->n * s->oh * s->ow, k_all = s->kh * s->kw * (s->c / s->groups);
  tl_requantizer to;
  tl_requantizer_of(&to, b, by, s->o, o, width);
  if (k_all <= CHUNK) load_panel(a, w, o, width, 0);
  for (int32_t p = 0; p < positions; p += BLOCK) {
    int32_t count = tl_min(BLOCK, positions - p);
    for (int32_t first = 0; first < k_all; first += CHUNK) {
      if (k_all > CHUNK) load_panel(a, w, o, width, first);
      sweep_positions(a, p, count, sums);
    }
    for (int32_t q = 0; q < count; q++)
      tl_requantize_lanes(&to, sums + q * TL_LANES, (p + q) * s->o + o, y, mask);
  }
}

static void conv(const tl_conv_shape *s, const int8_t *x, int32_t x_zero, const tl_weights *w, const tl_bias *b,
                 const tl_rescale *by, int8_t *y, uint8_t *mask, void *scratch) {
#if TL_PAIRS /* a computer's stack, not the program's memory: a wider panel is loaded less often */
  int32_t work[WORK / 4];
  (void)scratch;
#else
  int32_t *work = scratch;
#endif
  /* of even channels every run of columns begins and ends at a pair */
  sweep a = {.s = s, .x = x, .x_zero = x_zero, .panel = (int16_t *)work, .paired = TL_PAIRS && s->c / s->groups % 2 == 0};
  int32_t *sums = (int32_t *)work + WORK / 8;
  int32_t og = s->o / s->groups;
  memset(a.padding, x_zero, sizeof a.padding);
  if (mask) memset(mask, 0, (size_t)TL_MASK_BYTES(s->n * s->oh * s->ow * s->o));
  for (a.group = 0; a.group < s->groups; a.group++)
    for (int32_t o = 0; o < og; o += TL_LANES)
      conv_lanes(&a, w, b, by, a.group * og + o, tl_min(TL_LANES, og - o), y, mask, sums);
}

void tl_conv_s8(const tl_conv_shape *s, const int8_t *x, int32_t x_zero, const tl_weights *w, const tl_bias *b,
                const float *scale, int32_t y_zero, int8_t *y, uint8_t *mask, void *scratch) {
  const tl_rescale by = {scale, NULL, y_zero};
  conv(s, x, x_zero, w, b, &by, y, mask, scratch);
}

void tl_conv_s8_fixed(const tl_conv_shape *s, const int8_t *x, int32_t x_zero, const tl_weights *w, const tl_bias *b,
                      const tl_fixed *to, int32_t y_zero, int8_t *y, uint8_t *mask, void *scratch) {
  const tl_rescale by = {NULL, to, y_zero};
  conv(s, x, x_zero, w, b, &by, y, mask, scratch);
}
