/* Blocks of results x registers of output channels, as in cpu_gemm.c; the rows of "a" overlap in a line of the input. */
#include "tl_lines.h"

#include "tl_line_window.h"
#include "tl_parallel.h"

enum { ROWS_3 = 4, ROWS_2 = 6, ROWS_1 = 8 };

/* Results ox .. ox+rows-1, `vectors` registers of channels from col on. rows, vectors, kind: constants where it is called. */
TL_INLINE void results(const tl_lines *d, const tl_line_window *v, const float *panel, int32_t row, int32_t ox, int32_t col,
                       const int rows, const int vectors, const int kind) {
  const tl_conv_shape *s = &d->s;
  const tl_finish f = d->finish; /* a copy, see tl_finish_save */
  const int32_t run = s->kw * s->c, step = s->sw * s->c, o = s->o;
  tl_vf acc[ROWS_1][3];
  TL_UNROLL(3)
  for (int j = 0; j < vectors; j++) {
    tl_vf bias = f.bias ? tl_load_part(f.bias + col + j * TL_VL, o - col - j * TL_VL) : (tl_vf){0};
    TL_UNROLL(8)
    for (int r = 0; r < rows; r++) acc[r][j] = bias;
  }
  const float *b = panel + v->ky0 * run * vectors * TL_VL;
  for (int32_t ky = v->ky0; ky < v->ky1; ky++) {
    const float *a = v->at[ky] + ox * step;
    for (int32_t i = 0; i < run; i++, a++, b += vectors * TL_VL) {
      tl_vf line[3];
      TL_UNROLL(3)
      for (int j = 0; j < vectors; j++) line[j] = tl_load(b + j * TL_VL);
      TL_UNROLL(8)
      for (int r = 0; r < rows; r++) {
        tl_vf value = tl_all(a[r * step]);
        TL_UNROLL(3)
        for (int j = 0; j < vectors; j++) acc[r][j] += value * line[j];
      }
    }
  }
  float *const y = d->y;
  const int32_t at = (row * s->ow + ox) * o + col;
  TL_UNROLL(8)
  for (int r = 0; r < rows; r++)
    TL_UNROLL(3)
    for (int j = 0; j < vectors; j++)
      tl_finish_save(&f, y, acc[r][j], at + r * o + j * TL_VL, o - col - j * TL_VL, o, kind);
}

/* Fewer than a block: one function for all kinds, as there are few of them and each block takes its time to compile. */
static void rest(const tl_lines *d, const tl_line_window *v, const float *panel, int32_t row, int32_t ox, int32_t col,
                 int32_t vectors) {
  const tl_conv_shape *s = &d->s;
  if (vectors == 3) {
    for (; ox < s->ow; ox++) results(d, v, panel, row, ox, col, 1, 3, TL_ANY_ENDING);
  } else if (vectors == 2) {
    for (; ox + 2 <= s->ow; ox += 2) results(d, v, panel, row, ox, col, 2, 2, TL_ANY_ENDING);
    for (; ox < s->ow; ox++) results(d, v, panel, row, ox, col, 1, 2, TL_ANY_ENDING);
  } else {
    for (; ox < s->ow; ox++) results(d, v, panel, row, ox, col, 1, 1, TL_ANY_ENDING);
  }
}

TL_INLINE void row_of(const tl_lines *d, const tl_line_window *v, int32_t row, const int kind) {
  const tl_conv_shape *s = &d->s;
  const int32_t k = s->kh * s->kw * s->c;
  for (int32_t col = 0, vectors; col < s->o; col += vectors * TL_VL) {
    const float *panel = d->panels + (int64_t)col * k;
    int32_t ox = 0;
    vectors = tl_panel_vectors((s->o - col + TL_VL - 1) / TL_VL);
    if (vectors == 3) {
      for (; ox + ROWS_3 <= s->ow; ox += ROWS_3) results(d, v, panel, row, ox, col, ROWS_3, 3, kind);
    } else if (vectors == 2) {
      for (; ox + ROWS_2 <= s->ow; ox += ROWS_2) results(d, v, panel, row, ox, col, ROWS_2, 2, kind);
    } else {
      for (; ox + ROWS_1 <= s->ow; ox += ROWS_1) results(d, v, panel, row, ox, col, ROWS_1, 1, kind);
    }
    rest(d, v, panel, row, ox, col, vectors);
  }
}

void tl_lines_rows(const void *lines, int32_t part, int32_t parts) {
  const tl_lines *d = lines;
  const tl_conv_shape *s = &d->s;
  const int32_t masks = tl_masks_in_registers(s->o), kind = tl_finish_kind(&d->finish, s->o);
  const int32_t grain = masks || !(d->finish.mask || d->finish.keep) ? 1 : 8, rows = s->n * s->oh;
  const int32_t first = tl_bound(rows, grain, part, parts), last = tl_bound(rows, grain, part + 1, parts);
  tl_line_window v = tl_open_window(s, d->x, d->lines + (int64_t)part * s->kh * tl_line_floats(s));
  for (int32_t row = first; row < last; row++) {
    tl_move_window(&v, row);
    if (kind == TL_WRITES_MASK) {
      row_of(d, &v, row, TL_WRITES_MASK);
    } else if (kind == TL_PLAIN) {
      row_of(d, &v, row, TL_PLAIN);
    } else {
      row_of(d, &v, row, TL_ANY_ENDING);
    }
  }
  if (!masks) tl_finish_masks(&d->finish, d->y, first * s->ow * s->o, last * s->ow * s->o);
}
