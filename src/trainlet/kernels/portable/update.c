/* A gradient in blocks: scaled, turned into the optimizer's step s, stored. See tl_update.h for the arithmetic.
 *
 * One loop a rule and one a storage, without branches, so that they vectorise across elements.
 */
#include "tl_update.h"

#include "tl_math.h"
#include "tl_random.h"

enum { BLOCK = TL_APPLY_SCRATCH_BYTES / 4 }; /* a few arrays of it are on the stack */

static inline int32_t clamp(int32_t value, int32_t lo, int32_t hi) { return value < lo ? lo : value > hi ? hi : value; }

static inline int64_t clamp64(int64_t value, int64_t lo, int64_t hi) {
  return value < lo ? lo : value > hi ? hi : value;
}

/* The stored values as floats, with their fractions if they have them. */
static void load_values(const tl_update *u, int32_t first, float *value, int32_t count) {
  const int8_t *s8 = u->w;
  const int32_t *s32 = u->w;
  const float *f32 = u->w;
  for (int32_t i = 0; i < count; i++) {
    int32_t at = first + i;
    value[i] = u->stored == TL_T_F32 ? f32[at] : u->stored == TL_T_S8 ? (float)s8[at] : (float)s32[at];
  }
  if (u->stored == TL_T_F32 || u->master != TL_RESIDUAL) return;
  for (int32_t i = 0; i < count; i++) value[i] += (float)u->fraction[first + i] * (1.0f / 256.0f);
}

/* g: gradient in, step out. */
static void steps_of(const tl_update *u, int32_t first, float *g, int32_t count) {
  float w[BLOCK], *m = u->m, *v = u->v;
  load_values(u, first, w, count);
  if (u->rule == TL_SGD) {
    for (int32_t i = 0; i < count; i++) g[i] = u->lr * (g[i] + u->weight_decay * w[i]);
  } else if (u->rule == TL_MOMENTUM) {
    for (int32_t i = 0; i < count; i++) {
      m[first + i] = u->momentum * m[first + i] + (g[i] + u->weight_decay * w[i]);
      g[i] = u->lr * m[first + i];
    }
  } else {
    for (int32_t i = 0; i < count; i++) {
      float mean = u->beta1 * m[first + i] + (1.0f - u->beta1) * g[i];
      float square = u->beta2 * v[first + i] + (1.0f - u->beta2) * (g[i] * g[i]);
      m[first + i] = mean;
      v[first + i] = square;
      g[i] = u->lr * ((mean / u->bias1) / (tl_sqrtf(square / u->bias2) + u->eps) + u->weight_decay * w[i]);
    }
  }
}

/* The loops over int8 are apart from those over 32 bits, which then vectorise for a row of only 16 elements.
 * RESIDUAL has 16 bits: the clamp of tl_floor lies far outside. */
static void store_s8_residual(int8_t *w, int8_t *fraction, const float *step, uint32_t key, uint32_t index,
                              int32_t count) {
  int32_t fine[BLOCK], d[BLOCK];
  for (int32_t i = 0; i < count; i++) fine[i] = w[i] * 256 + fraction[i];
  for (int32_t i = 0; i < count; i++)
    d[i] = (int32_t)tl_floor(step[i] * 256.0f + tl_uniform(key, index + (uint32_t)i));
  for (int32_t i = 0; i < count; i++) fine[i] = clamp(fine[i] - d[i], -32768, 32639);
  for (int32_t i = 0; i < count; i++) {
    int32_t whole = (fine[i] + 128) >> 8;
    w[i] = (int8_t)whole;
    fraction[i] = (int8_t)(fine[i] - whole * 256);
  }
}

static void store_s8(int8_t *w, tl_master master, const float *step, uint32_t key, uint32_t index, int32_t count) {
  float value[BLOCK];
  for (int32_t i = 0; i < count; i++) value[i] = (float)w[i];
  if (master == TL_NEAREST) {
    for (int32_t i = 0; i < count; i++) value[i] = tl_rint(value[i] - step[i]);
  } else {
    for (int32_t i = 0; i < count; i++) value[i] += tl_floor(tl_uniform(key, index + (uint32_t)i) - step[i]);
  }
  for (int32_t i = 0; i < count; i++) w[i] = tl_saturate_s8(value[i]);
}

/* Biases. An integer-valued float step is clipped where every stored type saturates, before it reaches int64. */
static void store_s32(const tl_update *u, const float *step, uint32_t key, int32_t first, int32_t count) {
  int32_t *w = (int32_t *)u->w + first;
  for (int32_t i = 0; i < count; i++) {
    float random = tl_uniform(key, u->first + (uint32_t)(first + i));
    float s = u->master == TL_RESIDUAL ? step[i] * 256.0f : step[i];
    float d = u->master == TL_NEAREST ? tl_rint_any(s) : tl_floor_any(s + random);
    int64_t whole_step = (int64_t)tl_clip(d, -1.0e15f, 1.0e15f);
    if (u->master == TL_RESIDUAL) {
      const int64_t limit = (int64_t)1 << 39;
      int64_t fine = clamp64((int64_t)w[i] * 256 + u->fraction[first + i] - whole_step, -limit, limit - 129);
      w[i] = (int32_t)((fine + 128) >> 8);
      u->fraction[first + i] = (int8_t)(fine - (int64_t)w[i] * 256);
    } else {
      w[i] = (int32_t)clamp64(w[i] - whole_step, INT32_MIN, INT32_MAX);
    }
  }
}

static void store_steps(const tl_update *u, uint32_t key, int32_t first, float *step, int32_t count) {
  uint32_t index = u->first + (uint32_t)first;
  for (int32_t i = 0; i < count; i++) step[i] = step[i] == step[i] ? step[i] : 0.0f; /* NaN: leave the value */
  if (u->stored == TL_T_F32) {
    float *w = (float *)u->w + first;
    for (int32_t i = 0; i < count; i++) w[i] -= step[i];
  } else if (u->stored == TL_T_S32) {
    store_s32(u, step, key, first, count);
  } else if (u->master == TL_RESIDUAL) {
    store_s8_residual((int8_t *)u->w + first, u->fraction + first, step, key, index, count);
  } else {
    store_s8((int8_t *)u->w + first, u->master, step, key, index, count);
  }
}

/* Elements first .. first+count-1, count <= BLOCK, of live channels; g: scaled gradient, overwritten. */
static void update_block(const tl_update *u, uint32_t key, int32_t first, float *g, int32_t count) {
  float *buffer = (float *)u->w + first;
  if (u->rule == TL_STORE) {
    memcpy(buffer, g, (size_t)count * sizeof *g);
  } else if (u->rule == TL_ACCUMULATE) {
    for (int32_t i = 0; i < count; i++) buffer[i] += g[i];
  } else {
    steps_of(u, first, g, count);
    store_steps(u, key, first, g, count);
  }
}

void tl_update_row(const tl_update *u, int32_t row, int32_t col, const float *grad, int32_t count) {
  uint32_t key = tl_random_key(u->seed, u->step, u->stream);
  float factor = u->row_scale ? u->row_scale[row] : 1.0f, g[BLOCK];
  int32_t first = row * u->row_len + col;
  if (factor == 0.0f) {
    if (u->rule == TL_STORE) memset((float *)u->w + first, 0, (size_t)count * sizeof(float));
    return;
  }
  for (int32_t at = 0; at < count; at += BLOCK) {
    int32_t block = count - at < BLOCK ? count - at : BLOCK;
    for (int32_t i = 0; i < block; i++) g[i] = grad[at + i] * factor;
    update_block(u, key, first + at, g, block);
  }
}

/* In runs of live elements. */
void tl_update_vec(const tl_update *u, int32_t first, const float *grad, int32_t count) {
  uint32_t key = tl_random_key(u->seed, u->step, u->stream);
  float g[BLOCK];
  for (int32_t at = 0; at < count;) {
    int32_t live = 0;
    while (at + live < count && live < BLOCK) {
      float factor = u->row_scale ? u->row_scale[first + at + live] : 1.0f;
      if (factor == 0.0f) break;
      g[live] = grad[at + live] * factor;
      live++;
    }
    if (live > 0) {
      update_block(u, key, first + at, g, live);
      at += live;
    } else {
      if (u->rule == TL_STORE) ((float *)u->w)[first + at] = 0.0f;
      at++;
    }
  }
}

static int32_t scaled_block(const float *grad, float grad_factor, int32_t left, float *block) {
  int32_t count = left < BLOCK ? left : BLOCK;
  for (int32_t i = 0; i < count; i++) block[i] = grad[i] * grad_factor;
  return count;
}

void tl_apply(const tl_update *u, const float *grad, int32_t rows, float grad_factor, void *scratch) {
  for (int32_t row = 0; row < rows; row++)
    for (int32_t col = 0; col < u->row_len; col += BLOCK) {
      int32_t count = scaled_block(grad + (row * u->row_len + col), grad_factor, u->row_len - col, scratch);
      tl_update_row(u, row, col, scratch, count);
    }
}

void tl_apply_vec(const tl_update *u, const float *grad, int32_t count, float grad_factor, void *scratch) {
  for (int32_t first = 0; first < count; first += BLOCK)
    tl_update_vec(u, first, scratch, scaled_block(grad + first, grad_factor, count - first, scratch));
}
