/* Convolutions, forward and backward, dense or grouped. A Gemm is the case h = w = kh = kw = 1, n = rows.
 *
 * Depthwise means groups == c == o. Everything else goes through the tl_conv_ functions.
 * Scratch: TL_CONV_SCRATCH_BYTES for every tl_conv_ function,
 *          tl_depthwise_scratch_bytes(kh, kw) = 4 * TL_LANES * kh * kw for every tl_depthwise_ function.
 * x_zero lies in [-128, 127]. |sum (x - x_zero) * w| must stay below 2^31 (true for K <= 65,000).
 */
#ifndef TL_CONV_H
#define TL_CONV_H

#include "tl_types.h"
#include "tl_update.h"

static inline int32_t tl_depthwise_scratch_bytes(int32_t kh, int32_t kw) { return 4 * TL_LANES * kh * kw; }

/* Taps, and a copy of the channels of an image that are computed at once. */
static inline int32_t tl_depthwise_s8_inplace_scratch_bytes(const tl_conv_shape *s) {
  return TL_LANES * (4 * s->kh * s->kw + s->h * s->w);
}

/* Taps, and a ring of the rows that one row of dx reads. */
static inline int32_t tl_depthwise_inplace_scratch_bytes(const tl_conv_shape *s) {
  return 4 * TL_LANES * (s->kh * s->kw + ((s->kh - 1) * s->dh + 1) * s->w);
}

/* y = saturate(v), v = rint((acc + bias[o]) * scale[o]) + y_zero,  acc = sum (x - x_zero) * w in int32, exact.
 * x: s8 [n][h][w][c]; y: s8 [n][oh][ow][o]; scale: [o]. Padding is 0 after centring.
 * fp32: acc and bias are converted, then one addition, one multiplication, half to even, one addition.
 * mask (or NULL): -128 <= v <= 127. y and mask do not depend on how the body blocks the loops.
 * y of a depthwise function may be x where stride is 1, oh == h and ow == w: then its scratch is
 * tl_depthwise_s8_inplace_scratch_bytes. */
void tl_conv_s8(const tl_conv_shape *s, const int8_t *x, int32_t x_zero, const tl_weights *w, const tl_bias *b,
                const float *scale, int32_t y_zero, int8_t *y, uint8_t *mask, void *scratch);
void tl_depthwise_s8(const tl_conv_shape *s, const int8_t *x, int32_t x_zero, const tl_weights *w, const tl_bias *b,
                     const float *scale, int32_t y_zero, int8_t *y, uint8_t *mask, void *scratch);

/* The same in integers: v = tl_fixed_multiply(acc + bias[o], multiplier[o], shift[o]) + y_zero, y = v clamped to
 * lo .. hi, mask: lo <= v <= hi. With to->once the product is rounded once (tl_fixed.h). A float bias is rounded half to even first. */
void tl_conv_s8_fixed(const tl_conv_shape *s, const int8_t *x, int32_t x_zero, const tl_weights *w, const tl_bias *b,
                      const tl_fixed *to, int32_t y_zero, int8_t *y, uint8_t *mask, void *scratch);
void tl_depthwise_s8_fixed(const tl_conv_shape *s, const int8_t *x, int32_t x_zero, const tl_weights *w,
                           const tl_bias *b, const tl_fixed *to, int32_t y_zero, int8_t *y, uint8_t *mask,
                           void *scratch);

/* y = clip(v, lo, hi), v = conv(x, w) + bias.   mask (or NULL): lo < v < hi.
 * Order per output: from 0, taps (ky, kx) ascending, within a tap c ascending, TL_FMA each; the bias is added last.
 * Taps in the padding: the dense kernel counts them as x = 0, the depthwise one leaves them out. lo = -INFINITY, hi
 * = INFINITY: no clip. A NaN v gives y = lo and mask 0. */
void tl_conv_f32(const tl_conv_shape *s, const float *x, const tl_weights *w, const tl_bias *b, float lo, float hi,
                 float *y, uint8_t *mask, void *scratch);
void tl_depthwise_f32(const tl_conv_shape *s, const float *x, const tl_weights *w, const tl_bias *b, float lo, float hi,
                      float *y, uint8_t *mask, void *scratch);

/* dx (+)= conv_transpose(dy, w).   dy: [n][oh][ow][o]; dx: [n][h][w][c]; accumulate = 0: dx is overwritten.
 * Order per element: from 0 or the old dx, taps (ky, kx) ascending, within a tap o ascending, TL_FMA each. */
void tl_conv_input_grad(const tl_conv_shape *s, const float *dy, const tl_weights *w, float *dx, int32_t accumulate,
                        void *scratch);
void tl_depthwise_input_grad(const tl_conv_shape *s, const float *dy, const tl_weights *w, float *dx,
                             int32_t accumulate, void *scratch);

/* Channels first .. first+count-1 of the dx of tl_conv_input_grad, overwritten, the same bits.   groups == 1.
 * dx: [n][h][w][count]. */
void tl_conv_input_grad_slice(const tl_conv_shape *s, const float *dy, const tl_weights *w, int32_t first,
                              int32_t count, float *dx, void *scratch);

/* tl_depthwise_input_grad for stride 1 and oh == h, ow == w: dx overwrites dy. The same bits.
 * scratch: tl_depthwise_inplace_scratch_bytes. */
void tl_depthwise_input_grad_inplace(const tl_conv_shape *s, float *d, const tl_weights *w, void *scratch);

/* g[o][ky][kx][c] = sum over p = (n, oy, ox) of dy[p][o] * x[n][oy*sh + ky*dh - pt][ox*sw + kx*dw - pl][c], handed to
 * tl_update_row in pieces: row o, columns [kh][kw][k]. No gradient tensor exists; each element is handed over once.
 * groups == 1: x holds k channels. Other groups: x is whole (k == c), a row is [kh][kw][c/g].
 * Order: from 0, p ascending, TL_FMA each. Taps in the padding: the dense kernel counts them as x = 0, the depthwise
 * one leaves them out. */
void tl_conv_weight_grad(const tl_conv_shape *s, const tl_grad_x *x, const float *dy, const tl_update *u,
                         void *scratch);

/* The same for groups == c == o: x is [n][h][w][k], dy has all o channels; row r = 0..k-1 belongs to channel
 * channels[r] (ascending; NULL: r), columns are [kh][kw]. */
void tl_depthwise_weight_grad(const tl_conv_shape *s, const tl_grad_x *x, const float *dy, const uint16_t *channels,
                              int32_t k, const tl_update *u, void *scratch);

#define TL_BIAS_GRAD_SCRATCH_BYTES 256

/* g[c] = sum over p ascending of dy[p][c], from 0, handed to tl_update_vec.   scratch: TL_BIAS_GRAD_SCRATCH_BYTES. */
void tl_bias_grad(int32_t positions, int32_t channels, const float *dy, const tl_update *u, void *scratch);

/* out[p][c] = mask ? g[p][c] * scale[c] : 0.   out may be g. mask NULL: all ones. */
void tl_requantize_grad(float *out, const float *g, const uint8_t *mask, const float *scale, int32_t positions,
                        int32_t channels);

/* out[i] = mask ? g[i] * scale : 0.   out may be g. mask NULL: all ones. */
void tl_mask_grad(float *out, const float *g, const uint8_t *mask, float scale, int32_t count);

/* Channels first .. first+count-1 of a tensor [positions][channels]. */
typedef struct {
  int32_t positions, channels, first, count;
} tl_channel_slice;

/* The same over some channels: d is [positions][count]; mask and scale are those of all channels. */
void tl_requantize_grad_slice(float *d, const uint8_t *mask, const float *scale, const tl_channel_slice *slice);
void tl_mask_grad_slice(float *d, const uint8_t *mask, float scale, const tl_channel_slice *slice);

#endif
