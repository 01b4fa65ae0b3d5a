/* Scalar arithmetic without libm, the same bits on every target with IEEE fp32 and -ffp-contract=off.
 *
 * All functions are branch-free or nearly so, so that loops over independent elements vectorise. With TL_USE_FMA
 * clang needs -fno-math-errno, or it calls fmaf.
 */
#ifndef TL_MATH_H
#define TL_MATH_H

#include <stdint.h>
#include <string.h>

#ifndef TL_USE_FMA
#define TL_USE_FMA 0
#endif

/* a * b + c: one rounding where the target has the instruction and the whole build says so, else two. */
#if TL_USE_FMA
#define TL_FMA(a, b, c) __builtin_fmaf((a), (b), (c))
#else
#define TL_FMA(a, b, c) ((a) * (b) + (c))
#endif

#define TL_INFINITY __builtin_inff()

/* clip(x, lo, hi); a NaN gives lo. */
static inline float tl_clip(float x, float lo, float hi) {
  float above = x > lo ? x : lo;
  return above < hi ? above : hi;
}

/* Half to even, after clamping to +-4194303: adding 1.5 * 2^23 leaves no fraction bits. A NaN gives -4194303. */
static inline float tl_rint(float x) {
  const float shift = 12582912.0f;
  return (tl_clip(x, -4194303.0f, 4194303.0f) + shift) - shift;
}

/* floor, with the clamp of tl_rint. */
static inline float tl_floor(float x) {
  float clamped = tl_clip(x, -4194303.0f, 4194303.0f);
  float nearest = tl_rint(clamped);
  return nearest > clamped ? nearest - 1.0f : nearest;
}

/* Half to even at any magnitude: beyond 2^22 a float is left alone from 2^23 on, in between ties are the .5's. */
static inline float tl_rint_any(float x) {
  const float shift = 8388608.0f;
  float magnitude = x < 0.0f ? -x : x;
  float rounded = (magnitude + shift) - shift;
  float kept = magnitude < shift ? rounded : magnitude;
  return x < 0.0f ? -kept : kept;
}

static inline float tl_floor_any(float x) {
  float nearest = tl_rint_any(x);
  return nearest > x ? nearest - 1.0f : nearest;
}

static inline int8_t tl_saturate_s8(float v) { return (int8_t)(int32_t)tl_clip(v, -128.0f, 127.0f); }

static inline float tl_bits_to_float(int32_t bits) {
  float value;
  memcpy(&value, &bits, sizeof value);
  return value;
}

static inline int32_t tl_float_to_bits(float value) {
  int32_t bits;
  memcpy(&bits, &value, sizeof bits);
  return bits;
}

/* exp(x) within 2 units in the last place; 0 below -87.3, about 3.4e38 above 88.7 (never infinite); NaN gives 0. */
float tl_expf(float x);
/* log(x), x > 0 normal, within 2 units in the last place. x <= 0 gives the log of the smallest normal number. */
float tl_logf(float x);
/* log(1 + x), 0 <= x <= 1, within 4 units in the last place. */
float tl_log1pf(float x);
/* 1 / (1 + exp(-x)) and tanh(x), within 4 units in the last place (tanh: or 1e-7 absolute). */
float tl_sigmoidf(float x);
float tl_tanhf(float x);
/* erf(x) within 3e-7 absolute. */
float tl_erff(float x);
/* sqrt(x), x >= 0, correctly rounded on every target. */
float tl_sqrtf(float x);

#endif
