/* TFLite's fixed-point rescaling: multiplication by a real number in integers.
 *
 * The factor is multiplier * 2^(shift - 31), 2^30 <= multiplier < 2^31 or 0, -31 <= shift <= 30. Two roundings, as in
 * TFLite's reference kernels and CMSIS-NN: to the high 32 bits half up, after the shift half away from zero. Internal
 * to the kernels.
 */
#ifndef TL_FIXED_H
#define TL_FIXED_H

#include <stdint.h>

/* a + b and x * 2^shift modulo 2^32, as the processor does them. */
static inline int32_t tl_wrapping_add(int32_t a, int32_t b) { return (int32_t)((uint32_t)a + (uint32_t)b); }
static inline int32_t tl_wrapping_shift(int32_t x, int32_t shift) { return (int32_t)((uint32_t)x << shift); }

static inline int32_t tl_fixed_multiply(int32_t x, int32_t multiplier, int32_t shift) {
  int32_t left = shift > 0 ? shift : 0, right = shift > 0 ? 0 : -shift;
  int64_t product = (int64_t)tl_wrapping_shift(x, left) * multiplier;
  /* a shift of unsigned: the same low 32 bits, and it vectorises */
  int32_t high = (int32_t)((uint64_t)(product + (1 << 30)) >> 31), mask = (int32_t)((1u << right) - 1u);
  return (high >> right) + ((high & mask) > (mask >> 1) + (high < 0));
}

/* The same with one rounding, half up, as TFLite's fully connected layers have it. shift <= 30. */
static inline int32_t tl_fixed_multiply_once(int32_t x, int32_t multiplier, int32_t shift) {
  return (int32_t)(((int64_t)x * multiplier + ((int64_t)1 << (30 - shift))) >> (31 - shift));
}

static inline int32_t tl_clamp_s32(int32_t x, int32_t lo, int32_t hi) { return x < lo ? lo : x > hi ? hi : x; }

#endif
