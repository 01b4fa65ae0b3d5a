/* From sums to int8 and mask bits, an output at a time. Internal to the kernels of this folder.
 *
 * The same results as tl_requantize.h in fewer instructions: the conversion to integer rounds half to even and
 * saturates by itself, so nothing is clamped in fp32.
 */
#ifndef TL_ENDING_H
#define TL_ENDING_H

#include "tl_dsp.h"
#include "tl_requantize.h"

/* One output channel. multiplier, shift: of the fixed-point form. */
typedef struct {
  float bias, scale;
  int32_t bias_s32, multiplier, shift;
} tl_ending;

/* Channel o of `channels`. A NaN becomes -128 with mask bit 0, like -infinity. */
static inline void tl_ending_of(tl_ending *e, const tl_bias *b, const tl_rescale *by, int32_t channels, int32_t o) {
  if (by->fixed) {
    tl_load_bias_s32(b, o, 1, 1, &e->bias_s32);
    e->multiplier = by->fixed->rescale[o];
    e->shift = by->fixed->rescale[channels + o];
    return;
  }
  e->bias = b->s32 ? (float)b->s32[o] : b->f32 ? b->f32[o] : 0.0f;
  e->scale = by->scale[o];
  if (!(e->bias * e->scale == e->bias * e->scale)) {
    e->bias = -TL_INFINITY;
    e->scale = 1.0f;
  }
}

/* The sum as an int8, *inside: whether it was within the range. */
static inline int32_t tl_end_float(float bias, float scale, int32_t y_zero, int32_t sum, uint32_t *inside) {
  int32_t v = tl_saturating_add(tl_to_int(((float)sum + bias) * scale), y_zero), y = tl_saturate_8(v);
  *inside = v == y;
  return y;
}

static inline int32_t tl_end_fixed(const tl_ending *e, const tl_rescale *by, int32_t sum, uint32_t *inside) {
  int32_t lo = by->fixed->lo - by->y_zero, hi = by->fixed->hi - by->y_zero;
  int32_t biased = tl_wrapping_add(sum, e->bias_s32);
  int32_t v = by->fixed->once ? tl_fixed_multiply_once(biased, e->multiplier, e->shift)
                              : tl_fixed_multiply(biased, e->multiplier, e->shift);
  *inside = (v >= lo) & (v <= hi);
  return tl_clamp_s32(v, lo, hi) + by->y_zero;
}

#endif
