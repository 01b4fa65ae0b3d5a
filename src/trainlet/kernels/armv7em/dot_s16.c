/* The inner loops of every dense int8 convolution: widening bytes to pairs, and their sums of products.
 *
 * 16 multiply-accumulates take 11 instructions. In assembly because all fourteen registers are in use: 8 sums, 2 pairs
 * of w, 2 of x, two addresses; the count waits on the stack. gcc spills the sums.
 */
#include "tl_dsp.h"

#if TL_HAS_DSP

/* The arguments are used in the registers they come in. */
#pragma GCC diagnostic ignored "-Wunused-parameter"

/* One pair of every row: r2, lr = x of two rows; r11, r12 = w. */
#define PAIR                 \
  "ldrd r11, r12, [r1], #8\n" \
  "ldrd r2, lr, [r0], #8\n"   \
  "smlad r3, r2, r11, r3\n"   \
  "smlad r4, r2, r12, r4\n"   \
  "smlad r5, lr, r11, r5\n"   \
  "smlad r6, lr, r12, r6\n"   \
  "ldrd r2, lr, [r0], #8\n"   \
  "smlad r7, r2, r11, r7\n"   \
  "smlad r8, r2, r12, r8\n"   \
  "smlad r9, lr, r11, r9\n"   \
  "smlad r10, lr, r12, r10\n"

__attribute__((naked)) void tl_dot_4x2(const uint32_t *x, const uint32_t *w, int32_t eights, const int32_t *from,
                                       int32_t *to) {
  __asm__ volatile(
      "push {r2, r4-r11, lr}\n"
      "ldm r3, {r3-r10}\n"
      "1:\n" PAIR PAIR PAIR PAIR
      "ldr r2, [sp]\n"
      "subs r2, #1\n"
      "str r2, [sp]\n"
      "bne 1b\n"
      "ldr r11, [sp, #40]\n" /* to: behind the ten registers */
      "stm r11, {r3-r10}\n"
      "pop {r2, r4-r11, pc}\n");
}

/* r2 base, r3 fours, r12 to; r4-r7 are the four words written. */
__attribute__((naked)) void tl_widen_2(const int8_t *a, const int8_t *b, uint32_t base, int32_t fours, uint32_t *to) {
  __asm__ volatile(
      "push {r4-r7}\n"
      "ldr r12, [sp, #16]\n"
      "1:\n"
      "ldr r6, [r0], #4\n"
      "ldr r7, [r1], #4\n"
      "sxtab16 r4, r2, r6\n"
      "sxtab16 r5, r2, r7\n"
      "sxtab16 r6, r2, r6, ror #8\n"
      "sxtab16 r7, r2, r7, ror #8\n"
      "subs r3, #1\n"
      "stm r12!, {r4-r7}\n"
      "bne 1b\n"
      "pop {r4-r7}\n"
      "bx lr\n");
}

/* r1 base, r2 fours, r3 to; r4-r7 the rows, r8-r11 a word of each. */
__attribute__((naked)) void tl_widen_4(const int8_t *const *x, uint32_t base, int32_t fours, uint32_t *to) {
  __asm__ volatile(
      "push {r4-r11}\n"
      "ldm r0, {r4-r7}\n"
      "1:\n"
      "ldr r8, [r4], #4\n"
      "ldr r9, [r5], #4\n"
      "ldr r10, [r6], #4\n"
      "ldr r11, [r7], #4\n"
      "sxtab16 r0, r1, r8\n"
      "sxtab16 r12, r1, r9\n"
      "strd r0, r12, [r3], #8\n"
      "sxtab16 r0, r1, r10\n"
      "sxtab16 r12, r1, r11\n"
      "strd r0, r12, [r3], #8\n"
      "sxtab16 r8, r1, r8, ror #8\n"
      "sxtab16 r9, r1, r9, ror #8\n"
      "sxtab16 r10, r1, r10, ror #8\n"
      "sxtab16 r11, r1, r11, ror #8\n"
      "subs r2, #1\n"
      "stm r3!, {r8-r11}\n"
      "bne 1b\n"
      "pop {r4-r11}\n"
      "bx lr\n");
}

#else

void tl_widen_2(const int8_t *a, const int8_t *b, uint32_t base, int32_t fours, uint32_t *to) {
  for (int32_t i = 0; i < fours; i++, a += 4, b += 4, to += 4) {
    to[0] = tl_widen_even(base, tl_word(a));
    to[1] = tl_widen_even(base, tl_word(b));
    to[2] = tl_widen_odd(base, tl_word(a));
    to[3] = tl_widen_odd(base, tl_word(b));
  }
}

void tl_widen_4(const int8_t *const *x, uint32_t base, int32_t fours, uint32_t *to) {
  for (int32_t i = 0; i < fours; i++, to += 8)
    for (int32_t r = 0; r < 4; r++) {
      to[r] = tl_widen_even(base, tl_word(x[r] + 4 * i));
      to[4 + r] = tl_widen_odd(base, tl_word(x[r] + 4 * i));
    }
}

void tl_dot_4x2(const uint32_t *x, const uint32_t *w, int32_t eights, const int32_t *from, int32_t *to) {
  for (int32_t r = 0; r < 4; r++)
    for (int32_t j = 0; j < 2; j++) {
      int32_t sum = from[r * 2 + j];
      for (int32_t i = 0; i < 4 * eights; i++)
        sum += tl_low(x[i * 4 + r]) * tl_low(w[i * 2 + j]) + tl_high(x[i * 4 + r]) * tl_high(w[i * 2 + j]);
      to[r * 2 + j] = sum;
    }
}

#endif
