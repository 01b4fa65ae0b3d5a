#include "tl_redraw.h"

#include "tl_math.h"
#include "tl_random.h"

/* How many channels come before channel c in the shuffled order. */
static int32_t place_of(uint32_t key, int32_t c, int32_t total) {
  const uint32_t own = tl_random_bits(key, (uint32_t)c);
  int32_t before = 0;
  for (int32_t i = 0; i < total; i++) {
    uint32_t other = tl_random_bits(key, (uint32_t)i);
    before += other < own || (other == own && i < c);
  }
  return before;
}

static void put_back(const tl_redrawn *w, int32_t to, int32_t from) {
  if (w->base_f32) {
    ((float *)w->base)[to] = ((const float *)w->trained)[from];
  } else if (w->trained_f32) {
    ((int8_t *)w->base)[to] = tl_saturate_s8(tl_rint_any(((const float *)w->trained)[from]));
  } else {
    ((int8_t *)w->base)[to] = ((const int8_t *)w->trained)[from];
  }
}

static void take(const tl_redrawn *w, int32_t to, int32_t from) {
  if (w->base_f32) {
    ((float *)w->trained)[to] = ((const float *)w->base)[from];
  } else if (w->trained_f32) {
    ((float *)w->trained)[to] = (float)((const int8_t *)w->base)[from];
  } else {
    ((int8_t *)w->trained)[to] = ((const int8_t *)w->base)[from];
  }
}

static void each(const tl_redrawn *w, void (*move)(const tl_redrawn *, int32_t, int32_t), int32_t into_base) {
  for (int32_t o = 0; o < w->outer; o++)
    for (int32_t j = 0; j < w->k; j++)
      for (int32_t i = 0; i < w->inner; i++) {
        int32_t whole = (o * w->total + w->channels[j]) * w->inner + i, part = (o * w->k + j) * w->inner + i;
        move(w, into_base ? whole : part, into_base ? part : whole);
      }
}

void tl_redraw(const tl_redrawn *w, uint32_t seed, uint32_t epoch, int32_t first) {
  const uint32_t windows = (uint32_t)(w->total / w->k);
  const uint32_t key = tl_random_key(seed, epoch / windows, w->stream);
  const int32_t begin = (int32_t)(epoch % windows) * w->k;
  int32_t j = 0;
  if (!first) each(w, put_back, 1);
  for (int32_t c = 0; c < w->total; c++) {
    int32_t place = place_of(key, c, w->total);
    if (place >= begin && place < begin + w->k) w->channels[j++] = (uint16_t)c;
  }
  each(w, take, 0);
}
