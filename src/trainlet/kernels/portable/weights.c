#include "tl_weights.h"

#include <string.h>

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

/* A run of `count` weights at `index` of one tensor to places first, first + 1, ... of the destination. Constant
 * steps and counts let the contiguous cases vectorise. */
static void read_run(tl_weight_kind kind, const void *from, int32_t zero, int32_t index, int32_t count,
                     const destination *to, int32_t first) {
  if (to->s16) {
    read_s16(kind, from, zero, index, count, to->s16 + first * to->step, to->step);
  } else if (to->step == 1 && count == TL_LANES) {
    read_f32(kind, from, zero, index, TL_LANES, to->f32 + first, 1);
  } else if (to->step == 1) {
    read_f32(kind, from, zero, index, count, to->f32 + first, 1);
  } else {
    read_f32(kind, from, zero, index, count, to->f32 + first * to->step, to->step);
  }
}

/* One weight, without the loops of read_run. */
static inline void read_one(tl_weight_kind kind, const void *from, int32_t zero, int32_t index, const destination *to,
                            int32_t place) {
  float w = 0.0f;
  if (kind == TL_W_S8) {
    w = (float)(((const int8_t *)from)[index] - zero);
  } else if (kind == TL_W_F32) {
    w = ((const float *)from)[index];
  } else {
    w = master(((const float *)from)[index], zero);
  }
  if (to->s16) {
    to->s16[place * to->step] = (int16_t)w;
  } else {
    to->f32[place * to->step] = w;
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

/* trained: [o][taps][k] replaces the columns of its channels. */
static void overlay(const tl_weights *w, int32_t taps, int32_t c, int32_t row, int32_t col, int32_t count,
                    const destination *to) {
  if (!w->trained) return;
  for (int32_t tap = col / c; tap * c < col + count; tap++) {
    int32_t first = col - tap * c, end = first + count;
    const int32_t trained_row = (row * taps + tap) * w->k;
    for (int32_t j = first > 0 ? lower_bound(w->channels, w->k, first) : 0; j < w->k && w->channels[j] < end; j++)
      read_one(w->kind_trained, w->trained, w->zero, trained_row + j, to, w->channels[j] - first);
  }
}

/* base: [o][taps][c], columns flat over (tap, channel). */
static void load(const tl_weights *w, int32_t taps, int32_t c, int32_t row, int32_t col, int32_t count,
                 const destination *to) {
  read_run(w->kind_base, w->base, w->zero, row * taps * c + col, count, to, 0);
  overlay(w, taps, c, row, col, count, to);
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

/* TL_LANES rows of int8 to columns, eight bytes of every row at a time where a register holds them (little endian). */
static void transpose_s8(const int8_t *from, int32_t pitch, int32_t zero, int32_t count, int16_t *panel) {
  int32_t i = 0;
#if TL_LANES == 16 && __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
  for (; i + 8 <= count; i += 8) {
    uint64_t rows[TL_LANES];
    for (int j = 0; j < TL_LANES; j++) memcpy(&rows[j], from + j * pitch + i, sizeof rows[j]);
    for (int byte = 0; byte < 8; byte++) {
      int16_t *to = panel + (i + byte) * TL_LANES;
      for (int j = 0; j < TL_LANES; j++) to[j] = (int16_t)((int8_t)(rows[j] >> (8 * byte)) - zero);
    }
  }
#endif
  for (; i < count; i++)
    for (int j = 0; j < TL_LANES; j++) panel[i * TL_LANES + j] = (int16_t)(from[j * pitch + i] - zero);
}

void tl_load_panel_s16(const tl_weights *w, int32_t taps, int32_t c, int32_t row, int32_t width, int32_t col,
                       int32_t count, int16_t *panel) {
  const int32_t whole = w->kind_base == TL_W_S8 && width == TL_LANES;
  if (whole) transpose_s8((const int8_t *)w->base + row * taps * c + col, taps * c, w->zero, count, panel);
  for (int32_t j = 0; j < width; j++) {
    const destination to = {NULL, panel + j, TL_LANES};
    if (!whole) read_run(w->kind_base, w->base, w->zero, (row + j) * taps * c + col, count, &to, 0);
    overlay(w, taps, c, row + j, col, count, &to);
  }
  for (int32_t j = width; j < TL_LANES; j++)
    for (int32_t i = 0; i < count; i++) panel[i * TL_LANES + j] = 0;
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

void tl_load_bias_s32(const tl_bias *b, int32_t o, int32_t width, int32_t lanes, int32_t *out) {
  for (int32_t j = 0; j < lanes; j++) {
    out[j] = 0;
    if (j >= width) continue;
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
