/* y[i] = op(a[i]) op(b[i]), i = 0 .. batch-1.   op(a): [m][k], stored [k][m] if trans_a; op(b): [k][n], stored
 * [n][k] if trans_b; y: [m][n]. Batch strides in elements (0: shared by all). Order per element: from 0, k
 * ascending, TL_FMA. scratch: TL_CONV_SCRATCH_BYTES. */
#ifndef TL_MATMUL_H
#define TL_MATMUL_H

#include "tl_types.h"

void tl_matmul_f32(int32_t batch, int32_t m, int32_t k, int32_t n, int32_t trans_a, int32_t trans_b, const float *a,
                   int32_t a_batch_stride, const float *b, int32_t b_batch_stride, float *y, int32_t y_batch_stride,
                   void *scratch);

#endif
