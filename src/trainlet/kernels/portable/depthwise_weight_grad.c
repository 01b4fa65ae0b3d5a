/* dw[r][tap] = sum over positions of dy[p][channels[r]] * x[p + tap][r], TL_LANES rows r at a time, a tap at a time.
 *
 * scratch: gradients f32 [lanes][kh * kw].
 */
#include "tl_block.h"
#include "tl_conv.h"
#include "tl_window.h"

typedef struct {
  const tl_conv_shape *s;
  const tl_grad_x *x;
  const float *dy;
  const uint16_t *channels; /* NULL: rows are channels */
  int32_t row, width;       /* first row, lanes in use */
} block;

static inline void get_x(const block *b, int32_t pixel, int32_t width, tl_f32_lanes *lanes) {
  int32_t at = pixel * b->x->k + b->row;
  if (b->x->f32) {
    tl_get_f32(lanes, b->x->f32 + at, width);
  } else {
    tl_s32_lanes q;
    tl_get_s8(&q, b->x->s8 + at, width);
    q -= b->x->zero;
    *lanes = __builtin_convertvector(q, tl_f32_lanes);
  }
}

static inline void get_dy(const block *b, int32_t position, int32_t width, const uint16_t *channels,
                          tl_f32_lanes *lanes) {
  const float *dy = b->dy + position * b->s->o;
  if (channels) {
    *lanes = (tl_f32_lanes){0};
    for (int32_t j = 0; j < width; j++) (*lanes)[j] = dy[channels[b->row + j]];
  } else {
    tl_get_f32(lanes, dy + b->row, width);
  }
}

/* A run of positions within one output row; inlined with constants for what is usual. */
static inline void sum_run(const block *b, int32_t position, int32_t pixel, int32_t count, int32_t width,
                           const uint16_t *channels, tl_f32_lanes *sum) {
  tl_f32_lanes acc = *sum;
  for (int32_t i = 0; i < count; i++) {
    tl_f32_lanes x, dy;
    get_dy(b, position + i, width, channels, &dy);
    get_x(b, pixel + i * b->s->sw, width, &x);
    tl_fma_each(&acc, &dy, &x);
  }
  *sum = acc;
}

/* All positions whose tap lies inside x: for each output row, one run of ox. */
static void sum_positions(const block *b, int32_t ky, int32_t kx, float *sum) {
  const tl_conv_shape *s = b->s;
  int32_t shift = kx * s->dw - s->pl;
  int32_t ox0 = tl_first_tap(shift, s->sw), ox1 = tl_last_tap(shift, s->sw, s->w, s->ow);
  tl_f32_lanes acc = {0};
  for (int32_t row = 0; row < s->n * s->oh; row++) {
    int32_t image = row / s->oh, iy = (row - image * s->oh) * s->sh + ky * s->dh - s->pt;
    int32_t position = row * s->ow + ox0, pixel = (image * s->h + iy) * s->w + ox0 * s->sw + shift;
    if (iy < 0 || iy >= s->h) continue;
    if (b->channels) {
      sum_run(b, position, pixel, ox1 - ox0, b->width, b->channels, &acc);
    } else if (b->width < TL_LANES) {
      sum_run(b, position, pixel, ox1 - ox0, b->width, NULL, &acc);
    } else {
      sum_run(b, position, pixel, ox1 - ox0, TL_LANES, NULL, &acc);
    }
  }
  memcpy(sum, &acc, sizeof acc);
}

void tl_depthwise_weight_grad(const tl_conv_shape *s, const tl_grad_x *x, const float *dy, const uint16_t *channels,
                              int32_t k, const tl_update *u, void *scratch) {
  int32_t taps = s->kh * s->kw;
  float *grads = scratch;
  for (int32_t row = 0; row < k; row += TL_LANES) {
    block b = {s, x, dy, channels, row, tl_min(TL_LANES, k - row)};
    for (int32_t tap = 0; tap < taps; tap++) {
      float sum[TL_LANES];
      sum_positions(&b, tap / s->kw, tap % s->kw, sum);
      for (int32_t j = 0; j < b.width; j++) grads[j * taps + tap] = sum[j];
    }
    for (int32_t j = 0; j < b.width; j++) tl_update_row(u, row + j, 0, grads + j * taps, taps);
  }
}
