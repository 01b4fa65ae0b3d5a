#include "tl_shape.h"

#include <string.h>

/* One element between byte buffers; the constant size makes it a move. */
static inline void move(uint8_t *to, const uint8_t *from, int32_t elem_size) {
  if (elem_size == 4) {
    memcpy(to, from, 4);
  } else {
    *to = *from;
  }
}

/* y is written in order; x is read with the strides of its permuted dimensions. */
void tl_transpose(int32_t elem_size, int32_t rank, const int32_t *dims, const int32_t *perm, const void *x, void *y) {
  int32_t extent[4] = {1, 1, 1, 1}, stride[4] = {0, 0, 0, 0}, x_stride[4], size = elem_size;
  const uint8_t *from = x;
  uint8_t *to = y;
  for (int32_t d = rank - 1; d >= 0; d--) {
    x_stride[d] = size;
    size *= dims[d];
  }
  for (int32_t d = 0; d < rank; d++) {
    extent[4 - rank + d] = dims[perm[d]];
    stride[4 - rank + d] = x_stride[perm[d]];
  }
  for (int32_t i = 0; i < extent[0]; i++)
    for (int32_t j = 0; j < extent[1]; j++)
      for (int32_t k = 0; k < extent[2]; k++) {
        const uint8_t *row = from + (i * stride[0] + j * stride[1] + k * stride[2]);
        for (int32_t l = 0; l < extent[3]; l++, to += elem_size) move(to, row + l * stride[3], elem_size);
      }
}

void tl_pad(int32_t elem_size, const int32_t dims[4], const int32_t before[4], const int32_t after[4],
            const void *value, const void *x, void *y) {
  int32_t extent[4], size = 1;
  const uint8_t *from = x;
  uint8_t *to = y;
  for (int d = 0; d < 4; d++) {
    extent[d] = before[d] + dims[d] + after[d];
    size *= extent[d];
  }
  for (int32_t i = 0; i < size; i++) move(to + i * elem_size, value, elem_size);
  for (int32_t i = 0; i < dims[0]; i++)
    for (int32_t j = 0; j < dims[1]; j++)
      for (int32_t k = 0; k < dims[2]; k++, from += dims[3] * elem_size) {
        int32_t row = ((i + before[0]) * extent[1] + j + before[1]) * extent[2] + k + before[2];
        memcpy(to + (row * extent[3] + before[3]) * elem_size, from, (size_t)(dims[3] * elem_size));
      }
}

void tl_copy_rows(void *dst, int32_t dst_stride, const void *src, int32_t src_stride, int32_t row_bytes, int32_t rows) {
  for (int32_t r = 0; r < rows; r++)
    memcpy((uint8_t *)dst + r * dst_stride, (const uint8_t *)src + r * src_stride, (size_t)row_bytes);
}

void tl_take_channels(const void *x, int32_t elem_size, int32_t positions, int32_t c, const uint16_t *channels,
                      int32_t k, void *y) {
  const uint8_t *from = x;
  uint8_t *to = y;
  for (int32_t p = 0; p < positions; p++, from += c * elem_size)
    for (int32_t j = 0; j < k; j++, to += elem_size) move(to, from + channels[j] * elem_size, elem_size);
}
