#include "tl_weights.h"

#include "tl_math.h"

/* Exactly one of f32, s16 is the destination. */
typedef struct {
  float *f32;
  int16_t *s16;
  int32_t step;
} destination;

/* The integer that a float master stands for, minus the zero point. */
static inline float master(float w, int32_t zero) { return tl_clip(tl_rint(w) - (float)zero, -32768.0f, 32767.0f); }

static void read_f32(tl_weight_kind kind, const void *from, int32_t zero, int32_t index, int32_t count, float *out,
                     int32_t step) {
  if (kind == TL_W_S8) {
    const int8_t *w = (const int8_t *)from + index;
    for (int32_t i = 0; i < count; i++) out[i * step] = (float)(w[i] - zero);
  } else if (kind == TL_W_F32) {
    const float *w = (const float *)from + index;
    for (int32_t i = 0; i < count; i++) out[i * step] = w[i];
  } else {
    const float *w = (const float *)from + index;
    for (int32_t i = 0; i < count; i++) out[i * step] = master(w[i], zero);
  }
}

static void read_s16(tl_weight_kind kind, const void *from, int32_t zero, int32_t index, int32_t count, int16_t *out,
                     int32_t step) {
  if (kind == TL_W_S8) {
    const int8_t *w = (const int8_t *)from + index;
    for (int32_t i = 0; i < count; i++) out[i * step] = (int16_t)(w[i] - zero);
  } else {
    const float *w = (const float *)from + index;
    for (int32_t i = 0; i < count; i++) out[i * step] = (int16_t)master(w[i], zero);
  }
}

/* A run of `count` weights at `index` of one tensor to places first, first + 1, ... of the destination. The constant
 * step lets the contiguous case vectorise. */
static void read_run(tl_weight_kind kind, const void *from, int32_t zero, int32_t index, int32_t count,
                     const destination *to, int32_t first) {
  if (to->s16) {
    read_s16(kind, from, zero, index, count, to->s16 + first * to->step, to->step);
  } else if (to->step == 1) {
    read_f32(kind, from, zero, index, count, to->f32 + first, 1);
  } else {
    read_f32(kind, from, zero, index, count, to->f32 + first * to->step, to->step);
  }
}

/* The first j with channels[j] >= channel. */
static int32_t lower_bound(const uint16_t *channels, int32_t k, int32_t channel) {
  int32_t low = 0, high = k;
  while (low < high) {
    int32_t middle = (low + high) / 2;
    if (channels[middle] < channel) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return low;
}

/* base: [o][taps][c], columns flat over (tap, channel); trained: [o][taps][k] replaces the columns of its channels.
 * */
static void load(const tl_weights *w, int32_t taps, int32_t c, int32_t row, int32_t col, int32_t count,
                 const destination *to) {
  read_run(w->kind_base, w->base, w->zero, row * taps * c + col, count, to, 0);
  if (!w->trained) return;
  for (int32_t tap = col / c; tap * c < col + count; tap++) {
    int32_t first = col - tap * c, end = first + count;
    const int32_t trained_row = (row * taps + tap) * w->k;
    for (int32_t j = first > 0 ? lower_bound(w->channels, w->k, first) : 0; j < w->k && w->channels[j] < end; j++)
      read_run(w->kind_trained, w->trained, w->zero, trained_row + j, 1, to, w->channels[j] - first);
  }
}

void tl_load_weights(const tl_weights *w, int32_t taps, int32_t c, int32_t row, int32_t col, int32_t count, float *out,
                     int32_t step) {
  const destination to = {out, NULL, step};
  load(w, taps, c, row, col, count, &to);
}

void tl_load_weights_s16(const tl_weights *w, int32_t taps, int32_t c, int32_t row, int32_t col, int32_t count,
                         int16_t *out, int32_t step) {
  const destination to = {NULL, out, step};
  load(w, taps, c, row, col, count, &to);
}

/* base: [o][taps]; trained: [k][taps] replaces the rows of its channels. */
static void load_taps(const tl_weights *w, int32_t taps, int32_t channel, const destination *to) {
  if (w->trained) {
    int32_t j = lower_bound(w->channels, w->k, channel);
    if (j < w->k && w->channels[j] == channel) {
      read_run(w->kind_trained, w->trained, w->zero, j * taps, taps, to, 0);
      return;
    }
  }
  read_run(w->kind_base, w->base, w->zero, channel * taps, taps, to, 0);
}

void tl_load_taps(const tl_weights *w, int32_t taps, int32_t channel, float *out, int32_t step) {
  const destination to = {out, NULL, step};
  load_taps(w, taps, channel, &to);
}

void tl_load_taps_s16(const tl_weights *w, int32_t taps, int32_t channel, int16_t *out, int32_t step) {
  const destination to = {NULL, out, step};
  load_taps(w, taps, channel, &to);
}

void tl_load_bias_s32(const tl_bias *b, int32_t o, int32_t width, int32_t *out) {
  for (int32_t j = 0; j < width; j++) {
    out[j] = 0;
    if (b->s32) out[j] = b->s32[o + j];
    /* 2147483520 is the largest float below 2^31 */
    if (b->f32) out[j] = (int32_t)tl_clip(tl_rint_any(b->f32[o + j]), -2147483648.0f, 2147483520.0f);
  }
}

void tl_load_bias(const tl_bias *b, int32_t o, int32_t width, int32_t lanes, float *out) {
  for (int32_t j = 0; j < lanes; j++) {
    out[j] = 0.0f;
    if (j >= width) continue;
    if (b->s32) out[j] = (float)b->s32[o + j];
    if (b->f32) out[j] = b->f32[o + j];
  }
}
