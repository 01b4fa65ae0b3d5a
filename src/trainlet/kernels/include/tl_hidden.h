/* The gradient through a hidden layer by groups of its channels, so that it never exists whole.
 *
 *   dy -> dx of the reader -> clamp, bias [-> dx of a depthwise convolution -> clamp, bias] -> dw and dx of the maker
 *
 * Bit for bit what the functions of tl_conv.h give one after another on whole tensors: each of them works channel by
 * channel, and dx of the maker takes its groups in ascending order. A group is updated after its weights were read.
 */
#ifndef TL_HIDDEN_H
#define TL_HIDDEN_H

#include "tl_conv.h"

/* d = mask ? d * scale[c] : 0 (scale NULL: d * factor), then the bias gradient of what is left. mask NULL: no clamp.
 * bias NULL: frozen. */
typedef struct {
  const uint8_t *mask;
  const float *scale;
  float factor;
  const tl_update *bias;
} tl_clamp_grad;

/* One convolution of the chain. shape NULL: there is none. update NULL: its weights are frozen. weights NULL (depthwise,
 * maker): its dx is not wanted, the chain ends there. */
typedef struct {
  const tl_conv_shape *shape;
  const tl_weights *weights;
  const tl_grad_x *x;
  const tl_update *update;
} tl_conv_grads;

/* reader: groups == 1, its c are the hidden channels, its x and update are not used. depthwise: weights without trained
 * channels, x with all channels. maker: groups == 1, its o are the hidden channels; kh * kw == 1 where dx is wanted. */
typedef struct {
  int32_t group; /* channels at a time */
  tl_conv_grads reader, depthwise, maker;
  tl_clamp_grad inner, outer; /* behind the reader, behind the depthwise convolution (unused without one) */
  int32_t overwrite; /* the depthwise dx takes the memory of its dy: stride 1, same extents, weights frozen */
} tl_hidden_chain;

/* dx (NULL: not wanted) (+)= ...; accumulate = 0: dx is overwritten.
 * work: group (at most all channels) * (positions the reader reads + unless overwrite: positions the maker makes) floats; without a depthwise
 * convolution the first only.
 * scratch: the largest of TL_CONV_SCRATCH_BYTES, TL_BIAS_GRAD_SCRATCH_BYTES and what the depthwise function needs. */
void tl_hidden_grad(const tl_hidden_chain *chain, const float *dy, float *dx, int32_t accumulate, float *work,
                    void *scratch);

#endif
