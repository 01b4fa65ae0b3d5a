/* The types that the kernels share: shapes, weights with a trained overlay, biases.
 *
 * Layouts: activations NHWC; convolution weights OHWI = [o][kh][kw][c / groups].
 * A mask holds one bit per element: element i (flat NHWC index) is bit (i & 7) of byte i >> 3, 1 lets the gradient
 * pass. It takes TL_MASK_BYTES(n) bytes; all of them are written and the unused bits of the last are 0.
 * Every tensor has fewer than 2^31 elements. Pointers do not alias unless a contract says so.
 * Scratch is the caller's, 8-byte aligned, its contents are free before and meaningless after a call.
 */
#ifndef TL_TYPES_H
#define TL_TYPES_H

#include <stddef.h>
#include <stdint.h>

#define TL_MASK_BYTES(n) (((n) + 7) / 8)

/* Neighbouring outputs that a kernel computes at once (tl_block.h): the wider, the more scratch. */
#ifndef TL_LANES
#if defined(__AVX512F__) || defined(__aarch64__) || (defined(__x86_64__) && defined(__clang__))
#define TL_LANES 16
#elif defined(__x86_64__) /* gcc takes lanes that are wider than a register apart, element by element */
#define TL_LANES 8
#else
#define TL_LANES 4
#endif
#endif

/* Scratch of every dense kernel: convolution forward, input gradient, weight gradient, matrix product. */
#ifndef TL_CONV_SCRATCH_BYTES
#define TL_CONV_SCRATCH_BYTES (TL_LANES > 4 ? 4096 : 2048)
#endif

/* Stride sh, sw; padding above pt and on the left pl (below and on the right implied by oh, ow); dilation dh, dw.
 * Pooling uses the same struct with o == c, groups == c. */
typedef struct {
  int32_t n, h, w, c, oh, ow, o, kh, kw, sh, sw, pt, pl, dh, dw, groups;
} tl_conv_shape;

typedef enum {
  TL_W_S8,         /* int8 */
  TL_W_F32_MASTER, /* float that stands for an integer: read rounded half to even, saturated to 16 bits */
  TL_W_F32         /* float */
} tl_weight_kind;

/* The weights of a convolution: a base tensor, and optionally a trained subset that overlays it.
 * base:     [o][kh][kw][c/g].
 * zero:     zero point of quantized weights, subtracted from each as it is read (0: symmetric, or float).
 * trained:  NULL, or [o][kh][kw][k] that replaces input channels channels[0..k-1] (ascending, along c/g).
 *           Depthwise: [k][kh][kw] that replaces the rows of output channels channels[0..k-1].
 * Integer kernels take kinds S8 and F32_MASTER only. */
typedef struct {
  tl_weight_kind kind_base;
  const void *base;
  const void *trained;
  tl_weight_kind kind_trained;
  const uint16_t *channels;
  int32_t k;
  int32_t zero;
} tl_weights;

/* Rescaling in fixed point, as TFLite defines it (tl_fixed.h).
 * rescale: [2][o], the multipliers, then the shifts; a result is clamped to lo .. hi. once: one rounding. */
typedef struct {
  const int32_t *rescale;
  int32_t lo, hi, once;
} tl_fixed;

/* At most one pointer is set; none means zero. A float bias of an integer kernel is used as it is, unrounded. */
typedef struct {
  const int32_t *s32;
  const float *f32;
} tl_bias;

/* A saved input of a convolution, restricted to the k channels whose weights are updated: [n][h][w][k].
 * Exactly one pointer is set; zero is the zero point of s8. */
typedef struct {
  const int8_t *s8;
  const float *f32;
  int32_t zero;
  int32_t k;
} tl_grad_x;

#endif
