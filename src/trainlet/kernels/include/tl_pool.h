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
