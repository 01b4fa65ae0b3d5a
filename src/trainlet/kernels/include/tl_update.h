/* What happens to a gradient: kept, accumulated, or applied to the trained tensor by an optimizer.
 *
 * g' = g * row_scale.  A row (tl_update_vec: an element) whose factor is exactly 0 is a dead channel: it is not
 * touched, except that TL_STORE writes 0 there so that the gradient buffer is always defined.
 *   TL_STORE       w = g'                      TL_ACCUMULATE  w = w + g'         (w: float gradient buffer)
 *   TL_SGD         s = lr * (g' + weight_decay * w)
 *   TL_MOMENTUM    m = momentum * m + (g' + weight_decay * w);  s = lr * m
 *   TL_ADAMW       m = beta1 * m + (1 - beta1) * g';  v = beta2 * v + (1 - beta2) * (g' * g')
 *                  s = lr * ((m / bias1) / (sqrt(v / bias2) + eps) + weight_decay * w)
 * in fp32, each operation rounded, never fused. w is the value as stored (RESIDUAL: with its fraction, W / 256).
 *
 * Storing the step s, u = tl_uniform(key, first + element index) in [0, 1):
 *   S8  NEAREST     sat8(rint(w - s))
 *   S8  STOCHASTIC  sat8(w + floor(u - s))          (not floor((w - s) + u): near w = 100 that addition is rounded)
 *   S8  RESIDUAL    W = 256 w + fraction; W -= floor(256 s + u), saturated to [-32768, 32639];
 *                   w = (W + 128) >> 8, fraction = W - 256 w in [-128, 127]
 *   S32 NEAREST     w - rint(s);  STOCHASTIC  w - floor(s + u);  in int64, saturated to int32
 *   S32 RESIDUAL    as S8, in int64, saturated to [-2^39, 2^39 - 129]
 *   F32             w - s   (whatever master says)
 * A NaN step leaves the stored value as it is (the slots m, v may become NaN: the loss check has to notice); an
 * infinite one saturates. A step of 0 changes nothing under any rounding. RESIDUAL needs `fraction`, MOMENTUM `m`,
 * ADAMW `m` and `v`; unused pointers may be NULL.
 */
#ifndef TL_UPDATE_H
#define TL_UPDATE_H

#include "tl_types.h"

typedef enum { TL_STORE, TL_ACCUMULATE, TL_SGD, TL_MOMENTUM, TL_ADAMW } tl_rule;
typedef enum { TL_FP32, TL_RESIDUAL, TL_STOCHASTIC, TL_NEAREST } tl_master;
typedef enum { TL_T_F32, TL_T_S8, TL_T_S32 } tl_stored;

typedef struct {
  tl_rule rule;
  tl_master master;
  tl_stored stored;
  void *w;                /* [rows][row_len] of the stored type; STORE, ACCUMULATE: float */
  int8_t *fraction;       /* RESIDUAL: the low 8 bits, same shape */
  float *m, *v;           /* optimizer slots, same shape */
  int32_t row_len;
  const float *row_scale; /* [rows] (vec: [elements]); NULL: 1 */
  float lr, momentum, beta1, beta2, eps, weight_decay;
  float bias1, bias2;     /* 1 - beta1^t, 1 - beta2^t */
  uint32_t seed, step, stream;
  uint32_t first;         /* index of w[0] in the whole tensor, of which these may be some rows */
} tl_update;

/* Elements row * row_len + col + (0 .. count-1), all scaled by row_scale[row]. */
void tl_update_row(const tl_update *u, int32_t row, int32_t col, const float *grad, int32_t count);

/* Elements first + (0 .. count-1), each scaled by its own row_scale[element]. */
void tl_update_vec(const tl_update *u, int32_t first, const float *grad, int32_t count);

#define TL_APPLY_SCRATCH_BYTES 128

/* An accumulated gradient [rows][row_len]: every row through tl_update_row with grad * grad_factor. */
void tl_apply(const tl_update *u, const float *grad, int32_t rows, float grad_factor, void *scratch);

/* The same for a vector of `count` elements through tl_update_vec. */
void tl_apply_vec(const tl_update *u, const float *grad, int32_t count, float grad_factor, void *scratch);

#endif
