/* Element by element on fp32, with broadcast, and sums over dimensions. No scratch. */
#ifndef TL_POINTWISE_F32_H
#define TL_POINTWISE_F32_H

#include "tl_types.h"

typedef enum {
  TL_SIGMOID,     /* 1 / (1 + exp(-x)) */
  TL_TANH,
  TL_HARDSWISH,   /* x * clip(x / 6 + 1/2, 0, 1) */
  TL_HARDSIGMOID, /* clip(a * x + b, 0, 1) */
  TL_CLIP,        /* clip(x, a, b); Relu: a = 0, b = INFINITY */
  TL_SILU,        /* x / (1 + exp(-x)) */
  TL_ERF,
  TL_GELU,        /* x (1 + erf(x / sqrt(2))) / 2 */
  TL_GELUTANH     /* x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) / 2 */
} tl_unary;

typedef enum { TL_ADD, TL_SUB, TL_MUL, TL_DIV } tl_binary;

/* y = f(x).   a, b: parameters of HARDSIGMOID and CLIP, else ignored. mask (or NULL): CLIP only, a < x < b. y may be
 * x. */
void tl_unary_f32(tl_unary kind, float a, float b, const float *x, float *y, uint8_t *mask, int32_t count);

/* dx = dy * f'.   saved: y for SIGMOID and TANH, x for the others. At the corners of the piecewise functions f' = 0,
 * except HARDSWISH, where f'(3) = 1. dx may be dy or saved. */
void tl_unary_grad_f32(tl_unary kind, float a, float b, const float *saved, const float *dy, float *dx, int32_t count);

/* y[i0][i1][i2][i3] = a[sum i * a_stride] op b[sum i * b_stride].   y: contiguous, extents dims. Strides in
 * elements, 0 for a broadcast dimension. y may be an operand that is not broadcast and is contiguous. */
void tl_binary_f32(tl_binary kind, const int32_t dims[4], const float *a, const int32_t a_stride[4], const float *b,
                   const int32_t b_stride[4], float *y);

/* y[i0][i1][i2][i3] = x[sum i * stride].   y: contiguous, extents dims; stride 0 repeats. y must not be x. */
void tl_expand_f32(const int32_t dims[4], const float *x, const int32_t stride[4], float *y);

/* y = sum of x over the dimensions whose keep is 0.   x: contiguous, extents dims; y: contiguous, extents keep ?
 * dims : 1. Order: y = 0, then x in flat order. */
void tl_reduce_sum_f32(const int32_t dims[4], const int32_t keep[4], const float *x, float *y);

/* y = x * factor.   y may be x. */
void tl_scale_f32(float *y, const float *x, float factor, int32_t count);

/* y = a + fb * b, unfused.   y may be a or b. */
void tl_add_scaled_f32(float *y, const float *a, const float *b, float fb, int32_t count);

#endif
