/* Products of pairs of 16-bit integers, two multiply-accumulates a lane: pmaddwd, which x86 has had since SSE2 and no
 * vector extension expresses. The sums are exact, hence those of tl_block_s8, bit for bit. Internal to conv_s8.c.
 */
#ifndef TL_PAIRS_H
#define TL_PAIRS_H

#include "tl_block.h"
#if defined(__AVX2__) && TL_LANES % 8 == 0 /* what vector extensions cannot say; slow to read, so only here */
#include <immintrin.h>
#endif

typedef uint32_t tl_u32_lanes __attribute__((vector_size(4 * TL_LANES)));

/* sum += more modulo 2^32, as pmaddwd adds: what is not centred may pass 2^31 on the way to a sum that does not. */
static inline void tl_add_wrapped(tl_s32_lanes *sum, const tl_s32_lanes *more) {
  *sum = (tl_s32_lanes)((tl_u32_lanes)*sum + (tl_u32_lanes)*more);
}

#if defined(__AVX2__) && TL_LANES % 8 == 0
#define TL_PAIRS 1

enum { TL_PAIR_REGISTERS = TL_LANES / 8, TL_PAIR_RUN = 64 };

/* panel: [count][lanes], count even, becomes [count / 2][lanes][2]. start[j] = -x_zero * sum of lane j's column. */
static inline void tl_pair_panel(int16_t *panel, int32_t count, int32_t x_zero, tl_s32_lanes *start) {
  tl_u32_lanes sum = {0};
  for (int32_t i = 0; i < count; i += 2) {
    int16_t pair[2 * TL_LANES], *at = panel + i * TL_LANES;
    for (int j = 0; j < TL_LANES; j++) {
      pair[2 * j] = at[j];
      pair[2 * j + 1] = at[TL_LANES + j];
      sum[j] += (uint32_t)(at[j] + at[TL_LANES + j]);
    }
    memcpy(at, pair, sizeof pair);
  }
  *start = (tl_s32_lanes)(sum * (uint32_t)-x_zero);
}

/* sums: [TL_ROWS_S8] in and out; x: as it is stored; panel: paired; count even. */
static inline void tl_block_pairs(tl_s32_lanes *sums, const int8_t *const *x, const int16_t *panel, int32_t count) {
  __m256i acc[TL_ROWS_S8][TL_PAIR_REGISTERS];
  int16_t wide[TL_ROWS_S8][TL_PAIR_RUN];
  memcpy(acc, sums, sizeof acc);
  for (int32_t first = 0; first < count; first += TL_PAIR_RUN) {
    int32_t run = tl_min(TL_PAIR_RUN, count - first);
    for (int r = 0; r < TL_ROWS_S8; r++)
      for (int32_t i = 0; i < run; i++) wide[r][i] = x[r][first + i];
    for (int32_t i = 0; i < run; i += 2) {
      const int16_t *row = panel + (first + i) * TL_LANES;
#pragma GCC unroll 4
      for (int r = 0; r < TL_ROWS_S8; r++) {
        int32_t pair;
        memcpy(&pair, &wide[r][i], sizeof pair);
        __m256i both = _mm256_set1_epi32(pair);
#pragma GCC unroll 2
        for (int h = 0; h < TL_PAIR_REGISTERS; h++) {
          __m256i weights = _mm256_loadu_si256((const __m256i *)(const void *)(row + 16 * h));
          acc[r][h] = _mm256_add_epi32(acc[r][h], _mm256_madd_epi16(both, weights));
        }
      }
    }
  }
  memcpy(sums, acc, sizeof acc);
}
#else
#define TL_PAIRS 0

static inline void tl_pair_panel(int16_t *panel, int32_t count, int32_t x_zero, tl_s32_lanes *start) {
  (void)panel, (void)count, (void)x_zero, (void)start;
}

static inline void tl_block_pairs(tl_s32_lanes *sums, const int8_t *const *x, const int16_t *panel, int32_t count) {
  (void)sums, (void)x, (void)panel, (void)count;
}
#endif

#endif
