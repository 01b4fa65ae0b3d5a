/* dx = conv_transpose(dy, w), tap by tap a matrix product: dx[q + tap][c] += dy[q][o] * w[o][tap][c].
 *
 * As portable/conv_input_grad.c, but with few positions a panel of weights costs as much as its products: here it is
 * converted a word at a time, and the trained channels in it are looked up once.
 * scratch: panel f32 [CHUNK][4] (all of it).
 */
#include "tl_block.h"
#include "tl_conv.h"
#include "tl_dsp.h"
#include "tl_window.h"

enum { CHUNK = TL_CONV_SCRATCH_BYTES / 16 };

typedef struct {
  const tl_conv_shape *s;
  const tl_weights *w;
  const float *dy;            /* at the chunk's first output */
  float *dx;                  /* at the first lane */
  int32_t pitch;              /* channels of dx */
  int32_t ky, kx, direct;     /* direct: position p of dy is position p of dx */
  float *panel;
  int32_t count, width;       /* outputs in the panel, lanes in use */
} sweep;

/* One weight of any kind: tl_types.h, and as in portable/weights.c. */
static inline float weight_at(tl_weight_kind kind, const void *from, int32_t zero, int32_t index) {
  if (kind == TL_W_S8) return (float)(((const int8_t *)from)[index] - zero);
  float w = ((const float *)from)[index];
  return kind == TL_W_F32 ? w : tl_clip(tl_rint(w) - (float)zero, -32768.0f, 32767.0f);
}

/* a->count rows of four int8 weights, `row` bytes apart. */
static void load_s8(const int8_t *w, int32_t row, int32_t zero, int32_t count, float *to) {
  for (int32_t i = 0; i < count; i++, w += row, to += 4) {
    uint32_t bytes = tl_word(w);
    to[0] = (float)((int8_t)bytes - zero);
    to[1] = (float)((int8_t)(bytes >> 8) - zero);
    to[2] = (float)((int8_t)(bytes >> 16) - zero);
    to[3] = (float)((int8_t)(bytes >> 24) - zero);
  }
}

static void load_base(const sweep *a, int32_t first, int32_t row) {
  const tl_weights *w = a->w;
  if (w->kind_base == TL_W_S8 && a->width == 4) {
    load_s8((const int8_t *)w->base + first, row, w->zero, a->count, a->panel);
    return;
  }
  for (int32_t i = 0; i < a->count; i++)
    for (int32_t j = 0; j < 4; j++)
      a->panel[i * 4 + j] = j < a->width ? weight_at(w->kind_base, w->base, w->zero, first + i * row + j) : 0.0f;
}

/* The panel: outputs o .. of input channels c .. c+width-1 (of a group) under the tap. */
static void load_panel(const sweep *a, int32_t o, int32_t c) {
  const tl_weights *w = a->w;
  int32_t cg = a->s->c / a->s->groups, taps = a->s->kh * a->s->kw, tap = a->ky * a->s->kw + a->kx;
  load_base(a, (o * taps + tap) * cg + c, taps * cg);
  if (!w->trained) return;
  for (int32_t j = 0; j < w->k && w->channels[j] < c + a->width; j++) {
    if (w->channels[j] < c) continue;
    float *to = a->panel + (w->channels[j] - c);
    for (int32_t i = 0; i < a->count; i++)
      to[i * 4] = weight_at(w->kind_trained, w->trained, w->zero, ((o + i) * taps + tap) * w->k + j);
  }
}

/* Rows are (dx offset, dy offset) pairs; unused ones repeat row 0, and so its result. */
static void sweep_rows(const sweep *a, const int32_t *to, const int32_t *from, int32_t rows) {
  const float *dy[TL_ROWS];
  float *dx[TL_ROWS];
  for (int32_t r = 0; r < TL_ROWS; r++) {
    int32_t used = r < rows ? r : 0;
    dy[r] = a->dy + from[used];
    dx[r] = a->dx + to[used];
  }
  if (a->width == TL_LANES) {
    tl_fma_rows_at(dx, dy, a->panel, a->count);
    return;
  }
  float sums[TL_ROWS * TL_LANES] = {0};
  for (int32_t r = 0; r < TL_ROWS; r++) memcpy(sums + r * TL_LANES, dx[r], (size_t)a->width * sizeof *sums);
  tl_fma_rows(sums, dy, a->panel, a->count);
  for (int32_t r = 0; r < rows; r++) memcpy(dx[r], sums + r * TL_LANES, (size_t)a->width * sizeof *sums);
}

/* All positions whose tap lies inside the input, in rows of TL_ROWS. */
static void sweep_positions(const sweep *a) {
  const tl_conv_shape *s = a->s;
  int32_t positions = s->n * s->oh * s->ow, rows = 0, to[TL_ROWS], from[TL_ROWS];
  int32_t shift = a->ky * s->dh * s->w + a->kx * s->dw;
  tl_window at = tl_window_of(s, 0);
  for (int32_t p = 0; p < positions; p++) {
    if (a->direct) {
      to[rows] = p * a->pitch;
    } else {
      int32_t inside = tl_window_has(s, &at, a->ky, a->kx);
      to[rows] = (at.pixel + shift) * a->pitch;
      tl_window_next(s, &at);
      if (!inside) continue;
    }
    from[rows] = p * s->o;
    if (++rows == TL_ROWS) {
      sweep_rows(a, to, from, rows);
      rows = 0;
    }
  }
  if (rows) sweep_rows(a, to, from, rows);
}

/* Input channels c .. c+width-1 of one group. */
static void grad_lanes(sweep *a, const float *dy, int32_t group, int32_t c) {
  const tl_conv_shape *s = a->s;
  int32_t og = s->o / s->groups;
  for (int32_t tap = 0; tap < s->kh * s->kw; tap++) {
    a->ky = tap / s->kw;
    a->kx = tap - a->ky * s->kw;
    for (int32_t o = 0; o < og; o += CHUNK) {
      a->count = tl_min(CHUNK, og - o);
      a->dy = dy + group * og + o;
      load_panel(a, group * og + o, c);
      sweep_positions(a);
    }
  }
}

void tl_conv_input_grad(const tl_conv_shape *s, const float *dy, const tl_weights *w, float *dx, int32_t accumulate,
                        void *scratch) {
  int32_t cg = s->c / s->groups;
  sweep a = {.s = s, .w = w, .pitch = s->c, .panel = scratch};
  a.direct = tl_window_is_row(s);
  if (!accumulate) memset(dx, 0, (size_t)(s->n * s->h * s->w * s->c) * sizeof *dx);
  for (int32_t group = 0; group < s->groups; group++)
    for (int32_t c = 0; c < cg; c += TL_LANES) {
      a.dx = dx + group * cg + c;
      a.width = tl_min(TL_LANES, cg - c);
      grad_lanes(&a, dy, group, c);
    }
}

void tl_conv_input_grad_slice(const tl_conv_shape *s, const float *dy, const tl_weights *w, int32_t first,
                              int32_t count, float *dx, void *scratch) {
  sweep a = {.s = s, .w = w, .pitch = count, .panel = scratch};
  a.direct = tl_window_is_row(s);
  memset(dx, 0, (size_t)(s->n * s->h * s->w * count) * sizeof *dx);
  for (int32_t c = 0; c < count; c += TL_LANES) {
    a.dx = dx + c;
    a.width = tl_min(TL_LANES, count - c);
    grad_lanes(&a, dy, 0, first + c);
  }
}
