/* The inner loop of the int8 depthwise convolution: 4 multiply-accumulates in 9 instructions.
 *
 * A word of x is four channels of a pixel; widened to two pairs it meets the two pairs of its tap. In assembly because
 * gcc, free to reorder the loads of several taps, runs out of registers.
 */
#include "tl_dsp.h"

/* The sums in C: for rows of more than seven taps, for windows that lie in the padding, and for other processors. */
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

/* The arguments are used in the registers they come in. */
#pragma GCC diagnostic ignored "-Wunused-parameter"

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
