/* The depthwise input gradient over its own operand: dx takes the memory of dy. As portable/depthwise_inplace.c, a row
 * of taps a call.
 *
 * For four channels at a time, rows of dy are copied to a ring before dx overwrites them. Row y of dx reads rows
 * y + pt - (kh - 1) * dh .. y + pt of dy, which is what the ring holds then.
 * scratch: taps f32 [kh * kw][4], ring f32 [(kh - 1) * dh + 1][w][4].
 */
#include "tl_block.h"
#include "tl_conv.h"
#include "tl_weights.h"
#include "tl_window.h"

typedef struct {
  const tl_conv_shape *s;
  const float *taps;
  float *ring;
  int32_t rows, width; /* of the ring; channels in this block */
} ring_of_rows;

static void copy_row(const ring_of_rows *a, const float *d, int32_t y) {
  const tl_conv_shape *s = a->s;
  float *to = a->ring + (y % a->rows) * s->w * TL_LANES;
  for (int32_t x = 0; x < s->w; x++) {
    tl_f32_lanes lanes;
    tl_get_f32(&lanes, d + (y * s->w + x) * s->c, a->width);
    memcpy(to + x * TL_LANES, &lanes, sizeof lanes);
  }
}

/* dx at (y, x): taps ky0 .. ky1-1 downwards, kx0 .. kx1-1 across, those whose dy lies inside. */
static void sum_at(const ring_of_rows *a, int32_t y, int32_t x, int32_t ky0, int32_t ky1, float *sum) {
  const tl_conv_shape *s = a->s;
  int32_t beyond = x + s->pl - s->w + 1; /* how far the first tap's dy lies outside on the right */
  int32_t kx0 = beyond > 0 ? (beyond + s->dw - 1) / s->dw : 0, kx1 = tl_min(s->kw, (x + s->pl) / s->dw + 1);
  int32_t slot = (y + s->pt - ky0 * s->dh) % a->rows;
  if (kx0 >= kx1) return;
  for (int32_t ky = ky0; ky < ky1; ky++) {
    tl_fma_taps(sum, a->ring + (slot * s->w + x + s->pl - kx0 * s->dw) * TL_LANES, -s->dw * TL_LANES,
                a->taps + (ky * s->kw + kx0) * TL_LANES, TL_LANES, kx1 - kx0);
    slot -= s->dh;
    if (slot < 0) slot += a->rows;
  }
}

static void sweep_image(const ring_of_rows *a, float *d) {
  const tl_conv_shape *s = a->s;
  int32_t copied = 0;
  for (int32_t y = 0; y < s->h; y++) {
    int32_t below = y + s->pt - s->h + 1;
    int32_t ky0 = below > 0 ? (below + s->dh - 1) / s->dh : 0, ky1 = tl_min(s->kh, (y + s->pt) / s->dh + 1);
    for (; copied < s->h && copied <= y + s->pt; copied++) copy_row(a, d, copied);
    for (int32_t x = 0; x < s->w; x++) {
      tl_f32_lanes lanes;
      float sum[TL_LANES] = {0};
      sum_at(a, y, x, ky0, ky1, sum);
      memcpy(&lanes, sum, sizeof lanes);
      tl_put_f32(d + (y * s->w + x) * s->c, &lanes, a->width);
    }
  }
}

void tl_depthwise_input_grad_inplace(const tl_conv_shape *s, float *d, const tl_weights *w, void *scratch) {
  int32_t count = s->kh * s->kw;
  float *taps = scratch;
  for (int32_t c = 0; c < s->c; c += TL_LANES) {
    int32_t width = tl_min(TL_LANES, s->c - c);
    ring_of_rows a = {s, taps, taps + count * TL_LANES, (s->kh - 1) * s->dh + 1, width};
    memset(taps, 0, (size_t)(count * TL_LANES) * sizeof *taps);
    for (int32_t j = 0; j < width; j++) tl_load_taps(w, count, c + j, taps + j, TL_LANES);
    for (int32_t image = 0; image < s->n; image++) sweep_image(&a, d + image * s->h * s->w * s->c + c);
  }
}
