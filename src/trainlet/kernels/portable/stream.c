/* Row streaming by demand: the last stage asks for the rows it needs, a stage that lacks input lets the one before it run.
 *
 * Each window holds rows first .. next-1 of a stage's result. A row that no later row needs is dropped by moving the others
 * up, so that what a kernel reads is contiguous: a small image whose height is the window's.
 */
#include "tl_block.h"
#include "tl_pointwise_s8.h"
#include "tl_stream.h"

typedef struct {
  int8_t *rows;
  int32_t first, next, row_bytes;
} window;

typedef struct {
  const tl_stream_stage *stages;
  const int8_t *x; /* the image being computed */
  window out[TL_STREAM_STAGES];
  void *scratch;
} stream;

/* Rows lo .. hi-1 of its input that a stage needs for its next row. */
static void needed(const stream *a, int32_t i, int32_t *top, int32_t *lo, int32_t *hi) {
  const tl_conv_shape *s = a->stages[i].shape;
  *top = a->out[i].next * s->sh - s->pt;
  *lo = *top < 0 ? 0 : *top;
  *hi = tl_min(s->h, *top + (s->kh - 1) * s->dh + 1);
}

static void drop_before(window *w, int32_t row) {
  if (row <= w->first) return;
  if (row < w->next) {
    memmove(w->rows, w->rows + (row - w->first) * w->row_bytes, (size_t)((w->next - row) * w->row_bytes));
  } else {
    w->next = row;
  }
  w->first = row;
}

static void run_row(stream *a, int32_t i, int32_t top, int32_t lo, int32_t hi) {
  const tl_stream_stage *g = &a->stages[i];
  window *w = &a->out[i];
  tl_conv_shape s = *g->shape;
  const int8_t *x = i == 0 ? a->x + lo * s.w * s.c : a->out[i - 1].rows;
  int8_t *y = w->rows + (w->next - w->first) * w->row_bytes;
  if (g->kind == TL_STREAM_ADD) {
    const int8_t *b = a->x + w->next * w->row_bytes;
    tl_add_s8(x, g->x_zero, g->x_scale, b, g->b_zero, g->b_scale, g->y_scale, g->y_zero, y, NULL, w->row_bytes);
  } else {
    s.n = 1;
    s.h = hi - lo;
    s.pt = lo - top;
    s.oh = 1;
    if (g->kind == TL_STREAM_DEPTHWISE) {
      tl_depthwise_s8(&s, x, g->x_zero, &g->weights, &g->bias, g->scale, g->y_zero, y, NULL, a->scratch);
    } else {
      tl_conv_s8(&s, x, g->x_zero, &g->weights, &g->bias, g->scale, g->y_zero, y, NULL, a->scratch);
    }
  }
  w->next++;
}

static void stream_image(stream *a, int32_t count) {
  int32_t last = count - 1, i = last;
  while (a->out[last].next < a->stages[last].shape->oh) {
    int32_t top, lo, hi;
    needed(a, i, &top, &lo, &hi);
    if (i > 0) drop_before(&a->out[i - 1], lo);
    if (i > 0 && a->out[i - 1].next < hi) {
      i--;
    } else {
      run_row(a, i, top, lo, hi);
      if (i < last) i++;
    }
  }
}

void tl_stream_s8(const tl_stream_stage *stages, int32_t count, const int8_t *x, int8_t *y, int8_t *windows,
                  void *scratch) {
  const tl_conv_shape *in = stages[0].shape, *end = stages[count - 1].shape;
  stream a = {.stages = stages, .scratch = scratch};
  for (int32_t image = 0; image < in->n; image++) {
    int8_t *rows = windows;
    a.x = x + image * in->h * in->w * in->c;
    for (int32_t i = 0; i < count; i++) {
      const tl_conv_shape *s = stages[i].shape;
      a.out[i] = (window){rows, 0, 0, s->ow * s->o};
      if (i == count - 1) break;
      const tl_conv_shape *reader = stages[i + 1].shape;
      rows += tl_min((reader->kh - 1) * reader->dh + 1, s->oh) * s->ow * s->o;
    }
    a.out[count - 1].rows = y + image * end->oh * end->ow * end->o;
    stream_image(&a, count);
  }
}
