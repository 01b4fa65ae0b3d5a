#include "tl_chunks.h"
#include "tl_simd.h"
#include "tl_step.h"

enum { GRAIN = 1024 };

/* Elements first .. last-1 of chunk 0 become the sums of all. */
static void add_up(float *sums, int32_t size, int32_t first, int32_t last) {
  for (int32_t i = first; i < last; i += TL_VL) {
    tl_vf sum = tl_load_part(sums + i, last - i);
    for (int32_t chunk = 1; chunk < TL_CHUNKS; chunk++) sum += tl_load_part(sums + chunk * size + i, last - i);
    tl_save_part(sums + i, sum, last - i);
  }
}

void tl_chunks_part(const void *chunks, int32_t part, int32_t parts) {
  const tl_chunks *s = chunks;
  const int32_t size = s->rows * s->pitch;
  int32_t first = tl_bound(size, GRAIN, part, parts), last = tl_bound(size, GRAIN, part + 1, parts);
  add_up(s->sums, size, first, last);
  tl_step_range(s->u, first, s->sums + first, last - first);
}

void tl_chunks_turned_part(const void *chunks, int32_t part, int32_t parts) {
  const tl_chunks *s = chunks;
  const int32_t rows = s->rows, size = rows * s->pitch;
  int32_t first = tl_bound(s->columns, TL_VL, part, parts), last = tl_bound(s->columns, TL_VL, part + 1, parts);
  for (int32_t row = 0; row < rows; row++) {
    add_up(s->sums, size, row * s->pitch + first, row * s->pitch + last);
    for (int32_t c = first; c < last; c++) s->turned[c * rows + row] = s->sums[row * s->pitch + c];
  }
  tl_step_range(s->u, first * rows, s->turned + first * rows, (last - first) * rows);
}
