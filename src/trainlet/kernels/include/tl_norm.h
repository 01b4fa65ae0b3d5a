/* Normalization of x [rows][c], by row (layer) or by channel (batch), and its gradients.
 *
 * gamma, beta: [c] or NULL (1 and 0). Sums over a row: 8 sums, element i into sum i mod 8, then added in a fixed tree.
 * Sums over rows: blocks of 64 rows from 0, each block's sum then added to the total. Both are the same on every
 * target.
 */
#ifndef TL_NORM_H
#define TL_NORM_H

#include "tl_types.h"

/* y = (x - mean) / sqrt(var + eps) * gamma + beta, mean and (biased) var of the row.   y may be x. */
void tl_layer_norm_f32(const float *x, const float *gamma, const float *beta, float eps, int32_t rows, int32_t c,
                       float *y);

/* dx = (g - mean(g) - xhat * mean(g * xhat)) / sigma, g = dy * gamma.   dx may be dy. */
void tl_layer_norm_input_grad(const float *dy, const float *x, const float *gamma, float eps, int32_t rows, int32_t c,
                              float *dx);

/* dgamma = sum over rows of dy * xhat, rows ascending. */
void tl_layer_norm_scale_grad(const float *dy, const float *x, float eps, int32_t rows, int32_t c, float *dgamma);

/* y = (x - mean) / sqrt(var + eps) * gamma + beta with given statistics [c].   y may be x.   scratch: c floats. */
void tl_batch_norm_f32(const float *x, const float *gamma, const float *beta, const float *mean, const float *var,
                       float eps, int32_t rows, int32_t c, float *y, void *scratch);

typedef struct {
  const float *mean, *var;       /* running statistics before */
  float *new_mean, *new_var;     /* and after; may be the same memory */
  float *batch_mean, *batch_rstd; /* of these rows, for the gradient */
  float eps, momentum;
} tl_batch_statistics;

/* y = (x - batch mean) * batch rstd * gamma + beta.   running = (1 - momentum) * running + momentum * batch, the
 * variance unbiased; rows > 1. scratch: c floats. */
void tl_batch_norm_train_f32(const float *x, const float *gamma, const float *beta, const tl_batch_statistics *s,
                             int32_t rows, int32_t c, float *y, void *scratch);

/* dgamma = sum over rows of dy * xhat.   scratch: c floats. */
void tl_batch_norm_scale_grad(const float *dy, const float *x, const float *batch_mean, const float *batch_rstd,
                              int32_t rows, int32_t c, float *dgamma, void *scratch);

/* dx = gamma * rstd * (dy - dbeta / rows - xhat * dgamma / rows).   dx may be dy. */
void tl_batch_norm_input_grad(const float *dy, const float *x, const float *gamma, const float *batch_mean,
                              const float *batch_rstd, const float *dgamma, const float *dbeta, int32_t rows,
                              int32_t c, float *dx);

#endif
