/* dw[o][tap][c] = sum over positions of dy[p][o] * x[p + tap][c], a block of rows and columns at a time.
 *
 * TL_LANES columns of TILE positions are converted to a tile f32 (centred, 0 in the padding), which is then the
 * panel of every row: acc[o][j] += dy[p][o] * tile[p][j]. The columns are flat over (tap, c), so a block may span
 * taps. scratch: tile f32 [TILE][lanes], gradients f32 [ROWS][lanes], half each.
 */
#include "tl_block.h"
#include "tl_conv.h"
#include "tl_window.h"

enum { TILE = TL_CONV_SCRATCH_BYTES / 8 / TL_LANES, ROWS = TL_CONV_SCRATCH_BYTES / 8 / TL_LANES };

typedef struct {
  const tl_conv_shape *s;
  const tl_grad_x *x;
  int32_t channels, group;  /* columns per tap; the group whose channels they are */
  int32_t col, width;       /* first column, columns in use */
  float *tile;
} block;

static inline void centre(const tl_grad_x *x, int32_t from, int32_t count, float *to) {
  if (x->f32) {
    for (int32_t j = 0; j < count; j++) to[j] = x->f32[from + j];
  } else {
    for (int32_t j = 0; j < count; j++) to[j] = (float)(x->s8[from + j] - x->zero);
  }
}

static void fill_row(const block *b, const tl_window *at, float *row) {
  const tl_conv_shape *s = b->s;
  for (int32_t j = 0; j < b->width;) {
    int32_t tap = (b->col + j) / b->channels, c = b->col + j - tap * b->channels;
    int32_t ky = tap / s->kw, kx = tap - ky * s->kw, count = tl_min(b->channels - c, b->width - j);
    if (tl_window_has(s, at, ky, kx)) {
      int32_t pixel = at->pixel + ky * s->dh * s->w + kx * s->dw;
      int32_t from = pixel * b->x->k + b->group * b->channels + c;
      if (count == TL_LANES) {
        centre(b->x, from, TL_LANES, row + j);
      } else {
        centre(b->x, from, count, row + j);
      }
    } else {
      memset(row + j, 0, (size_t)count * sizeof *row);
    }
    j += count;
  }
}

static void fill_tile(const block *b, int32_t p, int32_t count) {
  if (b->width < TL_LANES) memset(b->tile, 0, (size_t)(count * TL_LANES) * sizeof *b->tile);
  if (tl_window_is_row(b->s) && b->width == TL_LANES) { /* columns are the channels of one position */
    int32_t from = p * b->x->k + b->group * b->channels + b->col;
    for (int32_t i = 0; i < count; i++, from += b->x->k) centre(b->x, from, TL_LANES, b->tile + i * TL_LANES);
    return;
  }
  tl_window at = tl_window_of(b->s, p);
  for (int32_t i = 0; i < count; i++, tl_window_next(b->s, &at)) fill_row(b, &at, b->tile + i * TL_LANES);
}

/* grads[r][lanes] over all positions for output rows o .. o+rows-1. */
static void sum_positions(const block *b, const float *dy, int32_t o, int32_t rows, float *grads) {
  const tl_conv_shape *s = b->s;
  int32_t positions = s->n * s->oh * s->ow;
  memset(grads, 0, (size_t)(ROWS * TL_LANES) * sizeof *grads);
  for (int32_t p = 0; p < positions; p += TILE) {
    int32_t count = tl_min(TILE, positions - p);
    fill_tile(b, p, count);
    for (int32_t r = 0; r < rows; r += TL_ROWS) {
      tl_f32_lanes acc[TL_ROWS];
      const float *gradient[TL_ROWS];
      for (int32_t i = 0; i < TL_ROWS; i++) gradient[i] = dy + (p * s->o + o + tl_min(r + i, rows - 1));
      memcpy(acc, grads + r * TL_LANES, sizeof acc);
      tl_block_f32(acc, gradient, s->o, b->tile, count);
      memcpy(grads + r * TL_LANES, acc, sizeof acc);
    }
  }
}

void tl_conv_weight_grad(const tl_conv_shape *s, const tl_grad_x *x, const float *dy, const tl_update *u,
                         void *scratch) {
  float *grads = (float *)scratch + TL_CONV_SCRATCH_BYTES / 8;
  int32_t channels = x->k / s->groups, columns = s->kh * s->kw * channels, og = s->o / s->groups;
  for (int32_t group = 0; group < s->groups; group++)
    for (int32_t o = 0; o < og; o += ROWS)
      for (int32_t col = 0; col < columns; col += TL_LANES) {
        int32_t rows = tl_min(ROWS, og - o);
        block b = {s, x, channels, group, col, tl_min(TL_LANES, columns - col), scratch};
        sum_positions(&b, dy, group * og + o, rows, grads);
        for (int32_t r = 0; r < rows; r++) tl_update_row(u, group * og + o + r, col, grads + r * TL_LANES, b.width);
      }
}
