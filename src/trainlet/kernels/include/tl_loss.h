/* Softmax and losses with their gradients, fp32. Logits [n][classes]. Sums run in index order from 0. No scratch.
 * Gradients are of the mean loss (seed 1). */
#ifndef TL_LOSS_H
#define TL_LOSS_H

#include "tl_types.h"

/* y = exp(x - max) / sum, per row.   y may be x. */
void tl_softmax_f32(const float *x, int32_t rows, int32_t cols, float *y);

/* dx = y * (dy - sum(dy * y)), per row; y is the forward result.   dx may be dy or y. */
void tl_softmax_grad_f32(const float *y, const float *dy, int32_t rows, int32_t cols, float *dx);

/* *loss = mean over n of (log(sum exp(z - max)) + max - z[label]).   0 <= label < classes. */
void tl_softmax_cross_entropy(const float *logits, const int32_t *label, int32_t n, int32_t classes, float *loss);

/* dlogits = (softmax - onehot) / n.   dlogits may be logits. */
void tl_softmax_cross_entropy_grad(const float *logits, const int32_t *label, int32_t n, int32_t classes,
                                   float *dlogits);

/* *loss = mean over n of sum over classes of max(z, 0) - z * target + log(1 + exp(-|z|)). */
void tl_sigmoid_cross_entropy(const float *logits, const float *target, int32_t n, int32_t classes, float *loss);

/* dlogits = (sigmoid(z) - target) / n.   dlogits may be logits. */
void tl_sigmoid_cross_entropy_grad(const float *logits, const float *target, int32_t n, int32_t classes,
                                   float *dlogits);

/* *loss = mean over all elements of (y - target)^2. */
void tl_mse(const float *y, const float *target, int32_t count, float *loss);

/* dy = 2 (y - target) / count.   dy may be y. */
void tl_mse_grad(const float *y, const float *target, int32_t count, float *dy);

#endif
