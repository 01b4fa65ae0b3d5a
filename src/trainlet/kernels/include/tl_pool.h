/* Pooling, NHWC, forward and backward. s->o and s->groups are not read. No scratch.
 *
 * The padding never wins a maximum. A mean divides by the number of elements inside x, or, with include_pad, by
 * kh * kw, the padding counting as `zero` (s8) or 0 (f32). Every window has at least one element inside x.
 */
#ifndef TL_POOL_H
#define TL_POOL_H

#include "tl_types.h"

/* y = saturate(rint(sum / count)), sum in int32, one fp32 division. Same scale and zero point in x and y. */
void tl_avgpool_s8(const tl_conv_shape *s, const int8_t *x, int32_t zero, int32_t include_pad, int8_t *y);

/* TFLite's integer means, over the elements inside x. Half away from zero; half up; or, of a rescaled mean, the
 * factor of tl_fixed.h (1 / count included) times sum - count * x_zero, plus y_zero. */
typedef enum { TL_MEAN_AWAY, TL_MEAN_UP, TL_MEAN_RESCALED } tl_mean_kind;
typedef struct {
  tl_mean_kind kind;
  int32_t x_zero, multiplier, shift, y_zero; /* of TL_MEAN_RESCALED */
} tl_mean;
void tl_avgpool_s8_fixed(const tl_conv_shape *s, const int8_t *x, const tl_mean *mean, int8_t *y);

void tl_maxpool_s8(const tl_conv_shape *s, const int8_t *x, int8_t *y);

/* Mean: window in order (ky, kx) from 0, then one division. Maximum: a later element wins only if greater. */
void tl_avgpool_f32(const tl_conv_shape *s, const float *x, int32_t include_pad, float *y);
void tl_maxpool_f32(const tl_conv_shape *s, const float *x, float *y);

/* dx = 0, then windows (n, oy, ox) ascending and (ky, kx) ascending add dy / count. Serves the int8 mean too. */
void tl_avgpool_grad(const tl_conv_shape *s, const float *dy, int32_t include_pad, float *dx);

/* dx = 0, then windows ascending add dy to the first maximal element in order (ky, kx). Exactly one of x_s8 and
 * x_f32. */
void tl_maxpool_grad(const tl_conv_shape *s, const int8_t *x_s8, const float *x_f32, const float *dy, float *dx);

#endif
