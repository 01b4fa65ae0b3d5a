/* Windows over channels: for each output position, the valid taps, then TL_LANES channels at a time. */
#include "tl_pool.h"

#include "tl_block.h"
#include "tl_fixed.h"
#include "tl_window.h"

/* The taps of one window that lie inside x, and the input pixel of tap (0, 0). */
typedef struct {
  int32_t ky0, ky1, kx0, kx1, pixel, count;
} window;

static window window_of(const tl_conv_shape *s, int32_t position) {
  tl_window at = tl_window_of(s, position);
  window w = {tl_first_tap(at.iy, s->dh), tl_last_tap(at.iy, s->dh, s->h, s->kh),
              tl_first_tap(at.ix, s->dw), tl_last_tap(at.ix, s->dw, s->w, s->kw), at.pixel, 0};
  w.count = (w.ky1 - w.ky0) * (w.kx1 - w.kx0);
  return w;
}

/* Index of channel c under a tap. */
static inline int32_t under(const tl_conv_shape *s, const window *at, int32_t ky, int32_t kx, int32_t c) {
  return (at->pixel + ky * s->dh * s->w + kx * s->dw) * s->c + c;
}

void tl_avgpool_s8(const tl_conv_shape *s, const int8_t *x, int32_t zero, int32_t include_pad, int8_t *y) {
  int32_t positions = s->n * s->oh * s->ow, all = s->kh * s->kw;
  for (int32_t p = 0; p < positions; p++) {
    window at = window_of(s, p);
    int32_t padding = include_pad ? (all - at.count) * zero : 0;
    float count = (float)(include_pad ? all : at.count);
    for (int32_t c = 0; c < s->c; c += TL_LANES) {
      int32_t width = tl_min(TL_LANES, s->c - c);
      tl_s32_lanes sum = {0}, lanes;
      sum += padding;
      for (int32_t ky = at.ky0; ky < at.ky1; ky++)
        for (int32_t kx = at.kx0; kx < at.kx1; kx++) {
          tl_get_s8(&lanes, x + under(s, &at, ky, kx, c), width);
          sum += lanes;
        }
      for (int32_t j = 0; j < width; j++) y[p * s->c + c + j] = tl_saturate_s8(tl_rint((float)sum[j] / count));
    }
  }
}

/* sum / count as `mean` rounds it, before saturation. */
static int32_t fixed_mean(const tl_mean *mean, int32_t sum, int32_t count) {
  if (mean->kind == TL_MEAN_RESCALED)
    return tl_fixed_multiply(sum - count * mean->x_zero, mean->multiplier, mean->shift) + mean->y_zero;
  if (mean->kind == TL_MEAN_AWAY) return (sum + (sum > 0 ? count / 2 : -(count / 2))) / count;
  /* floor; 128 keeps the numerator positive */
  return (sum + count / 2 + 128 * count) / count - 128;
}

void tl_avgpool_s8_fixed(const tl_conv_shape *s, const int8_t *x, const tl_mean *mean, int8_t *y) {
  int32_t positions = s->n * s->oh * s->ow;
  for (int32_t p = 0; p < positions; p++) {
    window at = window_of(s, p);
    for (int32_t c = 0; c < s->c; c += TL_LANES) {
      int32_t width = tl_min(TL_LANES, s->c - c);
      tl_s32_lanes sum = {0}, lanes;
      for (int32_t ky = at.ky0; ky < at.ky1; ky++)
        for (int32_t kx = at.kx0; kx < at.kx1; kx++) {
          tl_get_s8(&lanes, x + under(s, &at, ky, kx, c), width);
          sum += lanes;
        }
      for (int32_t j = 0; j < width; j++)
        y[p * s->c + c + j] = (int8_t)tl_clamp_s32(fixed_mean(mean, sum[j], at.count), -128, 127);
    }
  }
}

void tl_avgpool_f32(const tl_conv_shape *s, const float *x, int32_t include_pad, float *y) {
  int32_t positions = s->n * s->oh * s->ow;
  for (int32_t p = 0; p < positions; p++) {
    window at = window_of(s, p);
    float count = (float)(include_pad ? s->kh * s->kw : at.count);
    for (int32_t c = 0; c < s->c; c += TL_LANES) {
      int32_t width = tl_min(TL_LANES, s->c - c);
      tl_f32_lanes sum = {0}, lanes;
      for (int32_t ky = at.ky0; ky < at.ky1; ky++)
        for (int32_t kx = at.kx0; kx < at.kx1; kx++) {
          tl_get_f32(&lanes, x + under(s, &at, ky, kx, c), width);
          sum += lanes;
        }
      sum /= count;
      tl_put_f32(y + (p * s->c + c), &sum, width);
    }
  }
}

void tl_avgpool_grad(const tl_conv_shape *s, const float *dy, int32_t include_pad, float *dx) {
  int32_t positions = s->n * s->oh * s->ow;
  memset(dx, 0, (size_t)(s->n * s->h * s->w * s->c) * sizeof *dx);
  for (int32_t p = 0; p < positions; p++) {
    window at = window_of(s, p);
    float count = (float)(include_pad ? s->kh * s->kw : at.count);
    for (int32_t ky = at.ky0; ky < at.ky1; ky++)
      for (int32_t kx = at.kx0; kx < at.kx1; kx++) {
        float *to = dx + under(s, &at, ky, kx, 0);
        for (int32_t c = 0; c < s->c; c++) to[c] += dy[p * s->c + c] / count;
      }
  }
}

/* Index in x of the first maximal element of channel c's window. Exactly one of s8, f32. */
static inline int32_t argmax(const tl_conv_shape *s, const window *at, const int8_t *s8, const float *f32, int32_t c) {
  int32_t best = under(s, at, at->ky0, at->kx0, c);
  for (int32_t ky = at->ky0; ky < at->ky1; ky++)
    for (int32_t kx = at->kx0; kx < at->kx1; kx++) {
      int32_t i = under(s, at, ky, kx, c);
      if (s8 ? s8[i] > s8[best] : f32[i] > f32[best]) best = i;
    }
  return best;
}

void tl_maxpool_s8(const tl_conv_shape *s, const int8_t *x, int8_t *y) {
  int32_t positions = s->n * s->oh * s->ow;
  for (int32_t p = 0; p < positions; p++) {
    window at = window_of(s, p);
    for (int32_t c = 0; c < s->c; c++) y[p * s->c + c] = x[argmax(s, &at, x, NULL, c)];
  }
}

void tl_maxpool_f32(const tl_conv_shape *s, const float *x, float *y) {
  int32_t positions = s->n * s->oh * s->ow;
  for (int32_t p = 0; p < positions; p++) {
    window at = window_of(s, p);
    for (int32_t c = 0; c < s->c; c++) y[p * s->c + c] = x[argmax(s, &at, NULL, x, c)];
  }
}

void tl_maxpool_grad(const tl_conv_shape *s, const int8_t *x_s8, const float *x_f32, const float *dy, float *dx) {
  int32_t positions = s->n * s->oh * s->ow;
  memset(dx, 0, (size_t)(s->n * s->h * s->w * s->c) * sizeof *dx);
  for (int32_t p = 0; p < positions; p++) {
    window at = window_of(s, p);
    for (int32_t c = 0; c < s->c; c++) dx[argmax(s, &at, x_s8, x_f32, c)] += dy[p * s->c + c];
  }
}
