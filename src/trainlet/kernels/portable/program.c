/* Slices, factory values of trained tensors, powers. */
#include "tl_program.h"

#include <string.h>

void tl_slice(int32_t elem_size, const int32_t dims[4], const int32_t starts[4], const int32_t sizes[4], const void *x,
              void *y) {
  const uint8_t *src = (const uint8_t *)x;
  uint8_t *dst = (uint8_t *)y;
  const size_t row = (size_t)sizes[3] * (size_t)elem_size;
  for (int32_t i = 0; i < sizes[0]; i++) {
    for (int32_t j = 0; j < sizes[1]; j++) {
      for (int32_t k = 0; k < sizes[2]; k++) {
        const int32_t line = ((starts[0] + i) * dims[1] + starts[1] + j) * dims[2] + starts[2] + k;
        memcpy(dst, src + ((size_t)line * (size_t)dims[3] + (size_t)starts[3]) * (size_t)elem_size, row);
        dst += row;
      }
    }
  }
}

static float as_float(const void *src, tl_factory_kind kind, int32_t at) {
  if (kind == TL_FROM_S8) return (float)((const int8_t *)src)[at];
  if (kind == TL_FROM_S32) return (float)((const int32_t *)src)[at];
  return ((const float *)src)[at];
}

void tl_factory(void *dst, int32_t to_float, const void *src, tl_factory_kind kind, int32_t outer, int32_t c,
                int32_t inner, const uint16_t *channels, int32_t k) {
  const size_t size = kind == TL_FROM_S8 ? 1 : 4;
  int32_t to = 0;
  for (int32_t o = 0; o < outer; o++) {
    for (int32_t j = 0; j < k; j++) {
      const int32_t from = (o * c + (channels != NULL ? channels[j] : j)) * inner;
      for (int32_t i = 0; i < inner; i++, to++) {
        if (to_float) {
          ((float *)dst)[to] = as_float(src, kind, from + i);
        } else {
          memcpy((uint8_t *)dst + (size_t)to * size, (const uint8_t *)src + (size_t)(from + i) * size, size);
        }
      }
    }
  }
}

float tl_power(float base, uint32_t exponent) {
  float result = 1.0f;
  for (; exponent != 0; exponent >>= 1) {
    if (exponent & 1u) result *= base;
    base *= base;
  }
  return result;
}

int32_t tl_argmax(const float *x, int32_t count) {
  int32_t best = 0;
  for (int32_t i = 1; i < count; i++) {
    if (x[i] > x[best]) best = i;
  }
  return best;
}
