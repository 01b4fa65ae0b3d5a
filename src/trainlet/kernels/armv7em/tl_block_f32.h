/* The fp32 block of tl_block.h in assembly: 16 sums and their operands fill the 32 registers of the FPU. */
#ifndef TL_BLOCK_F32_H
#define TL_BLOCK_F32_H

/* sums[r][j] += x[r][i] * panel[i][j], i ascending.   sums: [4][4]; panel: [count][4]; count > 0. */
void tl_fma_rows(float *sums, const float *const *x, const float *panel, int32_t count);

/* The same with the sums where they lie, to[r][j]. Rows of `to` may be the same, if those of x are. */
void tl_fma_rows_at(float *const *to, const float *const *x, const float *panel, int32_t count);

/* The same with x[i * step + r]. */
void tl_fma_columns(float *sums, const float *x, int32_t step, const float *panel, int32_t count);

/* sum[j] += x[i * x_step + j] * taps[i * taps_step + j] for the four lanes j, i ascending.   count > 0. */
void tl_fma_taps(float *sum, const float *x, int32_t x_step, const float *taps, int32_t taps_step, int32_t count);

/* sums: [TL_ROWS] in and out; x[r][i * step]. */
static inline void tl_block_f32(tl_f32_lanes *sums, const float *const *x, int32_t step, const float *panel,
                                int32_t count) {
  float flat[16];
  if (count <= 0) return;
  memcpy(flat, sums, sizeof flat);
  if (step == 1) {
    tl_fma_rows(flat, x, panel, count);
  } else if (x[1] == x[0] + 1 && x[2] == x[0] + 2 && x[3] == x[0] + 3) {
    tl_fma_columns(flat, x[0], step, panel, count);
  } else {
    for (int32_t i = 0; i < count; i++) {
      const float row[4] = {x[0][i * step], x[1][i * step], x[2][i * step], x[3][i * step]};
      tl_fma_columns(flat, row, 4, panel + i * 4, 1);
    }
  }
  memcpy(sums, flat, sizeof flat);
}

#endif
