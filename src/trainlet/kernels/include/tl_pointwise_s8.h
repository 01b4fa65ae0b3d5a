/* Element by element on int8 activations. Masks as in tl_types.h (NULL: not wanted). No scratch. */
#ifndef TL_POINTWISE_S8_H
#define TL_POINTWISE_S8_H

#include "tl_types.h"

/* v = rint(((a - a_zero) * a_scale + (b - b_zero) * b_scale) / y_scale) + y_zero in exactly this fp32 order, never
 * fused, a real division.   y = saturate(v), mask: -128 <= v <= 127. y may be a or b. */
void tl_add_s8(const int8_t *a, int32_t a_zero, float a_scale, const int8_t *b, int32_t b_zero, float b_scale,
               float y_scale, int32_t y_zero, int8_t *y, uint8_t *mask, int32_t count);

/* v = rint((a - a_zero) * (b - b_zero) * scale) + y_zero, scale = a_scale * b_scale / y_scale; the integer product
 * is exact. a, y: [batch][positions][channels]; b: the same, or [batch][channels] if b_per_channel. y may be a. */
void tl_mul_s8(const int8_t *a, int32_t a_zero, const int8_t *b, int32_t b_zero, int32_t b_per_channel, float scale,
               int32_t y_zero, int8_t *y, uint8_t *mask, int32_t batch, int32_t positions, int32_t channels);

/* One operand of a sum, or a result, in fixed point: zero point and factor (tl_fixed.h). */
typedef struct {
  int32_t zero, multiplier, shift;
} tl_fixed_side;

/* TFLite's sum: v = y(a(a - a_zero << 20) + b(b - b_zero << 20)) + y_zero, each of a(), b(), y() a fixed-point factor
 * (a difference has b's multiplier negative), clamped to lo .. hi, mask: lo <= v <= hi.   y may be a or b. */
void tl_add_s8_fixed(const int8_t *a, const tl_fixed_side *of_a, const int8_t *b, const tl_fixed_side *of_b,
                     const tl_fixed_side *of_y, int32_t lo, int32_t hi, int8_t *y, uint8_t *mask, int32_t count);

/* TFLite's product, v = y((a - a_zero) * (b - b_zero)) + y_zero, with the shapes of tl_mul_s8.   y may be a. */
void tl_mul_s8_fixed(const int8_t *a, int32_t a_zero, const int8_t *b, int32_t b_zero, int32_t b_per_channel,
                     const tl_fixed_side *of_y, int32_t lo, int32_t hi, int8_t *y, uint8_t *mask, int32_t batch,
                     int32_t positions, int32_t channels);

/* y = table[x + 128].   y may be x. */
void tl_lookup_s8(const int8_t *x, const int8_t *table, int8_t *y, int32_t count);

/* dx = dy * table[x + 128], table: the derivative at each of the 256 inputs.   dx may be dy. */
void tl_lookup_grad(float *dx, const float *dy, const int8_t *x, const float *table, int32_t count);

/* v = rint(x / scale) + zero, y = saturate(v), mask: -128 <= v <= 127. A NaN gives -128 and mask 0. */
void tl_quantize(const float *x, float scale, int32_t zero, int8_t *y, uint8_t *mask, int32_t count);

/* y = (x - zero) * scale. */
void tl_dequantize(const int8_t *x, float scale, int32_t zero, float *y, int32_t count);

#endif
