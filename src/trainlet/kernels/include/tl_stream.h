/* A chain of int8 convolutions, maxima and sums computed row by row: of the tensors between them only a few rows exist.
 *
 * Exactly the layer-by-layer results: each row of each stage is computed at most once, by the ordinary kernels.
 */
#ifndef TL_STREAM_H
#define TL_STREAM_H

#include "tl_conv.h"
#include "tl_pointwise_s8.h"
#include "tl_pool.h"

#define TL_STREAM_STAGES 64
#define TL_STREAM_NONE (-128)

typedef enum { TL_STREAM_CONV, TL_STREAM_DEPTHWISE, TL_STREAM_ADD, TL_STREAM_MAX } tl_stream_kind;

/* An image that comes by rows: read puts rows first .. first + count - 1 to `to`, in ascending order and none twice.
 * The rows of several images are numbered through; the chain's first is row `first`. */
typedef struct {
  void (*read)(void *context, int32_t first, int32_t count, int8_t *to);
  void *context;
  int32_t first;
} tl_rows;

/* Where the rows that exist of one tensor lie: `rows` of them, from byte `at` of the chain's memory on. ring: every reader
 * wants one row at a time, so row r is at place r % rows; else they are in order. readers: stages, or TL_STREAM_NONE. */
typedef struct {
  int32_t at, rows, ring;
  int8_t readers[2];
} tl_stream_window;

/* y = a + b, in fp32 (tl_add_s8) or in TFLite's integers (tl_add_s8_fixed). */
typedef struct {
  int32_t fixed, lo, hi;
  float a_scale, b_scale, y_scale;
  tl_fixed_side a, b, y; /* of fp32: their zero points */
} tl_stream_sum;

/* One stage. sources: stage i, or -1 - k for given tensor k; a sum has two. shape: of the whole convolution or pool; a sum has
 * kernel 1, stride 1, and is described by `sum`. fixed: NULL where the rescaling is `scale`, in fp32. window: unused in the last. */
typedef struct {
  tl_stream_kind kind;
  int8_t sources[2];
  tl_stream_window window;
  const tl_conv_shape *shape;
  const int8_t *weights;
  const int32_t *bias;
  const float *scale;
  const tl_fixed *fixed;
  const tl_stream_sum *sum;
  int32_t w_zero, x_zero, y_zero;
} tl_stream_stage;

/* stages: at most TL_STREAM_STAGES. image: the window of given tensor 0 where it comes by rows. */
typedef struct {
  const tl_stream_stage *stages;
  int32_t count;
  tl_stream_window image;
} tl_stream_chain;

/* y = the last stage of the chain, images one after another.
 * given: the tensors that stages read, whole; with `rows` (else NULL) given[0] is not read, it comes by rows.
 * windows: 4-byte aligned; in front what is noted of each stage and the image, 6 bytes, then the windows.
 * scratch: the largest of the stages' kernels. y aliases nothing else. */
void tl_stream_s8(const tl_stream_chain *chain, const int8_t *const *given, const tl_rows *rows, int8_t *y,
                  int8_t *windows, void *scratch);

#endif
