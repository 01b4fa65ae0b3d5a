#include "tl_norm.h"

#include "tl_math.h"

enum { SUMS = 8, BLOCK = 64 };

static inline float tree(const float s[SUMS]) { return ((s[0] + s[4]) + (s[2] + s[6])) + ((s[1] + s[5]) + (s[3] + s[7])); }

static float mean_of(const float *x, int32_t c) {
  float s[SUMS] = {0}, count = (float)c;
  int32_t i = 0;
  for (; i + SUMS <= c; i += SUMS)
    for (int j = 0; j < SUMS; j++) s[j] += x[i + j];
  for (int j = 0; i < c; i++, j++) s[j] += x[i];
  return tree(s) / count;
}

/* 1 / sqrt(mean((x - mean)^2) + eps) */
static float rstd_of(const float *x, float mean, float eps, int32_t c) {
  float s[SUMS] = {0}, count = (float)c;
  int32_t i = 0;
  for (; i + SUMS <= c; i += SUMS)
    for (int j = 0; j < SUMS; j++) s[j] += (x[i + j] - mean) * (x[i + j] - mean);
  for (int j = 0; i < c; i++, j++) s[j] += (x[i] - mean) * (x[i] - mean);
  return 1.0f / tl_sqrtf(tree(s) / count + eps);
}

void tl_layer_norm_f32(const float *x, const float *gamma, const float *beta, float eps, int32_t rows, int32_t c,
                       float *y) {
  for (int32_t r = 0; r < rows; r++, x += c, y += c) {
    float mean = mean_of(x, c), rstd = rstd_of(x, mean, eps, c);
    for (int32_t i = 0; i < c; i++) y[i] = (x[i] - mean) * rstd;
    for (int32_t i = 0; gamma && i < c; i++) y[i] *= gamma[i];
    for (int32_t i = 0; beta && i < c; i++) y[i] += beta[i];
  }
}

void tl_layer_norm_input_grad(const float *dy, const float *x, const float *gamma, float eps, int32_t rows, int32_t c,
                              float *dx) {
  for (int32_t r = 0; r < rows; r++, x += c, dy += c, dx += c) {
    float mean = mean_of(x, c), rstd = rstd_of(x, mean, eps, c), sum[SUMS] = {0}, dot[SUMS] = {0};
    for (int32_t i = 0; i < c; i++) {
      float g = gamma ? dy[i] * gamma[i] : dy[i];
      sum[i % SUMS] += g;
      dot[i % SUMS] += g * ((x[i] - mean) * rstd);
    }
    float a = tree(sum) / (float)c, b = tree(dot) / (float)c;
    for (int32_t i = 0; i < c; i++) {
      float g = gamma ? dy[i] * gamma[i] : dy[i];
      dx[i] = rstd * ((g - a) - ((x[i] - mean) * rstd) * b);
    }
  }
}

void tl_layer_norm_scale_grad(const float *dy, const float *x, float eps, int32_t rows, int32_t c, float *dgamma) {
  for (int32_t i = 0; i < c; i++) dgamma[i] = 0.0f;
  for (int32_t r = 0; r < rows; r++, x += c, dy += c) {
    float mean = mean_of(x, c), rstd = rstd_of(x, mean, eps, c);
    for (int32_t i = 0; i < c; i++) dgamma[i] += dy[i] * ((x[i] - mean) * rstd);
  }
}

static void normalize(const float *x, const float *mean, const float *rstd, const float *gamma, const float *beta,
                      int32_t rows, int32_t c, float *y) {
  for (int32_t r = 0; r < rows; r++, x += c, y += c) {
    for (int32_t i = 0; i < c; i++) y[i] = (x[i] - mean[i]) * rstd[i];
    for (int32_t i = 0; gamma && i < c; i++) y[i] *= gamma[i];
    for (int32_t i = 0; beta && i < c; i++) y[i] += beta[i];
  }
}

void tl_batch_norm_f32(const float *x, const float *gamma, const float *beta, const float *mean, const float *var,
                       float eps, int32_t rows, int32_t c, float *y, void *scratch) {
  float *rstd = scratch;
  for (int32_t i = 0; i < c; i++) rstd[i] = 1.0f / tl_sqrtf(var[i] + eps);
  normalize(x, mean, rstd, gamma, beta, rows, c, y);
}

/* total = sum over rows of x, or of (x - mean)^2 where mean is given; block: c floats. */
static void sum_rows(const float *x, const float *mean, int32_t rows, int32_t c, float *total, float *block) {
  for (int32_t i = 0; i < c; i++) total[i] = 0.0f;
  for (int32_t first = 0; first < rows; first += BLOCK) {
    for (int32_t i = 0; i < c; i++) block[i] = 0.0f;
    for (int32_t r = first; r < rows && r < first + BLOCK; r++, x += c) {
      if (mean) {
        for (int32_t i = 0; i < c; i++) block[i] += (x[i] - mean[i]) * (x[i] - mean[i]);
      } else {
        for (int32_t i = 0; i < c; i++) block[i] += x[i];
      }
    }
    for (int32_t i = 0; i < c; i++) total[i] += block[i];
  }
}

void tl_batch_norm_train_f32(const float *x, const float *gamma, const float *beta, const tl_batch_statistics *s,
                             int32_t rows, int32_t c, float *y, void *scratch) {
  float count = (float)rows, *var = s->batch_rstd;
  sum_rows(x, NULL, rows, c, s->batch_mean, scratch);
  for (int32_t i = 0; i < c; i++) s->batch_mean[i] /= count;
  sum_rows(x, s->batch_mean, rows, c, var, scratch);
  for (int32_t i = 0; i < c; i++) {
    float unbiased = var[i] / (count - 1.0f);
    s->new_mean[i] = (1.0f - s->momentum) * s->mean[i] + s->momentum * s->batch_mean[i];
    s->new_var[i] = (1.0f - s->momentum) * s->var[i] + s->momentum * unbiased;
    s->batch_rstd[i] = 1.0f / tl_sqrtf(var[i] / count + s->eps);
  }
  normalize(x, s->batch_mean, s->batch_rstd, gamma, beta, rows, c, y);
}

void tl_batch_norm_scale_grad(const float *dy, const float *x, const float *batch_mean, const float *batch_rstd,
                              int32_t rows, int32_t c, float *dgamma, void *scratch) {
  float *block = scratch;
  for (int32_t i = 0; i < c; i++) dgamma[i] = 0.0f;
  for (int32_t first = 0; first < rows; first += BLOCK) {
    for (int32_t i = 0; i < c; i++) block[i] = 0.0f;
    for (int32_t r = first; r < rows && r < first + BLOCK; r++, x += c, dy += c)
      for (int32_t i = 0; i < c; i++) block[i] += dy[i] * ((x[i] - batch_mean[i]) * batch_rstd[i]);
    for (int32_t i = 0; i < c; i++) dgamma[i] += block[i];
  }
}

void tl_batch_norm_input_grad(const float *dy, const float *x, const float *gamma, const float *batch_mean,
                              const float *batch_rstd, const float *dgamma, const float *dbeta, int32_t rows,
                              int32_t c, float *dx) {
  float share = 1.0f / (float)rows;
  for (int32_t r = 0; r < rows; r++, x += c, dy += c, dx += c)
    for (int32_t i = 0; i < c; i++) {
      float hat = (x[i] - batch_mean[i]) * batch_rstd[i];
      float scale = gamma ? gamma[i] * batch_rstd[i] : batch_rstd[i];
      dx[i] = scale * ((dy[i] - dbeta[i] * share) - hat * (dgamma[i] * share));
    }
}
