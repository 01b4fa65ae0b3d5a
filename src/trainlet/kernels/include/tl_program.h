/* What an emitted program needs around the kernels: slices, factory values, powers. No scratch. */
#ifndef TL_PROGRAM_H
#define TL_PROGRAM_H

#include "tl_types.h"

/* y = the block of x (extents dims) that begins at starts and has extents sizes. elem_size in bytes, no aliasing. */
void tl_slice(int32_t elem_size, const int32_t dims[4], const int32_t starts[4], const int32_t sizes[4], const void *x,
              void *y);

typedef enum { TL_FROM_S8, TL_FROM_S32, TL_FROM_F32 } tl_factory_kind;

/* Factory values of a trained tensor: dst[o][j][i] = src[o][channels[j]][i], 0 <= j < k (channels NULL: j).
 * src: [outer][c][inner]. to_float: dst is float (a master), else dst has the type of src. */
void tl_factory(void *dst, int32_t to_float, const void *src, tl_factory_kind kind, int32_t outer, int32_t c,
                int32_t inner, const uint16_t *channels, int32_t k);

/* base^exponent by repeated squaring, fp32. */
float tl_power(float base, uint32_t exponent);

/* Index of the largest of count values, the first where several are. */
int32_t tl_argmax(const float *x, int32_t count);

#endif
