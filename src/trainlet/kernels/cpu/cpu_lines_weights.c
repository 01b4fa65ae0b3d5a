/* sums[ky][i][o] += sum over the results of a row of line[ox * step + i] * dy[ox][o]: blocks of i x registers of o. */
#include "tl_line_window.h"
#include "tl_lines.h"
#include "tl_parallel.h"
#include "tl_step.h"

enum { GRAIN = 3, ROWS_3 = 3, ROWS_2 = 6 };

/* rows, vectors: constants where it is called. */
TL_INLINE void block(const tl_conv_shape *s, const float *a, const float *dy, float *sums, int32_t pitch, const int rows,
                     const int vectors) {
  const int32_t step = s->sw * s->c, o = s->o, count = s->ow;
  tl_vf acc[ROWS_2][3];
#pragma GCC unroll 6
  for (int r = 0; r < rows; r++)
#pragma GCC unroll 3
    for (int j = 0; j < vectors; j++) acc[r][j] = tl_load(sums + r * pitch + j * TL_VL);
  for (int32_t ox = 0; ox < count; ox++, a += step, dy += o) {
    tl_vf d[3];
#pragma GCC unroll 3
    for (int j = 0; j < vectors; j++) d[j] = tl_load(dy + j * TL_VL);
#pragma GCC unroll 6
    for (int r = 0; r < rows; r++) {
      tl_vf value = tl_all(a[r]);
#pragma GCC unroll 3
      for (int j = 0; j < vectors; j++) acc[r][j] += value * d[j];
    }
  }
#pragma GCC unroll 6
  for (int r = 0; r < rows; r++)
#pragma GCC unroll 3
    for (int j = 0; j < vectors; j++) tl_save(sums + r * pitch + j * TL_VL, acc[r][j]);
}

/* Rows first .. last-1 of the sums of one kernel row. */
static void add_run(const tl_conv_shape *s, const float *line, const float *dy, float *sums, int32_t first, int32_t last) {
  const int32_t pitch = (s->o + TL_VL - 1) / TL_VL * TL_VL;
  for (int32_t col = 0, vectors; col < s->o; col += vectors * TL_VL) {
    vectors = tl_panel_vectors((s->o - col + TL_VL - 1) / TL_VL);
    const float *d = dy + col;
    float *to = sums + col;
    int32_t i = first;
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

/* Columns first .. last-1 of the gradient [o][k], from sums [k][o]. */
static void give(const tl_lines_weights *g, int32_t first, int32_t last, float *turned) {
  const tl_conv_shape *s = &g->s;
  const int32_t k = s->kh * s->kw * s->c, pitch = (s->o + TL_VL - 1) / TL_VL * TL_VL;
  for (int32_t o = 0; o < s->o; o++) {
    for (int32_t i = first; i < last; i++) turned[i - first] = g->sums[i * pitch + o];
    tl_step_range(g->u, o * k + first, turned, last - first);
  }
}

void tl_lines_weights_part(const void *weights, int32_t part, int32_t parts) {
  const tl_lines_weights *g = weights;
  const tl_conv_shape *s = &g->s;
  const int32_t run = s->kw * s->c, k = s->kh * run, pitch = (s->o + TL_VL - 1) / TL_VL * TL_VL;
  const int32_t first = tl_bound(k, GRAIN, part, parts), last = tl_bound(k, GRAIN, part + 1, parts);
  float *lines = g->lines + (int64_t)part * (s->kh * tl_line_floats(s) + k);
  tl_line_window v = tl_open_window(s, g->x, lines);
  memset(g->sums + (int64_t)first * pitch, 0, (size_t)(last - first) * pitch * sizeof *g->sums);
  for (int32_t row = 0; row < s->n * s->oh && first < last; row++) {
    tl_move_window(&v, row);
    for (int32_t ky = v.ky0; ky < v.ky1; ky++) {
      int32_t from = first - ky * run, to = last - ky * run;
      add_run(s, v.at[ky], g->dy + (int64_t)row * s->ow * s->o, g->sums + (int64_t)ky * run * pitch, from < 0 ? 0 : from,
              to < run ? to : run);
    }
  }
  give(g, first, last, lines + s->kh * tl_line_floats(s));
}
