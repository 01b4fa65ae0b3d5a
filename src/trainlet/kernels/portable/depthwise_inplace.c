/* The depthwise input gradient over its own operand: dx takes the memory of dy.
 *
 * For TL_LANES channels at a time, rows of dy are copied to a ring before dx overwrites them. Row y of dx reads rows
 * y + pt - (kh - 1) * dh .. y + pt of dy, which is what the ring holds then.
 * scratch: taps f32 [kh * kw][lanes], ring f32 [(kh - 1) * dh + 1][w][lanes].
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

/* dx at (y, x): taps ascending, those whose dy lies outside left out. */
static inline void sum_at(const ring_of_rows *a, int32_t y, int32_t x, tl_f32_lanes *sum) {
  const tl_conv_shape *s = a->s;
  tl_f32_lanes acc = {0};
  for (int32_t ky = 0; ky < s->kh; ky++) {
    int32_t oy = y + s->pt - ky * s->dh;
    if (oy < 0 || oy >= s->h) continue;
    const float *row = a->ring + (oy % a->rows) * s->w * TL_LANES;
    for (int32_t kx = 0; kx < s->kw; kx++) {
      int32_t ox = x + s->pl - kx * s->dw;
      if (ox < 0 || ox >= s->w) continue;
      tl_f32_lanes gradient, tap;
      memcpy(&gradient, row + ox * TL_LANES, sizeof gradient);
      memcpy(&tap, a->taps + (ky * s->kw + kx) * TL_LANES, sizeof tap);
      tl_fma_each(&acc, &gradient, &tap);
    }
  }
  *sum = acc;
}

static void sweep_image(const ring_of_rows *a, float *d) {
  const tl_conv_shape *s = a->s;
  int32_t copied = 0;
  for (int32_t y = 0; y < s->h; y++) {
    for (; copied < s->h && copied <= y + s->pt; copied++) copy_row(a, d, copied);
    for (int32_t x = 0; x < s->w; x++) {
      tl_f32_lanes sum;
      sum_at(a, y, x, &sum);
      tl_put_f32(d + (y * s->w + x) * s->c, &sum, a->width);
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
