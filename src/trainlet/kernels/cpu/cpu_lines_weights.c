/* sums[ky][i][o] += sum over the results of a row of line[ox * step + i] * dy[ox][o]: blocks of i x registers of o. */
#include "tl_chunks.h"
#include "tl_line_window.h"
#include "tl_lines.h"

enum { ROWS_3 = 3, ROWS_2 = 6 };

/* rows, vectors: constants where it is called. */
TL_INLINE void block(const tl_conv_shape *s, const float *a, const float *dy, float *sums, int32_t pitch, const int rows,
                     const int vectors) {
  const int32_t step = s->sw * s->c, o = s->o, count = s->ow;
  tl_vf acc[ROWS_2][3];
  TL_UNROLL(6)
  for (int r = 0; r < rows; r++)
    TL_UNROLL(3)
    for (int j = 0; j < vectors; j++) acc[r][j] = tl_load(sums + r * pitch + j * TL_VL);
  for (int32_t ox = 0; ox < count; ox++, a += step, dy += o) {
    tl_vf d[3];
    TL_UNROLL(3)
    for (int j = 0; j < vectors; j++) d[j] = tl_load(dy + j * TL_VL);
    TL_UNROLL(6)
    for (int r = 0; r < rows; r++) {
      tl_vf value = tl_all(a[r]);
      TL_UNROLL(3)
      for (int j = 0; j < vectors; j++) acc[r][j] += value * d[j];
    }
  }
  TL_UNROLL(6)
  for (int r = 0; r < rows; r++)
    TL_UNROLL(3)
    for (int j = 0; j < vectors; j++) tl_save(sums + r * pitch + j * TL_VL, acc[r][j]);
}

/* The sums of one kernel row. */
static void add_run(const tl_conv_shape *s, const float *line, const float *dy, float *sums) {
  const int32_t last = s->kw * s->c, pitch = (s->o + TL_VL - 1) / TL_VL * TL_VL;
  for (int32_t col = 0, vectors; col < s->o; col += vectors * TL_VL) {
    vectors = tl_panel_vectors((s->o - col + TL_VL - 1) / TL_VL);
    const float *d = dy + col;
    float *to = sums + col;
    int32_t i = 0;
    if (vectors == 3) {
      for (; i + ROWS_3 <= last; i += ROWS_3) block(s, line + i, d, to + i * pitch, pitch, ROWS_3, 3);
      for (; i < last; i++) block(s, line + i, d, to + i * pitch, pitch, 1, 3);
    } else if (vectors == 2) {
      for (; i + ROWS_2 <= last; i += ROWS_2) block(s, line + i, d, to + i * pitch, pitch, ROWS_2, 2);
      for (; i + 3 <= last; i += 3) block(s, line + i, d, to + i * pitch, pitch, 3, 2);
      for (; i < last; i++) block(s, line + i, d, to + i * pitch, pitch, 1, 2);
    } else {
      for (; i + ROWS_2 <= last; i += ROWS_2) block(s, line + i, d, to + i * pitch, pitch, ROWS_2, 1);
      for (; i < last; i++) block(s, line + i, d, to + i * pitch, pitch, 1, 1);
    }
  }
}

static void chunk_of(const tl_lines_weights *g, int32_t chunk, float *lines) {
  const tl_conv_shape *s = &g->s;
  const int32_t run = s->kw * s->c, pitch = (s->o + TL_VL - 1) / TL_VL * TL_VL, size = s->kh * run * pitch;
  const int32_t rows = s->n * s->oh;
  float *sums = g->sums + chunk * size;
  memset(sums, 0, (size_t)size * sizeof *sums);
  tl_line_window v = tl_open_window(s, g->x, lines);
  for (int32_t row = tl_chunk_bound(rows, chunk); row < tl_chunk_bound(rows, chunk + 1); row++) {
    tl_move_window(&v, row);
    for (int32_t ky = v.ky0; ky < v.ky1; ky++)
      add_run(s, v.at[ky], g->dy + (int64_t)row * s->ow * s->o, sums + ky * run * pitch);
  }
}

void tl_lines_weights_part(const void *weights, int32_t part, int32_t parts) {
  const tl_lines_weights *g = weights;
  for (int32_t chunk = tl_first_chunk(part, parts); chunk < tl_first_chunk(part + 1, parts); chunk++)
    chunk_of(g, chunk, g->lines + (int64_t)part * g->s.kh * tl_line_floats(&g->s));
}
