#include "tl_pointwise_f32.h"

#include "tl_requantize.h"

#define SQRT_HALF 0.707106781f
#define SQRT_2_OVER_PI 0.797884561f

static inline float gelu_inner(float x) { return tl_tanhf(SQRT_2_OVER_PI * (x + 0.044715f * (x * x * x))); }

static inline float unary(tl_unary kind, float a, float b, float x) {
  switch (kind) {
    case TL_SIGMOID: return tl_sigmoidf(x);
    case TL_TANH: return tl_tanhf(x);
    case TL_HARDSWISH: return x * tl_clip(x * (1.0f / 6.0f) + 0.5f, 0.0f, 1.0f);
    case TL_HARDSIGMOID: return tl_clip(a * x + b, 0.0f, 1.0f);
    case TL_CLIP: return tl_clip(x, a, b);
    case TL_SILU: return x * tl_sigmoidf(x);
    case TL_ERF: return tl_erff(x);
    case TL_GELU: return 0.5f * x * (1.0f + tl_erff(x * SQRT_HALF));
    case TL_GELUTANH: return 0.5f * x * (1.0f + gelu_inner(x));
  }
  return x;
}

void tl_unary_f32(tl_unary kind, float a, float b, const float *x, float *y, uint8_t *mask, int32_t count) {
  if (mask) memset(mask, 0, (size_t)TL_MASK_BYTES(count));
  for (int32_t i = 0; i < count; i++) {
    float value = x[i];
    if (mask) tl_mask_or(mask, i, (uint32_t)((value > a) & (value < b)), 1);
    y[i] = unary(kind, a, b, value);
  }
}

/* 1/2 (1 + t) + 1/2 x (1 - t^2) * inner', t = tanh(inner(x)). */
static inline float gelu_tanh_slope(float x) {
  float t = gelu_inner(x), inner = SQRT_2_OVER_PI * (1.0f + 0.134145f * (x * x));
  return 0.5f * (1.0f + t) + 0.5f * x * (1.0f - t * t) * inner;
}

static inline float gelu_slope(float x) {
  return 0.5f * (1.0f + tl_erff(x * SQRT_HALF)) + x * (0.398942280f * tl_expf(-0.5f * (x * x)));
}

static inline float silu_slope(float x) {
  float s = tl_sigmoidf(x);
  return s * (1.0f + x * (1.0f - s));
}

/* saved: y for TL_SIGMOID and TL_TANH, else x. */
static inline float derivative(tl_unary kind, float a, float b, float saved) {
  float slope = a * saved + b;
  switch (kind) {
    case TL_SIGMOID: return saved * (1.0f - saved);
    case TL_TANH: return 1.0f - saved * saved;
    case TL_HARDSWISH: return saved <= -3.0f ? 0.0f : saved < 3.0f ? saved * (1.0f / 3.0f) + 0.5f : 1.0f;
    case TL_HARDSIGMOID: return slope > 0.0f && slope < 1.0f ? a : 0.0f;
    case TL_CLIP: return saved > a && saved < b ? 1.0f : 0.0f;
    case TL_SILU: return silu_slope(saved);
    case TL_ERF: return 1.12837917f * tl_expf(-(saved * saved));
    case TL_GELU: return gelu_slope(saved);
    case TL_GELUTANH: return gelu_tanh_slope(saved);
  }
  return 1.0f;
}

void tl_unary_grad_f32(tl_unary kind, float a, float b, const float *saved, const float *dy, float *dx, int32_t count) {
  for (int32_t i = 0; i < count; i++) dx[i] = dy[i] * derivative(kind, a, b, saved[i]);
}

static inline float binary(tl_binary kind, float a, float b) {
  switch (kind) {
    case TL_ADD: return a + b;
    case TL_SUB: return a - b;
    case TL_MUL: return a * b;
    case TL_DIV: return a / b;
  }
  return a;
}

/* One innermost row, contiguous in y. */
static void binary_row(tl_binary kind, const float *a, int32_t a_stride, const float *b, int32_t b_stride, float *y,
                       int32_t count) {
  for (int32_t i = 0; i < count; i++) y[i] = binary(kind, a[i * a_stride], b[i * b_stride]);
}

void tl_binary_f32(tl_binary kind, const int32_t dims[4], const float *a, const int32_t a_stride[4], const float *b,
                   const int32_t b_stride[4], float *y) {
  for (int32_t i = 0; i < dims[0]; i++)
    for (int32_t j = 0; j < dims[1]; j++)
      for (int32_t k = 0; k < dims[2]; k++) {
        const float *a_row = a + (i * a_stride[0] + j * a_stride[1] + k * a_stride[2]);
        const float *b_row = b + (i * b_stride[0] + j * b_stride[1] + k * b_stride[2]);
        float *y_row = y + ((i * dims[1] + j) * dims[2] + k) * dims[3];
        binary_row(kind, a_row, a_stride[3], b_row, b_stride[3], y_row, dims[3]);
      }
}

void tl_expand_f32(const int32_t dims[4], const float *x, const int32_t stride[4], float *y) {
  for (int32_t i = 0; i < dims[0]; i++)
    for (int32_t j = 0; j < dims[1]; j++)
      for (int32_t k = 0; k < dims[2]; k++, y += dims[3]) {
        const float *row = x + (i * stride[0] + j * stride[1] + k * stride[2]);
        for (int32_t l = 0; l < dims[3]; l++) y[l] = row[l * stride[3]];
      }
}

void tl_reduce_sum_f32(const int32_t dims[4], const int32_t keep[4], const float *x, float *y) {
  int32_t stride[4], size = 1;
  for (int d = 3; d >= 0; d--) {
    stride[d] = keep[d] ? size : 0;
    size *= keep[d] ? dims[d] : 1;
  }
  for (int32_t i = 0; i < size; i++) y[i] = 0.0f;
  for (int32_t i = 0; i < dims[0]; i++)
    for (int32_t j = 0; j < dims[1]; j++)
      for (int32_t k = 0; k < dims[2]; k++) {
        float *to = y + (i * stride[0] + j * stride[1] + k * stride[2]);
        const float *from = x + ((i * dims[1] + j) * dims[2] + k) * dims[3];
        for (int32_t l = 0; l < dims[3]; l++) to[l * stride[3]] += from[l];
      }
}

void tl_scale_f32(float *y, const float *x, float factor, int32_t count) {
  for (int32_t i = 0; i < count; i++) y[i] = x[i] * factor;
}

void tl_add_scaled_f32(float *y, const float *a, const float *b, float fb, int32_t count) {
  for (int32_t i = 0; i < count; i++) y[i] = a[i] + fb * b[i];
}
