/* The register block of every dense kernel: TL_ROWS rows by TL_LANES neighbouring outputs.
 *
 *   acc[r][j] += x[r][i] * panel[i][j]     i = 0 .. count-1 ascending, panel: [count][TL_LANES] in scratch
 *
 * Only the lanes j are vectorised, each with its own sum, so the width changes the speed and never a bit of the
 * result. Vector types (a GNU extension that gcc and clang share) because auto-vectorised arrays spill here; where
 * the target has no such registers they become plain scalars, which is why the lanes are few on a microcontroller: 4
 * x 4 float sums fit the 32 registers of an FPU, 2 x 4 integer ones the 13 of the core.
 */
#ifndef TL_BLOCK_H
#define TL_BLOCK_H

#include "tl_math.h"
#include "tl_types.h"

#define TL_ROWS 4
#define TL_ROWS_S8 (TL_LANES > 4 ? 4 : 2)

typedef float tl_f32_lanes __attribute__((vector_size(4 * TL_LANES)));
typedef int32_t tl_s32_lanes __attribute__((vector_size(4 * TL_LANES)));

static inline int32_t tl_min(int32_t a, int32_t b) { return a < b ? a : b; }

/* acc[j] = fma(x, row[j], acc[j]). */
static inline void tl_fma_lanes(tl_f32_lanes *acc, float x, const tl_f32_lanes *row) {
#if TL_USE_FMA
  tl_f32_lanes sum = *acc;
  for (int j = 0; j < TL_LANES; j++) sum[j] = TL_FMA(x, (*row)[j], sum[j]);
  *acc = sum;
#else
  *acc = x * *row + *acc;
#endif
}

/* acc[j] = fma(a[j], b[j], acc[j]). */
static inline void tl_fma_each(tl_f32_lanes *acc, const tl_f32_lanes *a, const tl_f32_lanes *b) {
#if TL_USE_FMA
  tl_f32_lanes sum = *acc;
  for (int j = 0; j < TL_LANES; j++) sum[j] = TL_FMA((*a)[j], (*b)[j], sum[j]);
  *acc = sum;
#else
  *acc = *a * *b + *acc;
#endif
}

/* The first `width` lanes from memory, the others 0. */
static inline void tl_get_f32(tl_f32_lanes *lanes, const float *from, int32_t width) {
  if (width == TL_LANES) {
    memcpy(lanes, from, sizeof *lanes);
  } else {
    *lanes = (tl_f32_lanes){0};
    for (int32_t j = 0; j < width && j < TL_LANES; j++) (*lanes)[j] = from[j];
  }
}

static inline void tl_get_s8(tl_s32_lanes *lanes, const int8_t *from, int32_t width) {
  if (width == TL_LANES) {
    for (int j = 0; j < TL_LANES; j++) (*lanes)[j] = from[j];
  } else {
    *lanes = (tl_s32_lanes){0};
    for (int32_t j = 0; j < width && j < TL_LANES; j++) (*lanes)[j] = from[j];
  }
}

static inline void tl_put_f32(float *to, const tl_f32_lanes *lanes, int32_t width) {
  if (width == TL_LANES) {
    memcpy(to, lanes, sizeof *lanes);
  } else {
    for (int32_t j = 0; j < width && j < TL_LANES; j++) to[j] = (*lanes)[j];
  }
}

/* sums: [TL_ROWS_S8] in and out; x is centred by x_zero here, once per x for all lanes. */
static inline void tl_block_s8(tl_s32_lanes *sums, const int8_t *const *x, int32_t x_zero, const int16_t *panel,
                               int32_t count) {
  tl_s32_lanes acc[TL_ROWS_S8];
  memcpy(acc, sums, sizeof acc);
  for (int32_t i = 0; i < count; i++) {
    tl_s32_lanes row = {0};
    for (int j = 0; j < TL_LANES; j++) row[j] = panel[i * TL_LANES + j];
#pragma GCC unroll 4
    for (int r = 0; r < TL_ROWS_S8; r++) acc[r] += (x[r][i] - x_zero) * row;
  }
  memcpy(sums, acc, sizeof acc);
}

#include "tl_block_f32.h"

#endif
