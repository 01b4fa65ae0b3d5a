#include "tl_winograd.h"

#include "tl_parallel.h"

enum { POINTS = TL_WINOGRAD_POINTS };

static inline int32_t whole(int32_t n) { return (n + TL_VL - 1) / TL_VL * TL_VL; }

/* B^T d of six values. */
TL_INLINE void turn_in(const tl_vf *d, tl_vf *t) {
  tl_vf a = d[4] - 4.0f * d[2], b = d[3] - 4.0f * d[1], e = d[4] - d[2], f = 2.0f * (d[3] - d[1]);
  t[0] = 4.0f * d[0] - 5.0f * d[2] + d[4];
  t[1] = a + b;
  t[2] = a - b;
  t[3] = e + f;
  t[4] = e - f;
  t[5] = 4.0f * d[1] - 5.0f * d[3] + d[5];
}

/* A^T m of six values. */
TL_INLINE void turn_out(const tl_vf *m, tl_vf *y) {
  tl_vf a = m[1] + m[2], b = m[1] - m[2], c = m[3] + m[4], d = m[3] - m[4];
  y[0] = m[0] + a + c;
  y[1] = b + 2.0f * d;
  y[2] = a + 4.0f * c;
  y[3] = b + 8.0f * d + m[5];
}

/* G g of three values. */
TL_INLINE void turn_weights(const tl_vf *g, tl_vf *t) {
  tl_vf sum = (g[0] + g[2]) * (1.0f / 6.0f), far = g[0] * (1.0f / 24.0f) + g[2] * (1.0f / 6.0f);
  t[0] = 0.25f * g[0];
  t[1] = -sum - g[1] * (1.0f / 6.0f);
  t[2] = -sum + g[1] * (1.0f / 6.0f);
  t[3] = far + g[1] * (1.0f / 12.0f);
  t[4] = far - g[1] * (1.0f / 12.0f);
  t[5] = g[2];
}

typedef struct {
  int32_t rows, columns; /* tiles of one image */
  int32_t count;
} grid;

static grid grid_of(const tl_conv_shape *s) {
  grid g = {(s->oh + 3) / 4, (s->ow + 3) / 4, 0};
  g.count = s->n * g.rows * g.columns;
  return g;
}

/* Inputs of one tile to v[point][.][c], `step` floats from point to point. */
static void tile_in(const tl_winograd *p, const grid *g, int32_t tile, float *v, int64_t step) {
  const tl_conv_shape *s = &p->s;
  int32_t row = tile / g->columns, n = row / g->rows;
  int32_t iy = (row - n * g->rows) * 4 - s->pt, ix = (tile - row * g->columns) * 4 - s->pl;
  for (int32_t c = 0; c < s->c; c += TL_VL) {
    tl_vf half[6][6];
    for (int y = 0; y < 6; y++) {
      const float *from = p->x + (((int64_t)n * s->h + iy + y) * s->w + ix) * s->c + c;
      tl_vf d[6];
      for (int x = 0; x < 6; x++) {
        int inside = iy + y >= 0 && iy + y < s->h && ix + x >= 0 && ix + x < s->w;
        d[x] = inside ? tl_load_part(from + (int64_t)x * s->c, s->c - c) : (tl_vf){0};
      }
      turn_in(d, half[y]);
    }
    for (int x = 0; x < 6; x++) {
      tl_vf column[6], t[6];
      for (int y = 0; y < 6; y++) column[y] = half[y][x];
      turn_in(column, t);
      for (int y = 0; y < 6; y++) tl_save(v + (y * 6 + x) * step + c, t[y]);
    }
  }
}

/* Results of one tile from m[point][.][o], columns first .. last-1. */
static void tile_out(const tl_winograd *p, const grid *g, int32_t tile, const float *m, int64_t step, int32_t first,
                     int32_t last) {
  const tl_conv_shape *s = &p->s;
  const tl_finish *f = &p->finish;
  const int masks = tl_masks_in_registers(s->o);
  int32_t row = tile / g->columns, n = row / g->rows;
  int32_t oy = (row - n * g->rows) * 4, ox = (tile - row * g->columns) * 4;
  for (int32_t o = first; o < last; o += TL_VL) {
    tl_vf half[6][4], bias = {0};
    int32_t width = s->o - o;
    if (f->bias) bias = tl_load_part(f->bias + o, width);
    for (int x = 0; x < 6; x++) {
      tl_vf column[6], t[4];
      for (int y = 0; y < 6; y++) column[y] = tl_load(m + (y * 6 + x) * step + (o - first));
      turn_out(column, t);
      for (int y = 0; y < 4; y++) half[x][y] = t[y];
    }
    for (int y = 0; y < 4 && oy + y < s->oh; y++) {
      tl_vf line[6], t[4];
      for (int x = 0; x < 6; x++) line[x] = half[x][y];
      turn_out(line, t);
      for (int x = 0; x < 4 && ox + x < s->ow; x++) {
        int32_t at = ((n * s->oh + oy + y) * s->ow + ox + x) * s->o + o;
        tl_vf v = t[x] + bias;
        if (f->add) v += tl_load_part(f->add + at, width);
        tl_save_part(p->y + at, tl_finish_value(f, v, at, masks), width);
      }
    }
  }
}

void tl_winograd_part(const void *winograd, int32_t part, int32_t parts) {
  const tl_winograd *p = winograd;
  const tl_conv_shape *s = &p->s;
  const grid g = grid_of(s);
  const int32_t c = whole(s->c), block = tl_winograd_block(s->c, s->o), by_tiles = g.count >= parts * 48;
  const int32_t low = by_tiles ? 0 : tl_panel_bound(s->o, part, parts);
  const int32_t high = by_tiles ? s->o : tl_panel_bound(s->o, part + 1, parts), o = whole(high - low);
  const int32_t last = by_tiles ? tl_bound(g.count, 8, part + 1, parts) : g.count;
  float *v = p->tiles + part * tl_winograd_floats(s->c, s->o), *m = v + (int64_t)POINTS * block * c;
  if (low == high) return;
  for (int32_t tile = by_tiles ? tl_bound(g.count, 8, part, parts) : 0; tile < last; tile += block) {
    int32_t count = block < last - tile ? block : last - tile;
    int64_t in = (int64_t)count * c, out = (int64_t)count * o;
    for (int32_t i = 0; i < count; i++) tile_in(p, &g, tile + i, v + (int64_t)i * c, in);
    for (int32_t e = 0; e < POINTS; e++) {
      tl_gemm product = {.a = v + e * in, .b = p->panels + ((int64_t)e * whole(s->o) + low) * s->c, .c = m + e * out,
                         .m = count, .k = s->c, .n = high - low, .a_row = c, .a_depth = 1, .ldc = o,
                         .finish = {.lo = -__builtin_inff(), .hi = __builtin_inff()}};
      tl_gemm_range(&product, 0, count);
    }
    for (int32_t i = 0; i < count; i++) tile_out(p, &g, tile + i, m + (int64_t)i * o, out, low, high);
  }
}

/* The 36 points of TL_VL neighbouring weights, taps `step` floats apart; backward: taps in the opposite order. */
static void points_of(const float *w, int32_t width, int64_t step, int backward, tl_vf *points) {
  tl_vf half[3][6];
  for (int y = 0; y < 3; y++) {
    tl_vf g[3];
    for (int x = 0; x < 3; x++) g[x] = tl_load_part(w + (backward ? 8 - (y * 3 + x) : y * 3 + x) * step, width);
    turn_weights(g, half[y]);
  }
  for (int x = 0; x < 6; x++) {
    tl_vf column[3] = {half[0][x], half[1][x], half[2][x]}, t[6];
    turn_weights(column, t);
    for (int y = 0; y < 6; y++) points[y * 6 + x] = t[y];
  }
}

/* One panel of columns col .. col+width-1: rows are the other channel. */
static void gradient_panel(const tl_winograd_pack *p, int32_t col, int32_t width, float *to, int64_t step) {
  tl_vf points[POINTS];
  for (int32_t o = 0; o < p->o; o++)
    for (int32_t j = 0; j < width; j += TL_VL) {
      points_of(p->w + (int64_t)o * 9 * p->c + col + j, p->c - col - j, p->c, 1, points);
      for (int e = 0; e < POINTS; e++) tl_save(to + e * step + o * width + j, points[e]);
    }
}

static void forward_panel(const tl_winograd_pack *p, int32_t col, int32_t width, float *to, int64_t step) {
  float block[3 * TL_VL][POINTS][TL_VL];
  for (int32_t c = 0; c < p->c; c += TL_VL) {
    int32_t rows = p->c - c < TL_VL ? p->c - c : TL_VL;
    for (int32_t j = 0; j < width; j++) {
      tl_vf points[POINTS] = {{0}};
      if (col + j < p->o) points_of(p->w + (int64_t)(col + j) * 9 * p->c + c, p->c - c, p->c, 0, points);
      memcpy(block[j], points, sizeof points);
    }
    for (int e = 0; e < POINTS; e++)
      for (int32_t i = 0; i < rows; i++)
        for (int32_t j = 0; j < width; j++) to[e * step + (c + i) * width + j] = block[j][e][i];
  }
}

void tl_winograd_pack_part(const void *pack, int32_t part, int32_t parts) {
  const tl_winograd_pack *p = pack;
  const int32_t columns = p->gradient ? p->c : p->o, rows = p->gradient ? p->o : p->c;
  const int64_t step = (int64_t)whole(columns) * rows;
  int32_t vectors, index = 0;
  for (int32_t col = 0; col < columns; col += vectors * TL_VL, index++) {
    vectors = tl_panel_vectors((columns - col + TL_VL - 1) / TL_VL);
    float *to = p->panels + (int64_t)col * rows;
    if (index % parts != part) continue;
    if (p->gradient) {
      gradient_panel(p, col, vectors * TL_VL, to, step);
    } else {
      forward_panel(p, col, vectors * TL_VL, to, step);
    }
  }
}
