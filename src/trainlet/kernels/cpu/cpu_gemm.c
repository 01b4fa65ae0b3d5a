/* Block of `rows` x `vectors` registers: for each p, one load per vector of b, one broadcast per row of a. */
#include "tl_gemm.h"

#include "tl_chunks.h"
#include "tl_parallel.h"
#include "tl_step.h"

#if TL_REGISTERS == 32
enum { ROWS_3 = 8, ROWS_2 = 12, ROWS_1 = 12 };
#else
enum { ROWS_3 = 4, ROWS_2 = 6, ROWS_1 = 8 };
#endif
enum { GRAIN = 24 };                /* a multiple of every ROWS and of the 8 elements of a mask's byte */
enum { BLOCK_BYTES = 96 * 1024 };   /* rows of a that stay in the second-level cache while the panels pass */
enum { DEPTH = 512 };               /* p summed at once: a panel of it stays in the first-level cache */

/* One pass over p. */
typedef struct {
  const tl_gemm *g;
  int32_t depth;       /* of this pass */
  int32_t first, last; /* whether it is the first, the last pass */
  int32_t masks;       /* tl_masks_in_registers */
  int32_t kind;        /* tl_finish_kind where this is the only pass and nothing is added; else TL_ANY_ENDING */
} pass;

/* A finished sum that is part of a gradient; the rules with slots wait for update_rest. */
TL_INLINE void give(const tl_gemm *g, tl_vf v, int32_t at, int32_t width) {
  const tl_update *u = g->update;
  float *w = (float *)u->w + at;
  if (u->rule == TL_SGD) {
    tl_vf old = tl_load_part(w, width);
    tl_save_part(w, old - u->lr * (v + u->weight_decay * old), width);
  } else if (u->rule == TL_ACCUMULATE) {
    tl_save_part(w, tl_load_part(w, width) + v, width);
  } else if (u->rule == TL_STORE) {
    tl_save_part(w, v, width);
  } else {
    tl_save_part(g->c + at, v, width);
  }
}

/* One row of a block: bias, residual and what follows, then to its place. A function of its own, so that the sums above
 * keep the registers. */
TL_INLINE void end_row(const pass *s, const tl_vf *sums, const tl_vf *bias, const float *start, int32_t at,
                       int32_t columns, const int vectors) {
  const tl_gemm *g = s->g;
  for (int v = 0; v < vectors; v++) {
    int32_t width = columns - v * TL_VL, here = at + v * TL_VL;
    tl_vf sum = sums[v];
    if (start) sum += tl_load_part(start + here, width);
    if (s->last && g->update) {
      give(g, sum, here, width);
    } else {
      if (s->last) sum = tl_finish_value(&g->finish, sum + bias[v], here, s->masks);
      tl_save_part(g->c + here, sum, width);
    }
  }
}

TL_INLINE void end_block(const pass *s, const tl_vf *sums, int32_t row, int32_t col, int32_t columns, int rows,
                         const int vectors) {
  const tl_gemm *g = s->g;
  const float *start = s->first && !g->onto ? g->finish.add : g->c;
  tl_vf bias[3] = {{0}};
  if (s->last && g->finish.bias)
    for (int v = 0; v < vectors; v++) bias[v] = tl_load_part(g->finish.bias + col + v * TL_VL, columns - v * TL_VL);
  int32_t at = row * g->ldc + col;
  if (columns >= vectors * TL_VL) {
    for (int r = 0; r < rows; r++) end_row(s, sums + r * 3, bias, start, at + r * g->ldc, 3 * TL_VL, vectors);
  } else {
    for (int r = 0; r < rows; r++) end_row(s, sums + r * 3, bias, start, at + r * g->ldc, columns, vectors);
  }
}

#define END(VECTORS)                                                                                               \
  static __attribute__((noinline)) void end_##VECTORS(const pass *s, const tl_vf *sums, int32_t row, int32_t col,   \
                                                      int32_t columns, int rows) {                                 \
    end_block(s, sums, row, col, columns, rows, VECTORS);                                                          \
  }
END(1)
END(2)
END(3)

/* rows, vectors, turned: constants where it is called. columns: what remains of the result, a last vector may be partial. */
TL_INLINE void block(const pass *s, int32_t row, int32_t col, const float *a, const float *b, int32_t ldb,
                     int32_t columns, const int rows, const int vectors, const int turned) {
  const int64_t a_row = turned ? 1 : s->g->a_row, a_depth = turned ? s->g->a_depth : 1;
  tl_vf acc[12][3], sums[12 * 3];
  TL_UNROLL(12)
  for (int r = 0; r < rows; r++)
    TL_UNROLL(3)
    for (int v = 0; v < vectors; v++) acc[r][v] = (tl_vf){0};
  for (int32_t p = 0; p < s->depth; p++, a += a_depth, b += ldb) {
    tl_vf line[3];
    TL_UNROLL(3)
    for (int v = 0; v < vectors; v++) line[v] = tl_load(b + v * TL_VL);
    TL_UNROLL(12)
    for (int r = 0; r < rows; r++) {
      tl_vf x = tl_all(a[r * a_row]);
      TL_UNROLL(3)
      for (int v = 0; v < vectors; v++) acc[r][v] += x * line[v];
    }
  }
  TL_UNROLL(12)
  for (int r = 0; r < rows; r++)
    TL_UNROLL(3)
    for (int v = 0; v < vectors; v++) sums[r * 3 + v] = acc[r][v];
  if (vectors == 3) end_3(s, sums, row, col, columns, rows);
  if (vectors == 2) end_2(s, sums, row, col, columns, rows);
  if (vectors == 1) end_1(s, sums, row, col, columns, rows);
}

/* A block whose sums end in registers: of results alone, whole ones, in one pass. rows, vectors, kind (tl_finish.h):
 * constants where it is called. For short sums the ending is as much work as they are. */
TL_INLINE void whole_block(const pass *s, int32_t row, int32_t col, const float *a, const float *b, const int rows,
                           const int vectors, const int kind) {
  const tl_gemm *g = s->g;
  const tl_finish f = g->finish; /* a copy, see tl_finish_save */
  const int64_t a_row = g->a_row;
  const int32_t ldc = g->ldc, n = g->n, depth = s->depth;
  float *const c = g->c;
  tl_vf acc[12][3];
  TL_UNROLL(3)
  for (int v = 0; v < vectors; v++) {
    tl_vf bias = f.bias ? tl_load(f.bias + col + v * TL_VL) : (tl_vf){0};
    TL_UNROLL(12)
    for (int r = 0; r < rows; r++) acc[r][v] = bias;
  }
  for (int32_t p = 0; p < depth; p++, a++, b += vectors * TL_VL) {
    tl_vf line[3];
    TL_UNROLL(3)
    for (int v = 0; v < vectors; v++) line[v] = tl_load(b + v * TL_VL);
    TL_UNROLL(12)
    for (int r = 0; r < rows; r++) {
      tl_vf x = tl_all(a[r * a_row]);
      TL_UNROLL(3)
      for (int v = 0; v < vectors; v++) acc[r][v] += x * line[v];
    }
  }
  int32_t at = row * ldc + col;
  TL_UNROLL(12)
  for (int r = 0; r < rows; r++)
    TL_UNROLL(3)
    for (int v = 0; v < vectors; v++)
      tl_finish_save(&f, c, acc[r][v], at + r * ldc + v * TL_VL, TL_VL, n, kind);
}

/* Whole blocks from row `first` on, as many as there are; the first row behind them. */
#define WHOLE(NAME, ROWS, VECTORS, KIND)                                                                           \
  static int32_t NAME(const pass *s, int32_t first, int32_t last, int32_t col, const float *a, const float *b) {  \
    for (; first + ROWS <= last; first += ROWS, a += ROWS * s->g->a_row)                                           \
      whole_block(s, first, col, a, b, ROWS, VECTORS, KIND);                                                       \
    return first;                                                                                                  \
  }
#define WHOLES(VECTORS)                                                \
  WHOLE(plain_##VECTORS, ROWS_##VECTORS, VECTORS, TL_PLAIN)            \
  WHOLE(mask_##VECTORS, ROWS_##VECTORS, VECTORS, TL_WRITES_MASK)       \
  WHOLE(keep_##VECTORS, ROWS_##VECTORS, VECTORS, TL_KEEPS)
WHOLES(1)
WHOLES(2)
WHOLES(3)

typedef int32_t (*whole)(const pass *, int32_t, int32_t, int32_t, const float *, const float *);
static const whole WHOLE_BLOCKS[3][3] = {
    {plain_1, mask_1, keep_1}, {plain_2, mask_2, keep_2}, {plain_3, mask_3, keep_3}};

/* All rows first .. last-1 under one panel; rows that do not fill a block two by two. */
#define PANEL(NAME, ROWS, VECTORS, TURNED)                                                                         \
  static void NAME(const pass *s, int32_t first, int32_t last, int32_t col, const float *a, const float *b,        \
                   int32_t ldb, int32_t columns) {                                                                 \
    int32_t row = first, next = TURNED ? 1 : s->g->a_row;                                                          \
    for (; row + ROWS <= last; row += ROWS)                                                                        \
      block(s, row, col, a + (row - first) * next, b, ldb, columns, ROWS, VECTORS, TURNED);                        \
    for (; row + 2 <= last; row += 2)                                                                              \
      block(s, row, col, a + (row - first) * next, b, ldb, columns, 2, VECTORS, TURNED);                           \
    if (row < last) block(s, row, col, a + (row - first) * next, b, ldb, columns, 1, VECTORS, TURNED);             \
  }
PANEL(panel_1, ROWS_1, 1, 0)
PANEL(panel_2, ROWS_2, 2, 0)
PANEL(panel_3, ROWS_3, 3, 0)
PANEL(turned_1, ROWS_1, 1, 1)
PANEL(turned_2, ROWS_2, 2, 1)
PANEL(turned_3, ROWS_3, 3, 1)

typedef void (*panel)(const pass *, int32_t, int32_t, int32_t, const float *, const float *, int32_t, int32_t);
static const panel PANELS[2][3] = {{panel_1, panel_2, panel_3}, {turned_1, turned_2, turned_3}};

/* Rows first .. last-1 over all panels, p from `from` on. */
static void rows_pass(const pass *s, int32_t first, int32_t last, int32_t from) {
  const tl_gemm *g = s->g;
  const float *a = g->a + first * g->a_row + from * g->a_depth;
  int32_t vectors;
  for (int32_t col = 0; col < g->n; col += vectors * TL_VL) {
    vectors = tl_panel_vectors((g->n - col + TL_VL - 1) / TL_VL);
    int32_t ldb = g->ldb ? g->ldb : vectors * TL_VL, columns = g->n - col;
    const float *b = g->ldb ? g->b + from * ldb + col : g->b + col * g->k + from * ldb;
    int32_t row = s->kind == TL_ANY_ENDING ? first : WHOLE_BLOCKS[vectors - 1][s->kind](s, first, last, col, a, b);
    if (row == last) continue;
    PANELS[g->a_depth != 1][vectors - 1](s, row, last, col, a + (int64_t)(row - first) * g->a_row, b, ldb, columns);
  }
}

/* Steps of the rules that keep slots, once the sums of rows first .. last-1 are complete. */
static void update_rest(const tl_gemm *g, int32_t first, int32_t last) {
  if (!g->update || (g->update->rule != TL_MOMENTUM && g->update->rule != TL_ADAMW)) return;
  for (int32_t row = first; row < last; row++)
    tl_step_range(g->update, row * g->ldc, g->c + row * g->ldc, g->n);
}

/* The kind of ending that whole_block may take. */
static int32_t kind_of(const tl_gemm *g, int32_t depth) {
  int32_t own = g->onto || g->update || g->ldb || g->a_depth != 1 || g->k > depth;
  return own ? TL_ANY_ENDING : tl_finish_kind(&g->finish, g->n);
}

static int32_t depth_of(const tl_gemm *g) {
  int32_t most = g->depth ? g->depth : DEPTH;
  return g->k < most ? g->k : most;
}

void tl_gemm_range(const tl_gemm *g, int32_t first, int32_t last) {
  int32_t depth = depth_of(g), step = BLOCK_BYTES / 4 / (depth > 0 ? depth : 1) / GRAIN * GRAIN;
  int32_t masks = tl_masks_in_registers(g->n), kind = kind_of(g, depth);
  if (step < GRAIN) step = GRAIN;
  for (int32_t row = first; row < last; row += step) {
    int32_t end = row + step < last ? row + step : last;
    for (int32_t from = 0; from < g->k; from += depth) {
      int32_t left = g->k - from;
      pass s = {g, left < depth ? left : depth, from == 0, left <= depth, masks, kind};
      rows_pass(&s, row, end, from);
    }
    if (!masks) tl_finish_masks(&g->finish, g->c, row * g->n, end * g->n);
    update_rest(g, row, end);
  }
}

void tl_gemm_rows(const void *gemm, int32_t part, int32_t parts) {
  const tl_gemm *g = gemm;
  tl_gemm_range(g, tl_bound(g->m, GRAIN, part, parts), tl_bound(g->m, GRAIN, part + 1, parts));
}

void tl_gemm_columns(const void *gemm, int32_t part, int32_t parts) {
  tl_gemm g = *(const tl_gemm *)gemm;
  int32_t first = tl_bound(g.n, 3 * TL_VL, part, parts), last = tl_bound(g.n, 3 * TL_VL, part + 1, parts);
  tl_update u;
  if (first == last) return;
  g.b += first;
  g.c += first;
  g.n = last - first;
  if (g.update) {
    u = *g.update;
    u.w = (float *)u.w + first;
    if (u.m) u.m += first;
    if (u.v) u.v += first;
    g.update = &u;
  }
  tl_gemm_range(&g, 0, g.m);
}

void tl_gemm_chunks(const void *gemm, int32_t part, int32_t parts) {
  const tl_gemm *all = gemm;
  for (int32_t chunk = tl_first_chunk(part, parts); chunk < tl_first_chunk(part + 1, parts); chunk++) {
    int32_t first = tl_chunk_bound(all->k, chunk);
    tl_gemm g = *all;
    g.k = tl_chunk_bound(all->k, chunk + 1) - first;
    g.a += (int64_t)first * g.a_depth;
    g.b += (int64_t)first * g.ldb;
    g.c += (int64_t)chunk * g.m * g.ldc;
    if (g.k == 0) memset(g.c, 0, (size_t)g.m * g.ldc * sizeof *g.c);
    tl_gemm_range(&g, 0, g.m);
  }
}

typedef float four __attribute__((vector_size(16)));
typedef float four_memory __attribute__((vector_size(16), aligned(4), may_alias));

/* to[p][0..3] = w[0..3][p] for four p. */
static inline void turn_four(const float *w, int32_t ldw, float *to, int32_t width) {
  four r0 = *(const four_memory *)w, r1 = *(const four_memory *)(w + ldw);
  four r2 = *(const four_memory *)(w + 2 * ldw), r3 = *(const four_memory *)(w + 3 * ldw);
  four a = __builtin_shufflevector(r0, r1, 0, 4, 1, 5), b = __builtin_shufflevector(r2, r3, 0, 4, 1, 5);
  four c = __builtin_shufflevector(r0, r1, 2, 6, 3, 7), d = __builtin_shufflevector(r2, r3, 2, 6, 3, 7);
  *(four_memory *)to = __builtin_shufflevector(a, b, 0, 1, 4, 5);
  *(four_memory *)(to + width) = __builtin_shufflevector(a, b, 2, 3, 6, 7);
  *(four_memory *)(to + 2 * width) = __builtin_shufflevector(c, d, 0, 1, 4, 5);
  *(four_memory *)(to + 3 * width) = __builtin_shufflevector(c, d, 2, 3, 6, 7);
}

/* panel[p][j] = w[col + j][p]. */
static void turn_panel(const tl_pack *s, int32_t col, int32_t width, float *panel) {
  int32_t used = s->n - col < width ? s->n - col : width, j = 0;
  for (; j + 4 <= used; j += 4) {
    const float *w = s->w + (col + j) * s->ldw;
    int32_t p = 0;
    for (; p + 4 <= s->k; p += 4) turn_four(w + p, s->ldw, panel + p * width + j, width);
    for (; p < s->k; p++)
      for (int32_t i = 0; i < 4; i++) panel[p * width + j + i] = w[i * s->ldw + p];
  }
  for (; j < width; j++)
    for (int32_t p = 0; p < s->k; p++) panel[p * width + j] = j < used ? s->w[(col + j) * s->ldw + p] : 0.0f;
}

static void copy_panel(const tl_pack *s, int32_t col, int32_t width, float *panel) {
  int32_t used = s->n - col < width ? s->n - col : width;
  for (int32_t p = 0; p < s->k; p++)
    for (int32_t j = 0; j < width; j += TL_VL)
      tl_save(panel + p * width + j, j < used ? tl_load_part(s->w + p * s->ldw + col + j, used - j) : (tl_vf){0});
}

void tl_pack_panels(const void *pack, int32_t part, int32_t parts) {
  const tl_pack *s = pack;
  int32_t vectors, index = 0;
  for (int32_t col = 0; col < s->n; col += vectors * TL_VL, index++) {
    vectors = tl_panel_vectors((s->n - col + TL_VL - 1) / TL_VL);
    if (index % parts != part) continue;
    if (s->turn) {
      turn_panel(s, col, vectors * TL_VL, s->panels + col * s->k);
    } else {
      copy_panel(s, col, vectors * TL_VL, s->panels + col * s->k);
    }
  }
}
