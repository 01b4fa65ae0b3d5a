#include "tl_math.h"

/* exp(x) = 2^n * exp(r), |r| <= ln(2) / 2, ln(2) in two parts so that r is exact enough; Taylor to degree 7 and 2^n
 * applied in two factors because n reaches 128. */
float tl_expf(float x) {
  float clipped = tl_clip(x, -87.33654f, 88.72283f);
  float n = tl_rint(clipped * 1.44269504f);
  float r = (clipped - n * 0.693359375f) - n * -2.12194440e-4f;
  float series = 1.0f / 5040.0f;
  series = series * r + 1.0f / 720.0f;
  series = series * r + 1.0f / 120.0f;
  series = series * r + 1.0f / 24.0f;
  series = series * r + 1.0f / 6.0f;
  series = series * r + 0.5f;
  series = series * (r * r) + r + 1.0f;
  int32_t half = (int32_t)n / 2, rest = (int32_t)n - half;
  float result = series * tl_bits_to_float((half + 127) * 8388608) * tl_bits_to_float((rest + 127) * 8388608);
  return x >= -87.33654f ? result : 0.0f;
}

/* x = 2^e * m, m in [sqrt(1/2), sqrt(2)); log(m) = 2 atanh(t), t = (m - 1) / (m + 1), as m - 1 minus a correction so
 * that the leading term is exact. */
float tl_logf(float x) {
  int32_t bits = tl_float_to_bits(x > 1.17549435e-38f ? x : 1.17549435e-38f);
  int32_t e = (bits - 0x3f3504f3) >> 23;
  float f = tl_bits_to_float(bits - e * 8388608) - 1.0f;
  float t = f / (2.0f + f), t2 = t * t;
  float series = 2.0f / 9.0f;
  series = series * t2 + 2.0f / 7.0f;
  series = series * t2 + 2.0f / 5.0f;
  series = series * t2 + 2.0f / 3.0f;
  float half_square = 0.5f * f * f;
  float correction = half_square - t * (half_square + series * t2);
  float scale = (float)e;
  return scale * 0.693359375f + ((f - correction) + scale * -2.12194440e-4f);
}

/* log(u) where u = 1 + x was rounded, corrected by the rounding error over u. */
float tl_log1pf(float x) {
  float u = 1.0f + x;
  return tl_logf(u) + (x - (u - 1.0f)) / u;
}

float tl_sigmoidf(float x) {
  float e = tl_expf(x < 0.0f ? x : -x);
  return (x < 0.0f ? e : 1.0f) / (1.0f + e);
}

/* Small arguments by the series, where 1 - exp would cancel. */
float tl_tanhf(float x) {
  float magnitude = x < 0.0f ? -x : x, square = x * x;
  float e = tl_expf(-2.0f * magnitude);
  float large = (1.0f - e) / (1.0f + e);
  float small = magnitude + magnitude * square * (-1.0f / 3.0f + square * (2.0f / 15.0f + square * (-17.0f / 315.0f)));
  float result = magnitude < 0.2f ? small : large;
  return x < 0.0f ? -result : result;
}

/* Small arguments by the Taylor series to x^19, where the other would cancel; else Abramowitz and Stegun 7.1.26. */
float tl_erff(float x) {
  float magnitude = x < 0.0f ? -x : x, square = x * x;
  float series = -1.0f / 6894720.0f;
  series = series * square + 1.0f / 685440.0f;
  series = series * square - 1.0f / 75600.0f;
  series = series * square + 1.0f / 9360.0f;
  series = series * square - 1.0f / 1320.0f;
  series = series * square + 1.0f / 216.0f;
  series = series * square - 1.0f / 42.0f;
  series = series * square + 1.0f / 10.0f;
  series = series * square - 1.0f / 3.0f;
  series = series * square + 1.0f;
  float t = 1.0f / (1.0f + 0.3275911f * magnitude);
  float tail = 1.061405429f;
  tail = tail * t - 1.453152027f;
  tail = tail * t + 1.421413741f;
  tail = tail * t - 0.284496736f;
  tail = tail * t + 0.254829592f;
  float large = 1.0f - tail * t * tl_expf(-square);
  float small = magnitude * series * 1.12837917f;
  float result = magnitude < 1.0f ? small : large;
  return x < 0.0f ? -result : result;
}

/* The instruction by name: __builtin_sqrtf would call libm to set errno. */
#if defined(__SSE2__)
#define SQRT(y, x) __asm__("sqrtss %1, %0" : "=x"(y) : "x"(x))
#elif defined(__aarch64__)
#define SQRT(y, x) __asm__("fsqrt %s0, %s1" : "=w"(y) : "w"(x))
#elif defined(__arm__) && defined(__ARM_FP) && (__ARM_FP & 4)
#define SQRT(y, x) __asm__("vsqrt.f32 %0, %1" : "=t"(y) : "t"(x))
#elif defined(__riscv_flen)
#define SQRT(y, x) __asm__("fsqrt.s %0, %1" : "=f"(y) : "f"(x))
#endif

#ifdef SQRT
float tl_sqrtf(float x) {
  float y;
  SQRT(y, x);
  return y;
}
#else
/* Without the instruction: the integer root of the significand bit by bit, 25 bits, then round to nearest; exact ties
 * cannot occur. */
float tl_sqrtf(float x) {
  if (!(x >= 0.0f)) return tl_bits_to_float(0x7fc00000);
  if (x == 0.0f || x > 3.40282347e38f) return x;
  int32_t bits = tl_float_to_bits(x), e = (bits >> 23) - 127;
  uint32_t m = (uint32_t)(bits & 0x7fffff) | 0x800000u;
  if (e == -127) {
    e = -126;
    m &= 0x7fffffu;
    while (!(m & 0x800000u)) m <<= 1, e--;
  }
  if (e & 1) m <<= 1, e--;
  uint64_t square = (uint64_t)m << 25, root = 0;
  for (uint64_t bit = (uint64_t)1 << 24; bit; bit >>= 1)
    if ((root | bit) * (root | bit) <= square) root |= bit;
  root = (root + 1) >> 1;
  return tl_bits_to_float((int32_t)root + ((e / 2 + 126) << 23));
}
#endif
