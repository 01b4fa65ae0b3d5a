#include "tl_step.h"

#include <math.h>

#include "tl_parallel.h"

enum { GRAIN = 1024 };

static void adamw(const tl_update *u, float *restrict w, float *restrict m, float *restrict v, const float *restrict g,
                  float factor, int32_t count) {
  const float rest1 = 1.0f - u->beta1, rest2 = 1.0f - u->beta2, one = 1.0f / u->bias1, two = 1.0f / u->bias2;
  for (int32_t i = 0; i < count; i++) {
    float grad = g[i] * factor;
    m[i] = u->beta1 * m[i] + rest1 * grad;
    v[i] = u->beta2 * v[i] + rest2 * (grad * grad);
    w[i] -= u->lr * ((m[i] * one) / (sqrtf(v[i] * two) + u->eps) + u->weight_decay * w[i]);
  }
}

static void range(const tl_update *u, int32_t first, const float *restrict g, float factor, int32_t count) {
  float *restrict w = (float *)u->w + first;
  const float lr = u->lr, decay = u->weight_decay, momentum = u->momentum;
  switch (u->rule) {
    case TL_STORE:
      for (int32_t i = 0; i < count; i++) w[i] = g[i] * factor;
      break;
    case TL_ACCUMULATE:
      for (int32_t i = 0; i < count; i++) w[i] += g[i] * factor;
      break;
    case TL_SGD:
      for (int32_t i = 0; i < count; i++) w[i] -= lr * (g[i] * factor + decay * w[i]);
      break;
    case TL_MOMENTUM: {
      float *restrict m = u->m + first;
      for (int32_t i = 0; i < count; i++) {
        m[i] = momentum * m[i] + (g[i] * factor + decay * w[i]);
        w[i] -= lr * m[i];
      }
      break;
    }
    case TL_ADAMW: adamw(u, w, u->m + first, u->v + first, g, factor, count); break;
  }
}

void tl_step_range(const tl_update *u, int32_t first, const float *grad, int32_t count) {
  range(u, first, grad, 1.0f, count);
}

void tl_step_part(const void *step, int32_t part, int32_t parts) {
  const tl_step_all *s = step;
  int32_t first = tl_bound(s->count, GRAIN, part, parts), last = tl_bound(s->count, GRAIN, part + 1, parts);
  range(s->u, first, s->grad + first, s->factor, last - first);
}
