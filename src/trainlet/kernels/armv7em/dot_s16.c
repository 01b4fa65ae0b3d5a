/* The inner loops of every dense int8 convolution: widening bytes to pairs, and their sums of products.
 *
 * In assembly because all fourteen registers are in use: for the sums, 16 multiply-accumulates in 11 instructions, that is
 * 8 sums, 2 pairs of w, 2 of x, two addresses; the count waits on the stack. gcc spills the sums.
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

/* The same in C, for rows of more than seven taps and windows that lie in the padding. */
void tl_sum_many_taps(const int8_t *x, const uint32_t *taps, const tl_walk *walk, int32_t rows, int32_t *sums);
void tl_sum_many_taps(const int8_t *x, const uint32_t *taps, const tl_walk *walk, int32_t rows, int32_t *sums) {
  int32_t s0 = 0, s1 = 0, s2 = 0, s3 = 0;
  for (; rows > 0; rows--, x += walk->next_row, taps += walk->skip / 4)
    for (int32_t i = 0; i < walk->cols; i++, x += walk->step, taps += 2) {
      uint32_t bytes = tl_word(x), even = tl_widen_even(walk->base, bytes), odd = tl_widen_odd(walk->base, bytes);
      s0 += tl_low(even) * tl_low(taps[0]);
      s1 += tl_low(odd) * tl_low(taps[1]);
      s2 += tl_high(even) * tl_high(taps[0]);
      s3 += tl_high(odd) * tl_high(taps[1]);
    }
  sums[0] = s0;
  sums[1] = s1;
  sums[2] = s2;
  sums[3] = s3;
}

#if TL_HAS_DSP

/* One tap, 36 bytes of code: r8, r9 the pairs of x, r10, r11 those of the tap. */
#define TAP                            \
  "ldr.w r8, [r0]\n"                   \
  "ldrd r10, r11, [r1], #8\n"          \
  "add.w r0, r0, lr\n"                 \
  "sxtab16 r9, r12, r8, ror #8\n"      \
  "sxtab16 r8, r12, r8\n"              \
  "smlabb r5, r9, r11, r5\n"           \
  "smlatt r7, r9, r11, r7\n"           \
  "smlabb r4, r8, r10, r4\n"           \
  "smlatt r6, r8, r10, r6\n"

/* r2 walk, r3 rows, r12 base, lr step. A row begins so far into seven taps that its own are left. */
__attribute__((naked)) void tl_sum_taps(const int8_t *x, const uint32_t *taps, const tl_walk *walk, int32_t rows,
                                        int32_t *sums) {
  __asm__ volatile(
      "ldr r12, [r2, #16]\n"
      "subs r12, #1\n"
      "cmp r12, #6\n"
      "bhi tl_sum_many_taps\n"
      "cmp r3, #1\n"
      "blt tl_sum_many_taps\n"
      "push {r4-r11, lr}\n"
      "rsb r12, r12, #6\n" /* seven taps less a row's; times 36 = 9 * 4 */
      "add r12, r12, r12, lsl #3\n"
      "lsl r12, r12, #2\n"
      "push {r12}\n"
      "ldrd r12, lr, [r2]\n"
      "movs r4, #0\n"
      "movs r5, #0\n"
      "movs r6, #0\n"
      "movs r7, #0\n"
      "1:\n"
      "ldr r8, [sp]\n"
      "add pc, r8\n" /* counts from here + 4 */
      "nop\n" TAP TAP TAP TAP TAP TAP TAP
      "ldrd r8, r9, [r2, #8]\n"
      "subs r3, #1\n"
      "add r0, r8\n"
      "add r1, r9\n"
      "bne 1b\n"
      "ldr r8, [sp, #40]\n" /* sums: behind ten words */
      "stm r8, {r4-r7}\n"
      "add sp, #4\n"
      "pop {r4-r11, pc}\n");
}

#else

void tl_sum_taps(const int8_t *x, const uint32_t *taps, const tl_walk *walk, int32_t rows, int32_t *sums) {
  tl_sum_many_taps(x, taps, walk, rows, sums);
}

#endif
