/* The Armv7E-M instructions that the int8 kernels are made of: pairs of 16-bit numbers in a word.
 *
 * Elsewhere plain C stands in for them, so that the same bodies are tested on any machine. A pair is written (low,
 * high). Four neighbouring bytes k .. k+3 of a word widen to the pairs (k, k+2) and (k+1, k+3): both operands of a sum
 * of products are packed in that order, so it does not matter. Internal to the kernels.
 */
#ifndef TL_DSP_H
#define TL_DSP_H

#include <string.h>

#include "tl_math.h"

#if defined(__ARM_FEATURE_DSP) && defined(__thumb2__)
#define TL_HAS_DSP 1
#else
#define TL_HAS_DSP 0
#endif

#if TL_HAS_DSP && defined(__ARM_FP) && (__ARM_FP & 4)
#define TL_HAS_VCVTR 1
#else
#define TL_HAS_VCVTR 0
#endif

/* Four bytes from any address: the core takes unaligned words. */
static inline uint32_t tl_word(const void *from) {
  uint32_t word;
  memcpy(&word, from, sizeof word);
  return word;
}

static inline uint32_t tl_pair(int32_t low, int32_t high) { return ((uint32_t)low & 0xffffu) | ((uint32_t)high << 16); }

#if TL_HAS_DSP

/* (base.low + byte 0, base.high + byte 2) and (base.low + byte 1, base.high + byte 3). */
static inline uint32_t tl_widen_even(uint32_t base, uint32_t bytes) {
  uint32_t pair;
  __asm__("sxtab16 %0, %1, %2" : "=r"(pair) : "r"(base), "r"(bytes));
  return pair;
}
static inline uint32_t tl_widen_odd(uint32_t base, uint32_t bytes) {
  uint32_t pair;
  __asm__("sxtab16 %0, %1, %2, ror #8" : "=r"(pair) : "r"(base), "r"(bytes));
  return pair;
}

static inline int32_t tl_saturating_add(int32_t a, int32_t b) {
  int32_t sum;
  __asm__("qadd %0, %1, %2" : "=r"(sum) : "r"(a), "r"(b));
  return sum;
}
static inline int32_t tl_saturate_8(int32_t x) {
  int32_t y;
  __asm__("ssat %0, #8, %1" : "=r"(y) : "r"(x));
  return y;
}

#else

static inline uint32_t tl_widen_even(uint32_t base, uint32_t bytes) {
  return tl_pair((int32_t)base + (int8_t)bytes, (int32_t)(base >> 16) + (int8_t)(bytes >> 16));
}
static inline uint32_t tl_widen_odd(uint32_t base, uint32_t bytes) { return tl_widen_even(base, bytes >> 8); }
static inline int32_t tl_saturating_add(int32_t a, int32_t b) {
  int64_t sum = (int64_t)a + b;
  return sum > INT32_MAX ? INT32_MAX : sum < INT32_MIN ? INT32_MIN : (int32_t)sum;
}
static inline int32_t tl_saturate_8(int32_t x) { return x < -128 ? -128 : x > 127 ? 127 : x; }

#endif

/* The two numbers of a pair. */
static inline int32_t tl_low(uint32_t pair) { return (int16_t)pair; }
static inline int32_t tl_high(uint32_t pair) { return (int16_t)(pair >> 16); }

/* Half to even, saturated to 32 bits (elsewhere at 2^22: an int8 saturates long before). x is not NaN. */
static inline int32_t tl_to_int(float x) {
#if TL_HAS_VCVTR
  int32_t y;
  __asm__("vcvtr.s32.f32 %0, %1" : "=t"(y) : "t"(x)); /* rounds as FPSCR says: to nearest, since reset */
  return y;
#else
  return (int32_t)tl_rint(x);
#endif
}

/* How a depthwise window is walked: columns of taps, then rows. step, next_row: bytes of x; skip: bytes of taps. */
typedef struct {
  uint32_t base;
  int32_t step, next_row, skip, cols;
} tl_walk;

/* sums[j] = sum over rows x cols taps of byte j of x, widened on `base`, times half j of the tap's (0, 2), (1, 3).
 * Behind a row x moves on by next_row, taps by skip. No rows or no columns: 0. */
void tl_sum_taps(const int8_t *x, const uint32_t *taps, const tl_walk *walk, int32_t rows, int32_t *sums);

/* Rows of 4 * fours bytes, widened on `base`, side by side: to[i][row], i counts pairs. fours > 0. */
void tl_widen_2(const int8_t *a, const int8_t *b, uint32_t base, int32_t fours, uint32_t *to);
void tl_widen_4(const int8_t *const *x, uint32_t base, int32_t fours, uint32_t *to);

/* to[r][j] = from[r][j] + x[r] . w[j] for 4 rows of x and 2 of w, of 8 * eights elements.   from, to: [4][2];
 * x: pairs [4 * eights][4]; w: pairs [4 * eights][2]. eights > 0. */
void tl_dot_4x2(const uint32_t *x, const uint32_t *w, int32_t eights, const int32_t *from, int32_t *to);

#endif
