/* dx of strided or dilated convolutions, one class of pixels after another. */
#include "tl_dense.h"
#include "tl_parallel.h"

/* Pixels iy = ry + sh * i, ix = rx + sw * j, and the taps under which a dy lies. */
typedef struct {
  int32_t ry, rx, rows, columns;
  int32_t taps_y, taps_x;
  int32_t ky[16], kx[16];
} class_of;

static int32_t taps_of(int32_t remainder, int32_t pad, int32_t step, int32_t stride, int32_t size, int32_t *taps) {
  int32_t count = 0;
  for (int32_t k = 0; k < size && count < 16; k++)
    if ((remainder + pad - k * step) % stride == 0) taps[count++] = k;
  return count;
}

static class_of make_class(const tl_conv_shape *s, int32_t ry, int32_t rx) {
  class_of c = {ry, rx, (s->h - ry + s->sh - 1) / s->sh, (s->w - rx + s->sw - 1) / s->sw, 0, 0, {0}, {0}};
  c.taps_y = taps_of(ry, s->pt, s->dh, s->sh, s->kh, c.ky);
  c.taps_x = taps_of(rx, s->pl, s->dw, s->sw, s->kw, c.kx);
  return c;
}

/* Rows [taps][o] of dy for pixels p .. p+count-1 of a class. */
static void fill(const tl_conv_shape *s, const class_of *c, const float *dy, int32_t p, int32_t count, float *to) {
  for (int32_t i = 0; i < count; i++, p++) {
    int32_t row = p / c->columns, n = row / c->rows;
    int32_t iy = c->ry + s->sh * (row - n * c->rows), ix = c->rx + s->sw * (p - row * c->columns);
    for (int32_t y = 0; y < c->taps_y; y++)
      for (int32_t x = 0; x < c->taps_x; x++, to += s->o) {
        int32_t top = iy + s->pt - c->ky[y] * s->dh, left = ix + s->pl - c->kx[x] * s->dw;
        int32_t oy = top / s->sh, ox = left / s->sw;
        if (top < 0 || left < 0 || oy >= s->oh || ox >= s->ow) {
          memset(to, 0, (size_t)s->o * sizeof *to);
        } else {
          memcpy(to, dy + (((int64_t)n * s->oh + oy) * s->ow + ox) * s->o, (size_t)s->o * sizeof *to);
        }
      }
  }
}

/* Sums of pixels p .. p+count-1 to their places in dx. */
static void scatter(const tl_dense *d, const class_of *c, int32_t p, int32_t count, const float *sums) {
  const tl_conv_shape *s = &d->s;
  const tl_finish *f = &d->finish;
  int masks = tl_masks_in_registers(s->c);
  for (int32_t i = 0; i < count; i++, p++, sums += s->c) {
    int32_t row = p / c->columns, n = row / c->rows;
    int32_t iy = c->ry + s->sh * (row - n * c->rows), ix = c->rx + s->sw * (p - row * c->columns);
    int32_t at = ((n * s->h + iy) * s->w + ix) * s->c;
    for (int32_t j = 0; j < s->c; j += TL_VL) {
      int32_t width = s->c - j;
      tl_vf v = tl_load_part(sums + j, width);
      if (f->add) v += tl_load_part(f->add + at + j, width);
      tl_save_part(d->y + at + j, tl_finish_value(f, v, at + j, masks), width);
    }
    for (int32_t j = 0; !masks && f->keep && j < s->c; j++)
      if (!(f->keep[(at + j) / 8] >> ((at + j) % 8) & 1)) d->y[at + j] = 0.0f;
  }
}

void tl_dense_grad_rows(const void *dense, int32_t part, int32_t parts) {
  const tl_dense *d = dense;
  const tl_conv_shape *s = &d->s;
  const int32_t most = s->kh * s->kw * s->o, tile = tl_dense_tile(most);
  float *patches = d->tiles + part * ((int64_t)tile * (most + s->c) + TL_VL), *sums = patches + (int64_t)tile * most;
  const float *panels = d->panels;
  for (int32_t ry = 0; ry < s->sh; ry++)
    for (int32_t rx = 0; rx < s->sw; rx++) {
      class_of c = make_class(s, ry, rx);
      int32_t k = c.taps_y * c.taps_x * s->o, pixels = s->n * c.rows * c.columns;
      int32_t last = tl_bound(pixels, 8, part + 1, parts);
      for (int32_t p = tl_bound(pixels, 8, part, parts); p < last; p += tile) {
        int32_t count = tile < last - p ? tile : last - p;
        tl_gemm g = {.a = patches, .b = panels, .c = sums, .m = count, .k = k, .n = s->c, .a_row = k, .a_depth = 1,
                     .ldc = s->c, .finish = {.lo = -__builtin_inff(), .hi = __builtin_inff()}};
        fill(s, &c, d->x, p, count, patches);
        if (k) tl_gemm_range(&g, 0, count);
        if (!k) memset(sums, 0, (size_t)count * s->c * sizeof *sums);
        scatter(d, &c, p, count, sums);
      }
      panels += (int64_t)k * ((s->c + TL_VL - 1) / TL_VL * TL_VL);
    }
}
