/* The inner loops of the fp32 kernels: 4 x 4 sums from 4 + 4 operands, or 4 sums of a depthwise window. Each sum is its
 * own chain in the order of the contracts. */
#include "tl_block.h"

_Static_assert(TL_LANES == 4, "the blocks of this folder are 4 x 4");

#if defined(__thumb2__) && defined(__ARM_FP) && (__ARM_FP & 4)

/* The arguments are used in the registers they come in. */
#pragma GCC diagnostic ignored "-Wunused-parameter"

#if TL_USE_FMA
#define MLA "vfma.f32 " /* rounds once */
#else
#define MLA "vmla.f32 " /* rounds the product, then the sum */
#endif

/* One row of sums a .. d += x * panel row w .. z. */
#define ROW(a, b, c, d, x, w0, w1, w2, w3) \
  MLA #a ", " #x ", " #w0 "\n" MLA #b ", " #x ", " #w1 "\n" MLA #c ", " #x ", " #w2 "\n" MLA #d ", " #x ", " #w3 "\n"

#define ROWS(x0, x1, x2, x3, w0, w1, w2, w3)                                                                \
  ROW(s0, s1, s2, s3, x0, w0, w1, w2, w3)                                                                   \
  ROW(s4, s5, s6, s7, x1, w0, w1, w2, w3) ROW(s8, s9, s10, s11, x2, w0, w1, w2, w3)                         \
  ROW(s12, s13, s14, s15, x3, w0, w1, w2, w3)

/* r0 sums, r1 x, r2 panel, r3 count; r4-r7 the rows. Two elements of each row a turn. */
__attribute__((naked)) void tl_fma_rows(float *sums, const float *const *x, const float *panel, int32_t count) {
  __asm__ volatile(
      "push {r4-r7}\n"
      "vpush {s16-s31}\n"
      "ldm r1, {r4-r7}\n"
      "vldmia r0, {s0-s15}\n"
      "subs r3, #2\n"
      "blt 2f\n"
      "1:\n"
      "vldmia r4!, {s16-s17}\n"
      "vldmia r5!, {s18-s19}\n"
      "vldmia r6!, {s20-s21}\n"
      "vldmia r7!, {s22-s23}\n"
      "vldmia r2!, {s24-s31}\n"
      "subs r3, #2\n" ROWS(s16, s18, s20, s22, s24, s25, s26, s27) ROWS(s17, s19, s21, s23, s28, s29, s30, s31)
      "bge 1b\n"
      "2:\n"
      "adds r3, #2\n"
      "beq 3f\n"
      "vldr s16, [r4]\n"
      "vldr s18, [r5]\n"
      "vldr s20, [r6]\n"
      "vldr s22, [r7]\n"
      "vldmia r2, {s24-s27}\n" ROWS(s16, s18, s20, s22, s24, s25, s26, s27)
      "3:\n"
      "vstmia r0, {s0-s15}\n"
      "vpop {s16-s31}\n"
      "pop {r4-r7}\n"
      "bx lr\n");
}

/* r0 to, r1 x, r2 panel, r3 count; r4-r7 the rows of x, r8-r10, r12 those of sums. */
__attribute__((naked)) void tl_fma_rows_at(float *const *to, const float *const *x, const float *panel,
                                           int32_t count) {
  __asm__ volatile(
      "push {r4-r10}\n"
      "vpush {s16-s31}\n"
      "ldm r1, {r4-r7}\n"
      "ldm r0, {r8-r10, r12}\n"
      "vldmia r8, {s0-s3}\n"
      "vldmia r9, {s4-s7}\n"
      "vldmia r10, {s8-s11}\n"
      "vldmia r12, {s12-s15}\n"
      "subs r3, #2\n"
      "blt 2f\n"
      "1:\n"
      "vldmia r4!, {s16-s17}\n"
      "vldmia r5!, {s18-s19}\n"
      "vldmia r6!, {s20-s21}\n"
      "vldmia r7!, {s22-s23}\n"
      "vldmia r2!, {s24-s31}\n"
      "subs r3, #2\n" ROWS(s16, s18, s20, s22, s24, s25, s26, s27) ROWS(s17, s19, s21, s23, s28, s29, s30, s31)
      "bge 1b\n"
      "2:\n"
      "adds r3, #2\n"
      "beq 3f\n"
      "vldr s16, [r4]\n"
      "vldr s18, [r5]\n"
      "vldr s20, [r6]\n"
      "vldr s22, [r7]\n"
      "vldmia r2, {s24-s27}\n" ROWS(s16, s18, s20, s22, s24, s25, s26, s27)
      "3:\n"
      "vstmia r8, {s0-s3}\n"
      "vstmia r9, {s4-s7}\n"
      "vstmia r10, {s8-s11}\n"
      "vstmia r12, {s12-s15}\n"
      "vpop {s16-s31}\n"
      "pop {r4-r10}\n"
      "bx lr\n");
}

/* r0 sums, r1 x, r2 step, r3 panel, r12 count. */
__attribute__((naked)) void tl_fma_columns(float *sums, const float *x, int32_t step, const float *panel,
                                           int32_t count) {
  __asm__ volatile(
      "ldr r12, [sp]\n"
      "vpush {s16-s23}\n"
      "vldmia r0, {s0-s15}\n"
      "lsl r2, r2, #2\n"
      "1:\n"
      "vldmia r1, {s16-s19}\n"
      "vldmia r3!, {s20-s23}\n"
      "add r1, r2\n"
      "subs r12, #1\n" ROWS(s16, s17, s18, s19, s20, s21, s22, s23)
      "bne 1b\n"
      "vstmia r0, {s0-s15}\n"
      "vpop {s16-s23}\n"
      "bx lr\n");
}

/* r0 sum, r1 x, r2 x_step, r3 taps, r12 taps_step, r4 count. */
__attribute__((naked)) void tl_fma_taps(float *sum, const float *x, int32_t x_step, const float *taps,
                                        int32_t taps_step, int32_t count) {
  __asm__ volatile(
      "push {r4}\n"
      "ldrd r12, r4, [sp, #4]\n"
      "vldmia r0, {s0-s3}\n"
      "1:\n"
      "vldmia r1, {s4-s7}\n"
      "vldmia r3, {s8-s11}\n"
      "add r1, r1, r2, lsl #2\n"
      "add r3, r3, r12, lsl #2\n"
      "subs r4, #1\n" MLA "s0, s4, s8\n" MLA "s1, s5, s9\n" MLA "s2, s6, s10\n" MLA "s3, s7, s11\n"
      "bne 1b\n"
      "vstmia r0, {s0-s3}\n"
      "pop {r4}\n"
      "bx lr\n");
}

#else

static void add_rows(float *sums, float x0, float x1, float x2, float x3, const float *row) {
  const float x[4] = {x0, x1, x2, x3};
  for (int32_t r = 0; r < 4; r++)
    for (int32_t j = 0; j < 4; j++) sums[r * 4 + j] = TL_FMA(x[r], row[j], sums[r * 4 + j]);
}

void tl_fma_rows(float *sums, const float *const *x, const float *panel, int32_t count) {
  for (int32_t i = 0; i < count; i++) add_rows(sums, x[0][i], x[1][i], x[2][i], x[3][i], panel + i * 4);
}

void tl_fma_rows_at(float *const *to, const float *const *x, const float *panel, int32_t count) {
  float sums[16];
  for (int32_t r = 0; r < 4; r++) memcpy(sums + r * 4, to[r], 4 * sizeof *sums);
  tl_fma_rows(sums, x, panel, count);
  for (int32_t r = 0; r < 4; r++) memcpy(to[r], sums + r * 4, 4 * sizeof *sums);
}

void tl_fma_columns(float *sums, const float *x, int32_t step, const float *panel, int32_t count) {
  for (int32_t i = 0; i < count; i++, x += step) add_rows(sums, x[0], x[1], x[2], x[3], panel + i * 4);
}

void tl_fma_taps(float *sum, const float *x, int32_t x_step, const float *taps, int32_t taps_step, int32_t count) {
  for (int32_t i = 0; i < count; i++, x += x_step, taps += taps_step)
    for (int32_t j = 0; j < 4; j++) sum[j] = TL_FMA(x[j], taps[j], sum[j]);
}

#endif
