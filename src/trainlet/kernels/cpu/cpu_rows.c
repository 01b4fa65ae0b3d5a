#include "tl_rows.h"

#include "tl_chunks.h"
#include "tl_parallel.h"

enum { GRAIN = 1024 };

/* Sums over positions first .. last-1 of `vectors` registers of channels from c on, two positions in flight. */
TL_INLINE void sum_block(const tl_bias_sums *s, int32_t first, int32_t last, int32_t c, float *sums, const int vectors) {
  tl_vf even[4], odd[4];
  TL_UNROLL(4)
  for (int v = 0; v < vectors; v++) even[v] = odd[v] = (tl_vf){0};
  const int64_t pitch = s->channels;
  const float *dy = s->dy + first * pitch + c;
  int32_t p = first;
  for (; p + 2 <= last; p += 2, dy += 2 * pitch) {
    TL_UNROLL(4)
    for (int v = 0; v < vectors; v++) {
      even[v] += tl_load(dy + v * TL_VL);
      odd[v] += tl_load(dy + pitch + v * TL_VL);
    }
  }
  TL_UNROLL(4)
  for (int v = 0; v < vectors; v++) {
    int32_t left = s->channels - c - v * TL_VL;
    if (p < last) even[v] += tl_load_part(dy + v * TL_VL, left);
    tl_save_part(sums + c + v * TL_VL, even[v] + odd[v], left);
  }
}

void tl_bias_sums_part(const void *sums, int32_t part, int32_t parts) {
  const tl_bias_sums *s = sums;
  for (int32_t chunk = tl_first_chunk(part, parts); chunk < tl_first_chunk(part + 1, parts); chunk++) {
    int32_t first = tl_chunk_bound(s->positions, chunk), last = tl_chunk_bound(s->positions, chunk + 1), c = 0;
    float *to = s->sums + chunk * s->channels;
    for (; c + 4 * TL_VL <= s->channels; c += 4 * TL_VL) sum_block(s, first, last, c, to, 4);
    for (; c < s->channels; c += TL_VL) sum_block(s, first, last, c, to, 1);
  }
}

void tl_each_part(const void *each, int32_t part, int32_t parts) {
  const tl_each *e = each;
  int32_t first = tl_bound(e->count, GRAIN, part, parts), last = tl_bound(e->count, GRAIN, part + 1, parts), i = first;
  for (; i + TL_VL <= last; i += TL_VL) {
    tl_vf v = tl_load(e->x + i);
    if (e->finish.add) v += tl_load(e->finish.add + i);
    tl_save(e->y + i, tl_finish_value(&e->finish, v, i, TL_MASK_IN_REGISTER));
  }
  if (!TL_MASK_IN_REGISTER) tl_finish_masks(&e->finish, e->y, first, i);
  if (i == last) return;
  tl_vf v = tl_load_part(e->x + i, last - i);
  if (e->finish.add) v += tl_load_part(e->finish.add + i, last - i);
  tl_save_part(e->y + i, tl_finish_value(&e->finish, v, i, 0), last - i);
  tl_finish_masks(&e->finish, e->y, i, last);
}

void tl_mean_part(const void *mean, int32_t part, int32_t parts) {
  const tl_mean_f32 *s = mean;
  int32_t first = tl_bound(s->channels, TL_VL, part, parts), last = tl_bound(s->channels, TL_VL, part + 1, parts);
  float count = (float)s->positions;
  for (int32_t n = 0; n < s->n; n++)
    for (int32_t c = first; c < last; c += TL_VL) {
      const float *x = s->x + (int64_t)n * s->positions * s->channels + c;
      tl_vf sum = {0};
      for (int32_t p = 0; p < s->positions; p++) sum += tl_load_part(x + (int64_t)p * s->channels, last - c);
      tl_save_part(s->y + n * s->channels + c, sum / count, last - c);
    }
}

void tl_mean_grad_part(const void *mean, int32_t part, int32_t parts) {
  const tl_mean_f32 *s = mean;
  int32_t rows = s->n * s->positions, last = tl_bound(rows, 1, part + 1, parts);
  float factor = 1.0f / (float)s->positions;
  for (int32_t row = tl_bound(rows, 1, part, parts); row < last; row++) {
    const float *dy = s->y + row / s->positions * s->channels;
    float *dx = (float *)s->x + (int64_t)row * s->channels;
    for (int32_t c = 0; c < s->channels; c++) dx[c] = dy[c] * factor;
  }
}
