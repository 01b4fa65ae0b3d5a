#include "tl_loss.h"

#include "tl_math.h"

static float largest(const float *x, int32_t count) {
  float best = x[0];
  for (int32_t i = 1; i < count; i++) best = x[i] > best ? x[i] : best;
  return best;
}

void tl_softmax_f32(const float *x, int32_t rows, int32_t cols, float *y) {
  for (int32_t r = 0; r < rows; r++) {
    const float *from = x + r * cols;
    float *to = y + r * cols, top = largest(from, cols), sum = 0.0f;
    for (int32_t i = 0; i < cols; i++) {
      to[i] = tl_expf(from[i] - top);
      sum += to[i];
    }
    for (int32_t i = 0; i < cols; i++) to[i] /= sum;
  }
}

void tl_softmax_grad_f32(const float *y, const float *dy, int32_t rows, int32_t cols, float *dx) {
  for (int32_t r = 0; r < rows; r++) {
    float dot = 0.0f;
    for (int32_t i = r * cols; i < (r + 1) * cols; i++) dot += dy[i] * y[i];
    for (int32_t i = r * cols; i < (r + 1) * cols; i++) dx[i] = y[i] * (dy[i] - dot);
  }
}

/* log(sum exp(z)) - z[label] for one row, the maximum taken out first. */
static float cross_entropy(const float *z, int32_t label, int32_t classes) {
  float top = largest(z, classes), sum = 0.0f;
  for (int32_t i = 0; i < classes; i++) sum += tl_expf(z[i] - top);
  return tl_logf(sum) + (top - z[label]);
}

void tl_softmax_cross_entropy(const float *logits, const int32_t *label, int32_t n, int32_t classes, float *loss) {
  float sum = 0.0f;
  for (int32_t r = 0; r < n; r++) sum += cross_entropy(logits + r * classes, label[r], classes);
  *loss = sum / (float)n;
}

void tl_softmax_cross_entropy_grad(const float *logits, const int32_t *label, int32_t n, int32_t classes,
                                   float *dlogits) {
  tl_softmax_f32(logits, n, classes, dlogits);
  for (int32_t r = 0; r < n; r++) {
    dlogits[r * classes + label[r]] -= 1.0f;
    for (int32_t i = r * classes; i < (r + 1) * classes; i++) dlogits[i] /= (float)n;
  }
}

void tl_sigmoid_cross_entropy(const float *logits, const float *target, int32_t n, int32_t classes, float *loss) {
  float sum = 0.0f;
  for (int32_t i = 0; i < n * classes; i++) {
    float z = logits[i], positive = z > 0.0f ? z : 0.0f;
    sum += (positive - z * target[i]) + tl_log1pf(tl_expf(z > 0.0f ? -z : z));
  }
  *loss = sum / (float)n;
}

void tl_sigmoid_cross_entropy_grad(const float *logits, const float *target, int32_t n, int32_t classes,
                                   float *dlogits) {
  for (int32_t i = 0; i < n * classes; i++) dlogits[i] = (tl_sigmoidf(logits[i]) - target[i]) / (float)n;
}

void tl_mse(const float *y, const float *target, int32_t count, float *loss) {
  float sum = 0.0f;
  for (int32_t i = 0; i < count; i++) sum += (y[i] - target[i]) * (y[i] - target[i]);
  *loss = sum / (float)count;
}

void tl_mse_grad(const float *y, const float *target, int32_t count, float *dy) {
  for (int32_t i = 0; i < count; i++) dy[i] = 2.0f * (y[i] - target[i]) / (float)count;
}
