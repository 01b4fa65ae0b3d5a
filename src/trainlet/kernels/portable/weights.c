#include "tl_weights.h"

#include "tl_math.h"

/* Exactly one of f32, s16 is the destination. */
typedef struct {
  float *f32;
  int16_t *s16;
  int32_t step;
} destination;

static void read_f32(tl_weight_kind kind, const void *from, int32_t index, int32_t count, float *out, int32_t step) {
  if (kind == TL_W_S8) {
    const int8_t *w = (const int8_t *)from + index;
    for (int32_t i = 0; i < count; i++) out[i * step] = (float)w[i];
  } else if (kind == TL_W_F32) {
    const float *w = (const float *)from + index;
    for (int32_t i = 0; i < count; i++) out[i * step] = w[i];
  } else {
    const float *w = (const float *)from + index;
    for (int32_t i = 0; i < count; i++) out[i * step] = tl_clip(tl_rint(w[i]), -32768.0f, 32767.0f);
  }
}

static void read_s16(tl_weight_kind kind, const void *from, int32_t index, int32_t count, int16_t *out, int32_t step) {
  if (kind == TL_W_S8) {
    const int8_t *w = (const int8_t *)from + index;
    for (int32_t i = 0; i < count; i++) out[i * step] = w[i];
  } else {
    const float *w = (const float *)from + index;
    for (int32_t i = 0; i < count; i++) out[i * step] = (int16_t)tl_clip(tl_rint(w[i]), -32768.0f, 32767.0f);
  }
}

/* A run of `count` weights at `index` of one tensor to places first, first + 1, ... of the destination. The constant
 * step lets the contiguous case vectorise. */
static void read_run(tl_weight_kind kind, const void *from, int32_t index, int32_t count, const destination *to,
                     int32_t first) {
  if (to->s16) {
    read_s16(kind, from, index, count, to->s16 + first * to->step, to->step);
  } else if (to->step == 1) {
    read_f32(kind, from, index, count, to->f32 + first, 1);
  } else {
    read_f32(kind, from, index, count, to->f32 + first * to->step, to->step);
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
  read_run(w->kind_base, w->base, row * taps * c + col, count, to, 0);
  if (!w->trained) return;
  for (int32_t tap = col / c; tap * c < col + count; tap++) {
    int32_t first = col - tap * c, end = first + count;
    const int32_t trained_row = (row * taps + tap) * w->k;
    for (int32_t j = first > 0 ? lower_bound(w->channels, w->k, first) : 0; j < w->k && w->channels[j] < end; j++)
      read_run(w->kind_trained, w->trained, trained_row + j, 1, to, w->channels[j] - first);
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
      read_run(w->kind_trained, w->trained, j * taps, taps, to, 0);
      return;
    }
  }
  read_run(w->kind_base, w->base, channel * taps, taps, to, 0);
}

void tl_load_taps(const tl_weights *w, int32_t taps, int32_t channel, float *out, int32_t step) {
  const destination to = {out, NULL, step};
  load_taps(w, taps, channel, &to);
}

void tl_load_taps_s16(const tl_weights *w, int32_t taps, int32_t channel, int16_t *out, int32_t step) {
  const destination to = {NULL, out, step};
  load_taps(w, taps, channel, &to);
}

void tl_load_bias(const tl_bias *b, int32_t o, int32_t width, int32_t lanes, float *out) {
  for (int32_t j = 0; j < lanes; j++) {
    out[j] = 0.0f;
    if (j >= width) continue;
    if (b->s32) out[j] = (float)b->s32[o + j];
    if (b->f32) out[j] = b->f32[o + j];
  }
}
