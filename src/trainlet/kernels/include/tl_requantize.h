/* The end of every convolution: sums to int8, or to clipped floats, with their mask bits. Internal to the kernels. */
#ifndef TL_REQUANTIZE_H
#define TL_REQUANTIZE_H

#include "tl_block.h"
#include "tl_fixed.h"
#include "tl_weights.h"
#if defined(__AVX2__) && TL_LANES % 8 == 0 /* what vector extensions cannot say; slow to read, so only here */
#include <immintrin.h>
#endif

/* The saturated v to *y; 1 if v was inside the range of int8, else 0. */
static inline uint32_t tl_store_s8(float v, int8_t *y) {
  *y = tl_saturate_s8(v);
  return (uint32_t)((v >= -128.0f) & (v <= 127.0f));
}

/* Bits 0 .. count-1 of `bits` to elements first .. first+count-1 of a mask that is 0 there. count <= 16. */
static inline void tl_mask_or(uint8_t *mask, int32_t first, uint32_t bits, int32_t count) {
  uint8_t *at = mask + (first >> 3);
  int32_t shift = first & 7;
  bits <<= shift;
  at[0] = (uint8_t)(at[0] | bits);
  if (shift + count > 8) at[1] = (uint8_t)(at[1] | (bits >> 8));
  if (shift + count > 16) at[2] = (uint8_t)(at[2] | (bits >> 16));
}

static inline uint32_t tl_mask_bit(const uint8_t *mask, int32_t i) { return ((uint32_t)mask[i >> 3] >> (i & 7)) & 1u; }

/* How a whole convolution goes to int8: exactly one of scale, [o] in fp32, and fixed is set. */
typedef struct {
  const float *scale;
  const tl_fixed *fixed;
  int32_t y_zero;
} tl_rescale;

/* What turns the sums of `width` neighbouring outputs into int8. */
typedef struct {
  tl_f32_lanes bias, scale;
  float zero;
  int32_t width;
  int32_t fixed, once, zero_s32, lo, hi; /* fixed: the integers below count, not the floats above */
  int32_t bias_s32[TL_LANES], multiplier[TL_LANES], shift[TL_LANES];
} tl_requantizer;

/* channels: of the whole convolution. */
static inline void tl_requantizer_of(tl_requantizer *to, const tl_bias *b, const tl_rescale *by, int32_t channels,
                                     int32_t o, int32_t width) {
  float bias[TL_LANES];
  to->width = width;
  to->fixed = by->fixed != NULL;
  if (by->fixed) {
    to->once = by->fixed->once;
    to->zero_s32 = by->y_zero;
    to->lo = by->fixed->lo - by->y_zero;
    to->hi = by->fixed->hi - by->y_zero;
    tl_load_bias_s32(b, o, width, TL_LANES, to->bias_s32);
    for (int32_t j = 0; j < TL_LANES; j++) {
      to->multiplier[j] = j < width ? by->fixed->rescale[o + j] : 0;
      to->shift[j] = j < width ? by->fixed->rescale[channels + o + j] : 0;
    }
    return;
  }
  tl_load_bias(b, o, width, TL_LANES, bias);
  memcpy(&to->bias, bias, sizeof bias);
  tl_get_f32(&to->scale, by->scale + o, width);
  to->zero = (float)by->y_zero;
}

/* tl_clip on every lane. In vector registers a select made of the comparison (written by element, gcc takes the
 * vector apart: 2.5 times slower convolutions); with few lanes, which are scalars, by element. */
static inline void tl_clip_each(tl_f32_lanes *v, float lo, float hi) {
#if TL_LANES > 4
  tl_f32_lanes low = (tl_f32_lanes){0} + lo, high = (tl_f32_lanes){0} + hi;
  tl_s32_lanes keep = *v > low;
  *v = (tl_f32_lanes)(((tl_s32_lanes)*v & keep) | ((tl_s32_lanes)low & ~keep));
  keep = *v < high;
  *v = (tl_f32_lanes)(((tl_s32_lanes)*v & keep) | ((tl_s32_lanes)high & ~keep));
#else
  for (int j = 0; j < TL_LANES; j++) (*v)[j] = tl_clip((*v)[j], lo, hi);
#endif
}

/* Bit j is set where lane j of a comparison is -1. */
static inline uint32_t tl_bits_of(const tl_s32_lanes *flags) {
  int32_t lane[TL_LANES];
  uint32_t bits = 0;
  memcpy(lane, flags, sizeof lane);
  for (int j = 0; j < TL_LANES; j++) bits |= (uint32_t)lane[j] & (1u << j);
  return bits;
}

/* The fixed-point form of tl_requantize_lanes; lo and hi are relative to the zero point. */
static inline void tl_requantize_fixed(const tl_requantizer *to, const int32_t *acc, int32_t first, int8_t *y,
                                       uint8_t *mask) {
  int32_t v[TL_LANES];
  if (to->once) {
    for (int j = 0; j < TL_LANES; j++)
      v[j] = tl_fixed_multiply_once(tl_wrapping_add(acc[j], to->bias_s32[j]), to->multiplier[j], to->shift[j]);
  } else {
    for (int j = 0; j < TL_LANES; j++)
      v[j] = tl_fixed_multiply(tl_wrapping_add(acc[j], to->bias_s32[j]), to->multiplier[j], to->shift[j]);
  }
  if (mask) {
    uint32_t bits = 0;
    for (int32_t j = 0; j < to->width; j++) bits |= (uint32_t)((v[j] >= to->lo) & (v[j] <= to->hi)) << j;
    tl_mask_or(mask, first, bits, to->width);
  }
  for (int32_t j = 0; j < to->width && j < TL_LANES; j++)
    y[first + j] = (int8_t)(tl_clamp_s32(v[j], to->lo, to->hi) + to->zero_s32);
}

/* v[j] = rint((acc[j] + bias[j]) * scale[j]) + zero, saturated to value[j]; bit j: v[j] was inside. */
#if defined(__AVX2__) && TL_LANES % 8 == 0
static inline uint32_t tl_requantize_each(const tl_requantizer *to, const int32_t *acc, int8_t *value) {
  const __m256 shift = _mm256_set1_ps(12582912.0f), most = _mm256_set1_ps(4194303.0f);
  const __m256 low = _mm256_set1_ps(-128.0f), high = _mm256_set1_ps(127.0f), zero = _mm256_set1_ps(to->zero);
  const __m256 least = _mm256_set1_ps(-4194303.0f);
  uint32_t bits = 0;
  for (int h = 0; h < TL_LANES / 8; h++) {
    __m256 bias = _mm256_loadu_ps((const float *)&to->bias + 8 * h);
    __m256 scale = _mm256_loadu_ps((const float *)&to->scale + 8 * h);
    __m256 v = _mm256_cvtepi32_ps(_mm256_loadu_si256((const __m256i *)(const void *)(acc + 8 * h)));
    v = _mm256_mul_ps(_mm256_add_ps(v, bias), scale);
    v = _mm256_min_ps(_mm256_max_ps(v, least), most);
    v = _mm256_add_ps(_mm256_sub_ps(_mm256_add_ps(v, shift), shift), zero);
    __m256 inside = _mm256_and_ps(_mm256_cmp_ps(v, low, _CMP_GE_OQ), _mm256_cmp_ps(v, high, _CMP_LE_OQ));
    bits |= (uint32_t)_mm256_movemask_ps(inside) << 8 * h;
    __m256i whole = _mm256_cvttps_epi32(v); /* an integer already; the packing saturates */
    __m128i words = _mm_packs_epi32(_mm256_castsi256_si128(whole), _mm256_extracti128_si256(whole, 1));
    _mm_storel_epi64((__m128i *)(void *)(value + 8 * h), _mm_packs_epi16(words, words));
  }
  return bits;
}
#else
static inline uint32_t tl_requantize_each(const tl_requantizer *to, const int32_t *acc, int8_t *value) {
  const float shift = 12582912.0f; /* tl_rint in vector form */
  tl_s32_lanes sum;
  memcpy(&sum, acc, sizeof sum);
  tl_f32_lanes v = (__builtin_convertvector(sum, tl_f32_lanes) + to->bias) * to->scale;
  tl_clip_each(&v, -4194303.0f, 4194303.0f);
  v = ((v + shift) - shift) + to->zero;
  tl_s32_lanes inside = (v >= -128.0f) & (v <= 127.0f);
  tl_clip_each(&v, -128.0f, 127.0f);
  sum = __builtin_convertvector(v, tl_s32_lanes);
  for (int j = 0; j < TL_LANES; j++) value[j] = (int8_t)sum[j];
  return tl_bits_of(&inside);
}
#endif

/* v[j] = rint((acc[j] + bias[j]) * scale[j]) + zero to y[first + j] and, unless NULL, mask bit first + j
 * (0 before). */
static inline void tl_requantize_lanes(const tl_requantizer *to, const int32_t *acc, int32_t first, int8_t *y,
                                       uint8_t *mask) {
  if (to->fixed) {
    tl_requantize_fixed(to, acc, first, y, mask);
    return;
  }
  int8_t value[TL_LANES];
  uint32_t bits = tl_requantize_each(to, acc, value);
  if (mask) tl_mask_or(mask, first, to->width == TL_LANES ? bits : bits & ((1u << to->width) - 1u), to->width);
  if (to->width == TL_LANES) {
    memcpy(y + first, value, sizeof value);
  } else {
    for (int32_t j = 0; j < to->width && j < TL_LANES; j++) y[first + j] = value[j];
  }
}

/* The same for floats: y = clip(sum + bias, lo, hi), mask: strictly inside. */
typedef struct {
  float bias[TL_LANES], lo, hi;
  int32_t width;
} tl_clipper;

static inline void tl_clipper_of(tl_clipper *to, const tl_bias *b, int32_t o, int32_t width, float lo, float hi) {
  tl_load_bias(b, o, width, TL_LANES, to->bias);
  to->lo = lo;
  to->hi = hi;
  to->width = width;
}

static inline void tl_clip_lanes(const tl_clipper *to, const float *sums, int32_t first, float *y, uint8_t *mask) {
  uint32_t bits = 0;
  for (int32_t j = 0; j < to->width; j++) {
    float v = sums[j] + to->bias[j];
    y[first + j] = tl_clip(v, to->lo, to->hi);
    bits |= (uint32_t)((v > to->lo) & (v < to->hi)) << j;
  }
  if (mask) tl_mask_or(mask, first, bits, to->width);
}

#endif
