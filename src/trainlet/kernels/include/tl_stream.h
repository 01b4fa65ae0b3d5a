/* A chain of int8 convolutions computed row by row: of the tensors between them only a few rows exist at a time.
 *
 * Exactly the layer-by-layer results: each row of each stage is computed once, by the ordinary kernels.
 */
#ifndef TL_STREAM_H
#define TL_STREAM_H

#include "tl_conv.h"

#define TL_STREAM_STAGES 16

typedef enum { TL_STREAM_CONV, TL_STREAM_DEPTHWISE, TL_STREAM_ADD } tl_stream_kind;

/* One stage. shape: of the whole convolution; an ADD has kernel 1, stride 1, and adds the chain's input, row by row, as its
 * second operand (x_scale: of its first operand, the stage before; b_zero, b_scale: of the chain's input). */
typedef struct {
  tl_stream_kind kind;
  const tl_conv_shape *shape;
  tl_weights weights;
  tl_bias bias;
  const float *scale;
  int32_t x_zero, y_zero, b_zero;
  float x_scale, b_scale, y_scale;
} tl_stream_stage;

/* y = the last stage of the chain on x, images one after another.
 * windows: for each stage i but the last, in order, the rows of its result that stage i + 1 reads for one row:
 * ((kh - 1) * dh + 1 of stage i + 1, at most all) * ow * o bytes. scratch: the largest of the stages' kernels.
 * 1 <= count <= TL_STREAM_STAGES; y aliases neither x nor windows. */
void tl_stream_s8(const tl_stream_stage *stages, int32_t count, const int8_t *x, int8_t *y, int8_t *windows,
                  void *scratch);

#endif
