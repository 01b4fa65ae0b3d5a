/* Moving elements without arithmetic. elem_size is 1 or 4 bytes. No scratch, no aliasing. */
#ifndef TL_SHAPE_H
#define TL_SHAPE_H

#include "tl_types.h"

/* y's dimension i is x's dimension perm[i].   1 <= rank <= 4; dims: extents of x. */
void tl_transpose(int32_t elem_size, int32_t rank, const int32_t *dims, const int32_t *perm, const void *x, void *y);

/* y[before + i] = x[i], *value elsewhere; y has extents before + dims + after, all >= 0. */
void tl_pad(int32_t elem_size, const int32_t dims[4], const int32_t before[4], const int32_t after[4],
            const void *value, const void *x, void *y);

/* Row r of row_bytes from src + r * src_stride to dst + r * dst_stride (strides in bytes): concatenate, split,
 * slice. */
void tl_copy_rows(void *dst, int32_t dst_stride, const void *src, int32_t src_stride, int32_t row_bytes, int32_t rows);

/* y[p][j] = x[p][channels[j]].   x: [positions][c]; y: [positions][k]. */
void tl_take_channels(const void *x, int32_t elem_size, int32_t positions, int32_t c, const uint16_t *channels,
                      int32_t k, void *y);

#endif
