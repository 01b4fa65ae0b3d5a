/* The fp32 block of tl_block.h, which includes this: a file of its own so that an instruction set can have its own. */
#ifndef TL_BLOCK_F32_H
#define TL_BLOCK_F32_H

/* sums: [TL_ROWS] in and out; x[r][i * step]. */
static inline void tl_block_f32(tl_f32_lanes *sums, const float *const *x, int32_t step, const float *panel,
                                int32_t count) {
  tl_f32_lanes acc[TL_ROWS];
  const float *x0 = x[0], *x1 = x[1], *x2 = x[2], *x3 = x[3];
  memcpy(acc, sums, sizeof acc);
  for (int32_t i = 0; i < count; i++) {
    tl_f32_lanes row;
    int32_t at = i * step;
    memcpy(&row, panel + i * TL_LANES, sizeof row);
    tl_fma_lanes(&acc[0], x0[at], &row);
    tl_fma_lanes(&acc[1], x1[at], &row);
    tl_fma_lanes(&acc[2], x2[at], &row);
    tl_fma_lanes(&acc[3], x3[at], &row);
  }
  memcpy(sums, acc, sizeof acc);
}

#endif
