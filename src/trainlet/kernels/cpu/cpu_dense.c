/* Forward, and input gradients at stride 1: a tile of patches times the panels of the weights. */
#include "tl_dense.h"

#include "tl_parallel.h"
#include "tl_patches.h"

enum { GRAIN = 24 };

static inline int32_t least(int32_t a, int32_t b) { return a < b ? a : b; }

void tl_dense_rows(const void *dense, int32_t part, int32_t parts) {
  const tl_dense *d = dense;
  const tl_conv_shape *s = &d->s;
  const int32_t k = s->kh * s->kw * s->c, positions = s->n * s->oh * s->ow, tile = tl_dense_tile(k);
  const int32_t last = tl_bound(positions, GRAIN, part + 1, parts);
  float *patches = d->tiles + part * ((int64_t)tile * k + TL_VL);
  for (int32_t p = tl_bound(positions, GRAIN, part, parts); p < last; p += tile) {
    int32_t count = least(tile, last - p);
    int64_t at = (int64_t)p * s->o;
    tl_fill_patches(s, d->x, p, count, 0, k, patches, k);
    tl_gemm g = {.a = patches, .b = d->panels, .c = d->y + at, .m = count, .k = k, .n = s->o, .a_row = k, .a_depth = 1,
                 .ldc = s->o, .finish = d->finish};
    if (g.finish.add) g.finish.add += at;
    if (g.finish.mask) g.finish.mask += at / 8;
    if (g.finish.keep) g.finish.keep += at / 8;
    tl_gemm_range(&g, 0, count);
  }
}

void tl_pack_grad_panels(const void *pack, int32_t part, int32_t parts) {
  const tl_pack_grad *t = pack;
  int32_t vectors, index = 0, k = t->used * t->o;
  for (int32_t col = 0; col < t->c; col += vectors * TL_VL, index++) {
    vectors = tl_panel_vectors((t->c - col + TL_VL - 1) / TL_VL);
    float *to = t->panels + (int64_t)col * k;
    for (int32_t i = 0; index % parts == part && i < t->used; i++)
      for (int32_t o = 0; o < t->o; o++, to += vectors * TL_VL) {
        const float *from = t->w + ((int64_t)o * t->taps + t->list[i]) * t->c + col;
        for (int32_t v = 0; v < vectors; v++)
          tl_save(to + v * TL_VL, tl_load_part(from + v * TL_VL, t->c - col - v * TL_VL));
      }
  }
}
