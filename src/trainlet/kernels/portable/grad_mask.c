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

/* A select, not a product with the mask: an infinite gradient that is masked gives 0. */
void tl_requantize_grad(float *out, const float *g, const uint8_t *mask, const float *scale, int32_t positions,
                        int32_t channels) {
  for (int32_t p = 0; p < positions; p++) {
    int32_t first = p * channels;
    for (int32_t c = 0; c < channels; c++) {
      float scaled = g[first + c] * scale[c];
      out[first + c] = !mask || tl_mask_bit(mask, first + c) ? scaled : 0.0f;
    }
  }
}

void tl_mask_grad(float *out, const float *g, const uint8_t *mask, float scale, int32_t count) {
  for (int32_t i = 0; i < count; i++) {
    float scaled = g[i] * scale;
    out[i] = !mask || tl_mask_bit(mask, i) ? scaled : 0.0f;
  }
}
