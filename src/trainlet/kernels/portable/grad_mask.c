/* Gradients of bias, requantisation and clamp: one pass over dy [positions][channels] each. */
#include "tl_conv.h"
#include "tl_requantize.h"

enum { BLOCK = TL_BIAS_GRAD_SCRATCH_BYTES / 4 };

void tl_bias_grad(int32_t positions, int32_t channels, const float *dy, const tl_update *u, void *scratch) {
  float *sums = scratch;
  for (int32_t c = 0; c < channels; c += BLOCK) {
    int32_t width = tl_min(BLOCK, channels - c);
    memset(sums, 0, TL_BIAS_GRAD_SCRATCH_BYTES);
    for (int32_t p = 0; p < positions; p++) {
      const float *row = dy + (p * channels + c);
      for (int32_t j = 0; j < width; j++) sums[j] += row[j];
    }
    tl_update_vec(u, c, sums, width);
  }
}

typedef float f32_eight __attribute__((vector_size(32)));
typedef int32_t s32_eight __attribute__((vector_size(32)));

/* Eight neighbours and the byte of their mask bits, without a branch. A select, not a product with the mask: an infinite
 * gradient that is masked gives 0. */
static inline void mask_eight(float *out, const float *g, const float *scale, int32_t bits) {
  const s32_eight bit = {1, 2, 4, 8, 16, 32, 64, 128};
  f32_eight gradient, factor;
  s32_eight kept;
  memcpy(&gradient, g, sizeof gradient);
  memcpy(&factor, scale, sizeof factor);
  gradient *= factor;
  memcpy(&kept, &gradient, sizeof kept);
  kept &= (bits & bit) == bit;
  memcpy(out, &kept, sizeof kept);
}

/* `count` neighbours whose mask bits start at `bit`; scale[j * step] (step 0: eight of them, all the same). */
static inline void mask_run(float *out, const float *g, const uint8_t *mask, int32_t bit, const float *scale,
                            int32_t step, int32_t count) {
  int32_t i = 0;
  if (mask && bit % 8 == 0) {
    for (; i + 8 <= count; i += 8) mask_eight(out + i, g + i, scale + i * step, mask[(bit + i) >> 3]);
  }
  for (; i < count; i++) {
    float scaled = g[i] * scale[i * step];
    out[i] = !mask || tl_mask_bit(mask, bit + i) ? scaled : 0.0f;
  }
}

void tl_requantize_grad(float *out, const float *g, const uint8_t *mask, const float *scale, int32_t positions,
                        int32_t channels) {
  for (int32_t p = 0; p < positions; p++) {
    int32_t first = p * channels;
    mask_run(out + first, g + first, mask, first, scale, 1, channels);
  }
}

void tl_mask_grad(float *out, const float *g, const uint8_t *mask, float scale, int32_t count) {
  const float eight[8] = {scale, scale, scale, scale, scale, scale, scale, scale};
  mask_run(out, g, mask, 0, eight, 0, count);
}

void tl_requantize_grad_slice(float *d, const uint8_t *mask, const float *scale, const tl_channel_slice *slice) {
  for (int32_t p = 0; p < slice->positions; p++, d += slice->count)
    mask_run(d, d, mask, p * slice->channels + slice->first, scale + slice->first, 1, slice->count);
}

void tl_mask_grad_slice(float *d, const uint8_t *mask, float scale, const tl_channel_slice *slice) {
  const float eight[8] = {scale, scale, scale, scale, scale, scale, scale, scale};
  for (int32_t p = 0; p < slice->positions; p++, d += slice->count)
    mask_run(d, d, mask, p * slice->channels + slice->first, eight, 0, slice->count);
}
