/* dw[o][col] = sum_p dy[p][o] * patch[p][col]: a block of columns at a time, so that its sums stay in the cache while all
 * positions pass. dy is copied in groups of rows: walking down its columns would meet few sets of the cache. */
#include "tl_dense.h"
#include "tl_parallel.h"
#include "tl_patches.h"

enum { GROUP = 24 }; /* rows of dw; a multiple of every block of cpu_gemm.c */

static inline int32_t least(int32_t a, int32_t b) { return a < b ? a : b; }

/* to: groups of rows side by side, each [count][rows of the group]. */
static void group_rows(const float *dy, int32_t count, int32_t o, float *to) {
  for (int32_t row = 0; row < o; row += GROUP) {
    int32_t width = least(GROUP, o - row);
    for (int32_t p = 0; p < count; p++, to += width) memcpy(to, dy + (int64_t)p * o + row, (size_t)width * sizeof *to);
  }
}

/* The update of rows from `row` on, columns from `col` on. */
static tl_update shifted(const tl_update *u, int64_t by) {
  tl_update s = *u;
  s.w = (float *)s.w + by;
  if (s.m) s.m += by;
  if (s.v) s.v += by;
  return s;
}

/* Columns first .. last-1. */
static void columns(const tl_dense_weights *g, int32_t first, int32_t last, float *patches) {
  const tl_conv_shape *s = &g->s;
  const int32_t k = s->kh * s->kw * s->c, positions = s->n * s->oh * s->ow, width = last - first;
  float *grouped = patches + TL_WEIGHTS_DEPTH * width + TL_VL;
  for (int32_t p = 0; p < positions; p += TL_WEIGHTS_DEPTH) {
    int32_t count = least(TL_WEIGHTS_DEPTH, positions - p);
    tl_fill_patches(s, g->x, p, count, first, last, patches, width);
    group_rows(g->dy + (int64_t)p * s->o, count, s->o, grouped);
    for (int32_t row = 0; row < s->o; row += GROUP) {
      int32_t rows = least(GROUP, s->o - row);
      tl_update u = shifted(g->u, (int64_t)row * k + first);
      tl_gemm product = {.a = grouped + (int64_t)row * count, .b = patches, .c = g->sums + (int64_t)row * k + first,
                         .m = rows, .k = count, .n = width, .a_row = 1, .a_depth = rows, .ldb = width, .ldc = k,
                         .depth = TL_WEIGHTS_DEPTH, .onto = p > 0,
                         .finish = {.lo = -__builtin_inff(), .hi = __builtin_inff()},
                         .update = p + count == positions ? &u : NULL};
      tl_gemm_range(&product, 0, rows);
    }
  }
}

void tl_dense_weights_part(const void *weights, int32_t part, int32_t parts) {
  const tl_dense_weights *g = weights;
  const int32_t k = g->s.kh * g->s.kw * g->s.c, last = tl_bound(k, 3 * TL_VL, part + 1, parts);
  float *tiles = g->tiles + part * tl_weights_floats(k, g->s.o);
  for (int32_t col = tl_bound(k, 3 * TL_VL, part, parts); col < last; col += TL_WEIGHTS_COLUMNS)
    columns(g, col, least(col + TL_WEIGHTS_COLUMNS, last), tiles);
}
