#include "tl_pointwise_s8.h"

#include "tl_fixed.h"
#include "tl_requantize.h"

/* Elements are independent; eight at a time give one byte of the mask. v: [8]. */
static inline void store_eight(const float *v, int8_t *y, uint8_t *mask, int32_t count) {
  uint32_t bits = 0;
  for (int32_t j = 0; j < count; j++) bits |= tl_store_s8(v[j], &y[j]) << j;
  if (mask) *mask = (uint8_t)bits;
}

typedef struct {
  const int8_t *a, *b;
  float a_zero, a_scale, b_zero, b_scale, y_scale, y_zero;
} addition;

static inline void add_eight(const addition *s, int32_t first, int32_t count, int8_t *y, uint8_t *mask) {
  float v[8];
  for (int32_t j = 0; j < count; j++) {
    float a = ((float)s->a[first + j] - s->a_zero) * s->a_scale;
    float b = ((float)s->b[first + j] - s->b_zero) * s->b_scale;
    v[j] = tl_rint((a + b) / s->y_scale) + s->y_zero;
  }
  store_eight(v, y + first, mask ? mask + first / 8 : NULL, count);
}

void tl_add_s8(const int8_t *a, int32_t a_zero, float a_scale, const int8_t *b, int32_t b_zero, float b_scale,
               float y_scale, int32_t y_zero, int8_t *y, uint8_t *mask, int32_t count) {
  const addition s = {a, b, (float)a_zero, a_scale, (float)b_zero, b_scale, y_scale, (float)y_zero};
  int32_t whole = count & ~7;
  for (int32_t i = 0; i < whole; i += 8) add_eight(&s, i, 8, y, mask);
  if (whole < count) add_eight(&s, whole, count - whole, y, mask);
}

/* One row of channels at a time; its mask bits start anywhere in a byte. */
void tl_mul_s8(const int8_t *a, int32_t a_zero, const int8_t *b, int32_t b_zero, int32_t b_per_channel, float scale,
               int32_t y_zero, int8_t *y, uint8_t *mask, int32_t batch, int32_t positions, int32_t channels) {
  int32_t rows = batch * positions;
  if (mask) memset(mask, 0, (size_t)TL_MASK_BYTES(rows * channels));
  for (int32_t row = 0; row < rows; row++) {
    int32_t first = row * channels;
    const int8_t *factor = b + (b_per_channel ? row / positions : row) * channels;
    for (int32_t c = 0; c < channels; c++) {
      float product = (float)((a[first + c] - a_zero) * (factor[c] - b_zero));
      uint32_t bit = tl_store_s8(tl_rint(product * scale) + (float)y_zero, &y[first + c]);
      if (mask) tl_mask_or(mask, first + c, bit, 1);
    }
  }
}

/* v, relative to the zero point, to *y; 1 if it was inside lo .. hi. */
static inline uint32_t store_fixed(int32_t v, int32_t zero, int32_t lo, int32_t hi, int8_t *y) {
  *y = (int8_t)(tl_clamp_s32(v, lo - zero, hi - zero) + zero);
  return (uint32_t)((v >= lo - zero) & (v <= hi - zero));
}

void tl_add_s8_fixed(const int8_t *a, const tl_fixed_side *of_a, const int8_t *b, const tl_fixed_side *of_b,
                     const tl_fixed_side *of_y, int32_t lo, int32_t hi, int8_t *y, uint8_t *mask, int32_t count) {
  uint32_t bits = 0;
  for (int32_t i = 0; i < count; i++) {
    int32_t left = tl_fixed_multiply((a[i] - of_a->zero) * (1 << 20), of_a->multiplier, of_a->shift);
    int32_t right = tl_fixed_multiply((b[i] - of_b->zero) * (1 << 20), of_b->multiplier, of_b->shift);
    int32_t v = tl_fixed_multiply(left + right, of_y->multiplier, of_y->shift);
    bits |= store_fixed(v, of_y->zero, lo, hi, &y[i]) << (i & 7);
    if ((i & 7) == 7 || i == count - 1) {
      if (mask) mask[i >> 3] = (uint8_t)bits;
      bits = 0;
    }
  }
}

void tl_mul_s8_fixed(const int8_t *a, int32_t a_zero, const int8_t *b, int32_t b_zero, int32_t b_per_channel,
                     const tl_fixed_side *of_y, int32_t lo, int32_t hi, int8_t *y, uint8_t *mask, int32_t batch,
                     int32_t positions, int32_t channels) {
  int32_t rows = batch * positions;
  if (mask) memset(mask, 0, (size_t)TL_MASK_BYTES(rows * channels));
  for (int32_t row = 0; row < rows; row++) {
    int32_t first = row * channels;
    const int8_t *factor = b + (b_per_channel ? row / positions : row) * channels;
    for (int32_t c = 0; c < channels; c++) {
      int32_t product = (a[first + c] - a_zero) * (factor[c] - b_zero);
      int32_t v = tl_fixed_multiply(product, of_y->multiplier, of_y->shift);
      uint32_t bit = store_fixed(v, of_y->zero, lo, hi, &y[first + c]);
      if (mask) tl_mask_or(mask, first + c, bit, 1);
    }
  }
}

void tl_lookup_s8(const int8_t *x, const int8_t *table, int8_t *y, int32_t count) {
  for (int32_t i = 0; i < count; i++) y[i] = table[x[i] + 128];
}

void tl_lookup_grad(float *dx, const float *dy, const int8_t *x, const float *table, int32_t count) {
  for (int32_t i = 0; i < count; i++) dx[i] = dy[i] * table[x[i] + 128];
}

static inline void quantize_eight(const float *x, float scale, float zero, int8_t *y, uint8_t *mask, int32_t count) {
  float v[8];
  for (int32_t j = 0; j < count; j++) v[j] = tl_rint(x[j] / scale) + zero;
  store_eight(v, y, mask, count);
}

void tl_quantize(const float *x, float scale, int32_t zero, int8_t *y, uint8_t *mask, int32_t count) {
  int32_t whole = count & ~7;
  for (int32_t i = 0; i < whole; i += 8)
    quantize_eight(x + i, scale, (float)zero, y + i, mask ? mask + i / 8 : NULL, 8);
  if (whole < count)
    quantize_eight(x + whole, scale, (float)zero, y + whole, mask ? mask + whole / 8 : NULL, count - whole);
}

void tl_dequantize(const int8_t *x, float scale, int32_t zero, float *y, int32_t count) {
  for (int32_t i = 0; i < count; i++) y[i] = (float)(x[i] - zero) * scale;
}
