/* dx = conv_transpose(dy, w), tap by tap a matrix product: dx[q + tap][c] += dy[q][o] * w[o][tap][c].
 *
 * Weights are contiguous along c, so TL_LANES input channels of CHUNK outputs are a panel without transposing.
 * Within one tap no two positions share a dx, so four of them are swept at once, and dx itself holds the sums.
 * scratch: panel f32 [CHUNK][lanes].
 */
#include "tl_block.h"
#include "tl_conv.h"
#include "tl_weights.h"
#include "tl_window.h"

enum { CHUNK = TL_CONV_SCRATCH_BYTES / 4 / TL_LANES };

typedef struct {
  const tl_conv_shape *s;
  const float *dy; /* at the chunk's first output */
  float *dx;       /* at the first lane */
  int32_t pitch;   /* channels of dx */
  int32_t ky, kx;
  const float *panel;
  int32_t count, width; /* outputs in the panel, lanes in use */
} sweep;

/* Rows are (dx offset, dy offset) pairs; unused ones repeat row 0 and are not stored. */
static void sweep_rows(const sweep *a, const int32_t *to, const int32_t *from, int32_t rows) {
  tl_f32_lanes acc[TL_ROWS];
  const float *dy[TL_ROWS];
  for (int32_t r = 0; r < TL_ROWS; r++) {
    int32_t used = r < rows ? r : 0;
    dy[r] = a->dy + from[used];
    tl_get_f32(&acc[r], a->dx + to[used], a->width);
  }
  tl_block_f32(acc, dy, 1, a->panel, a->count);
  for (int32_t r = 0; r < rows; r++) tl_put_f32(a->dx + to[r], &acc[r], a->width);
}

/* All positions whose tap lies inside the input, in rows of TL_ROWS. */
static void sweep_positions(const sweep *a) {
  const tl_conv_shape *s = a->s;
  int32_t positions = s->n * s->oh * s->ow, rows = 0, to[TL_ROWS], from[TL_ROWS];
  int32_t shift = a->ky * s->dh * s->w + a->kx * s->dw;
  tl_window at = tl_window_of(s, 0);
  for (int32_t p = 0; p < positions; p++, tl_window_next(s, &at)) {
    if (!tl_window_has(s, &at, a->ky, a->kx)) continue;
    to[rows] = (at.pixel + shift) * a->pitch;
    from[rows] = p * s->o;
    if (++rows == TL_ROWS) {
      sweep_rows(a, to, from, rows);
      rows = 0;
    }
  }
  if (rows) sweep_rows(a, to, from, rows);
}

static void load_panel(const sweep *a, const tl_weights *w, int32_t o, int32_t c, float *panel) {
  int32_t cg = a->s->c / a->s->groups, taps = a->s->kh * a->s->kw, tap = a->ky * a->s->kw + a->kx;
  if (a->width < TL_LANES) memset(panel, 0, (size_t)(a->count * TL_LANES) * sizeof *panel);
  for (int32_t i = 0; i < a->count; i++)
    tl_load_weights(w, taps, cg, o + i, tap * cg + c, a->width, panel + i * TL_LANES, 1);
}

/* Input channels c .. c+width-1 of one group. */
static void grad_lanes(sweep *a, const tl_weights *w, const float *dy, int32_t group, int32_t c, float *panel) {
  const tl_conv_shape *s = a->s;
  int32_t og = s->o / s->groups;
  for (int32_t tap = 0; tap < s->kh * s->kw; tap++) {
    a->ky = tap / s->kw;
    a->kx = tap - a->ky * s->kw;
    for (int32_t o = 0; o < og; o += CHUNK) {
      a->count = tl_min(CHUNK, og - o);
      a->dy = dy + group * og + o;
      load_panel(a, w, group * og + o, c, panel);
      sweep_positions(a);
    }
  }
}

void tl_conv_input_grad(const tl_conv_shape *s, const float *dy, const tl_weights *w, float *dx, int32_t accumulate,
                        void *scratch) {
  int32_t cg = s->c / s->groups;
  if (!accumulate) memset(dx, 0, (size_t)(s->n * s->h * s->w * s->c) * sizeof *dx);
  for (int32_t group = 0; group < s->groups; group++)
    for (int32_t c = 0; c < cg; c += TL_LANES) {
      sweep a = {.s = s, .dx = dx + group * cg + c, .pitch = s->c, .panel = scratch, .width = tl_min(TL_LANES, cg - c)};
      grad_lanes(&a, w, dy, group, c, scratch);
    }
}

void tl_conv_input_grad_slice(const tl_conv_shape *s, const float *dy, const tl_weights *w, int32_t first,
                              int32_t count, float *dx, void *scratch) {
  memset(dx, 0, (size_t)(s->n * s->h * s->w * count) * sizeof *dx);
  for (int32_t c = 0; c < count; c += TL_LANES) {
    sweep a = {.s = s, .dx = dx + c, .pitch = count, .panel = scratch, .width = tl_min(TL_LANES, count - c)};
    grad_lanes(&a, w, dy, 0, first + c, scratch);
  }
}
