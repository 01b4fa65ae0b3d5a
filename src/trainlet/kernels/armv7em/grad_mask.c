/* Gradients of bias, requantisation and clamp: one pass over dy [positions][channels] each, a byte of the mask or four
 * columns at a time. */
#include "tl_conv.h"
#include "tl_requantize.h"

enum { BLOCK = TL_BIAS_GRAD_SCRATCH_BYTES / 4 };

/* Four sums in registers; each adds its column from the top, as the contract says. */
static void sum_four(int32_t positions, int32_t channels, const float *dy, float *sums) {
  float a = 0.0f, b = 0.0f, c = 0.0f, d = 0.0f;
  for (int32_t p = 0; p < positions; p++, dy += channels) {
    a += dy[0];
    b += dy[1];
    c += dy[2];
    d += dy[3];
  }
  sums[0] = a;
  sums[1] = b;
  sums[2] = c;
  sums[3] = d;
}

static void sum_one(int32_t positions, int32_t channels, const float *dy, float *sum) {
  float total = 0.0f;
  for (int32_t p = 0; p < positions; p++) total += dy[p * channels];
  *sum = total;
}

void tl_bias_grad(int32_t positions, int32_t channels, const float *dy, const tl_update *u, void *scratch) {
  float *sums = scratch;
  for (int32_t c = 0; c < channels; c += BLOCK) {
    int32_t width = tl_min(BLOCK, channels - c), j = 0;
    for (; j + 4 <= width; j += 4) sum_four(positions, channels, dy + c + j, sums + j);
    for (; j < width; j++) sum_one(positions, channels, dy + c + j, sums + j);
    tl_update_vec(u, c, sums, width);
  }
}

/* scaled where the bit is 1, else 0: a select, so that an infinite gradient that is masked gives 0. */
static inline float masked(float scaled, uint32_t bits, int32_t j) {
  int32_t keep = (int32_t)(bits << (31 - j)) >> 31; /* bit j to all bits */
  return tl_bits_to_float(tl_float_to_bits(scaled) & keep);
}

/* Eight elements under one byte of the mask; step 1: a scale each, 0: the same. */
static inline void scale_eight(float *out, const float *g, uint32_t bits, const float *scale, int32_t step) {
#pragma GCC unroll 8
  for (int32_t j = 0; j < 8; j++) out[j] = masked(g[j] * scale[j * step], bits, j);
}

/* `count` neighbours whose mask bits start at `bit`; scale[j * step]. */
static inline void scale_run(float *out, const float *g, const uint8_t *mask, int32_t bit, const float *scale,
                             int32_t step, int32_t count) {
  int32_t i = 0;
  if ((bit & 7) == 0) {
    for (; i + 8 <= count; i += 8)
      scale_eight(out + i, g + i, mask ? mask[(bit + i) >> 3] : 255u, scale + i * step, step);
  }
  for (; i < count; i++) out[i] = masked(g[i] * scale[i * step], mask ? tl_mask_bit(mask, bit + i) : 1u, 0);
}

void tl_requantize_grad(float *out, const float *g, const uint8_t *mask, const float *scale, int32_t positions,
                        int32_t channels) {
  for (int32_t p = 0; p < positions; p++) {
    int32_t first = p * channels;
    scale_run(out + first, g + first, mask, first, scale, 1, channels);
  }
}

void tl_mask_grad(float *out, const float *g, const uint8_t *mask, float scale, int32_t count) {
  scale_run(out, g, mask, 0, &scale, 0, count);
}

void tl_requantize_grad_slice(float *d, const uint8_t *mask, const float *scale, const tl_channel_slice *slice) {
  for (int32_t p = 0; p < slice->positions; p++, d += slice->count)
    scale_run(d, d, mask, p * slice->channels + slice->first, scale + slice->first, 1, slice->count);
}

void tl_mask_grad_slice(float *d, const uint8_t *mask, float scale, const tl_channel_slice *slice) {
  for (int32_t p = 0; p < slice->positions; p++, d += slice->count)
    scale_run(d, d, mask, p * slice->channels + slice->first, &scale, 0, slice->count);
}
