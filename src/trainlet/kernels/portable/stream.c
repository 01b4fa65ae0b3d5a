/* Row streaming by demand: the last stage asks for the rows it needs, a stage that lacks input lets the one before it run.
 *
 * A window holds rows first .. next-1 of a tensor. What a kernel reads is contiguous, a small image whose height is the
 * kernel's: where the window is full, rows that no reader needs are dropped by moving the others up. A tensor whose
 * readers all want one row at a time is a ring, and nothing is moved.
 */
#include "tl_block.h"
#include "tl_stream.h"

/* Of the image (0) and of each stage (1 + i). caller: the stage that waits for this one. */
typedef struct {
  int16_t first, next, caller;
} progress;

typedef struct {
  const tl_stream_chain *chain;
  const int8_t *const *given;
  const tl_rows *rows;
  int8_t *y, *windows;
  progress *made;
  void *scratch;
  int32_t image;
} run;

/* Rows top .. end-1 of its input that a stage needs for its next row; top may lie above the first. */
static inline int32_t top_of(const run *a, int32_t i) {
  const tl_conv_shape *s = a->chain->stages[i].shape;
  return a->made[1 + i].next * s->sh - s->pt;
}

/* The first row of a tensor that a reader still needs, `none` where there is no reader left. */
static int32_t first_needed(const run *a, const tl_stream_window *w, int32_t none) {
  int32_t first = none, found = 0;
  for (int32_t k = 0; k < 2 && w->readers[k] != TL_STREAM_NONE; k++) {
    int32_t i = w->readers[k], top = top_of(a, i);
    if (a->made[1 + i].next == a->chain->stages[i].shape->oh) continue;
    if (top < 0) top = 0;
    first = found ? tl_min(first, top) : top;
    found = 1;
  }
  return first;
}

/* Place for `count` more rows. Rows that no reader needs are skipped. */
static void make_room(run *a, const tl_stream_window *w, progress *p, int32_t row_bytes, int32_t count) {
  int32_t needed = first_needed(a, w, p->next);
  if (needed <= p->next && p->next - p->first + count <= w->rows) return;
  if (!w->ring && needed < p->next) {
    int8_t *rows = a->windows + w->at;
    memmove(rows, rows + (needed - p->first) * row_bytes, (size_t)((p->next - needed) * row_bytes));
  }
  p->first = (int16_t)needed;
  if (p->next < needed) p->next = (int16_t)needed;
}

static int8_t *row_in(const run *a, const tl_stream_window *w, const progress *p, int32_t row, int32_t row_bytes) {
  return a->windows + w->at + (w->ring ? row % w->rows : row - p->first) * row_bytes;
}

/* Row `row` of what a stage reads, with those behind it. */
static const int8_t *source(const run *a, int32_t from, const tl_conv_shape *s, int32_t row) {
  int32_t row_bytes = s->w * s->c;
  if (from >= 0) return row_in(a, &a->chain->stages[from].window, &a->made[1 + from], row, row_bytes);
  if (from == -1 && a->rows) return row_in(a, &a->chain->image, &a->made[0], row, row_bytes);
  return a->given[-1 - from] + (a->image * s->h + row) * row_bytes;
}

static void read_image(run *a, const tl_conv_shape *s, int32_t end) {
  progress *p = &a->made[0];
  int32_t row_bytes = s->w * s->c;
  int32_t first = first_needed(a, &a->chain->image, p->next);
  make_room(a, &a->chain->image, p, row_bytes, end - (first > p->next ? first : p->next));
  a->rows->read(a->rows->context, a->rows->first + a->image * s->h + p->next, end - p->next,
                row_in(a, &a->chain->image, p, p->next, row_bytes));
  p->next = (int16_t)end;
}

/* The stage that must run before stage i can, or -1; of an image that comes by rows what is missing is read. */
static int32_t lacking(run *a, int32_t i) {
  const tl_stream_stage *g = &a->chain->stages[i];
  const tl_conv_shape *s = g->shape;
  int32_t end = tl_min(s->h, top_of(a, i) + (s->kh - 1) * s->dh + 1);
  for (int32_t k = 0; k < (g->kind == TL_STREAM_ADD ? 2 : 1); k++) {
    int32_t from = g->sources[k];
    if (from >= 0 && a->made[1 + from].next < end) return from;
    if (from == -1 && a->rows && a->made[0].next < end) read_image(a, s, end);
  }
  return -1;
}

static void add_row(const run *a, const tl_stream_stage *g, int32_t row, int8_t *y) {
  const tl_stream_sum *sum = g->sum;
  const tl_conv_shape *s = g->shape;
  const int8_t *left = source(a, g->sources[0], s, row), *right = source(a, g->sources[1], s, row);
  if (sum->fixed) {
    tl_add_s8_fixed(left, &sum->a, right, &sum->b, &sum->y, sum->lo, sum->hi, y, NULL, s->w * s->c);
  } else {
    tl_add_s8(left, sum->a.zero, sum->a_scale, right, sum->b.zero, sum->b_scale, sum->y_scale, sum->y.zero, y, NULL,
              s->w * s->c);
  }
}

static void window_row(const run *a, const tl_stream_stage *g, int32_t top, int8_t *y) {
  tl_conv_shape s = *g->shape;
  const tl_weights w = {TL_W_S8, g->weights, NULL, TL_W_S8, NULL, 0, g->w_zero};
  const tl_bias b = {g->bias, NULL};
  int32_t first = top < 0 ? 0 : top;
  const int8_t *x = source(a, g->sources[0], &s, first);
  s.n = 1;
  s.h = tl_min(s.h, top + (s.kh - 1) * s.dh + 1) - first;
  s.pt = first - top;
  s.oh = 1;
  if (g->kind == TL_STREAM_MAX) {
    tl_maxpool_s8(&s, x, y);
  } else if (g->kind == TL_STREAM_DEPTHWISE) {
    if (g->fixed) {
      tl_depthwise_s8_fixed(&s, x, g->x_zero, &w, &b, g->fixed, g->y_zero, y, NULL, a->scratch);
    } else {
      tl_depthwise_s8(&s, x, g->x_zero, &w, &b, g->scale, g->y_zero, y, NULL, a->scratch);
    }
  } else if (g->fixed) {
    tl_conv_s8_fixed(&s, x, g->x_zero, &w, &b, g->fixed, g->y_zero, y, NULL, a->scratch);
  } else {
    tl_conv_s8(&s, x, g->x_zero, &w, &b, g->scale, g->y_zero, y, NULL, a->scratch);
  }
}

static void run_row(run *a, int32_t i) {
  const tl_stream_stage *g = &a->chain->stages[i];
  const tl_conv_shape *s = g->shape;
  progress *p = &a->made[1 + i];
  int32_t row = p->next, row_bytes = s->ow * s->o;
  int8_t *y = i == a->chain->count - 1 ? a->y + (a->image * s->oh + row) * row_bytes
                                       : row_in(a, &g->window, p, row, row_bytes);
  if (g->kind == TL_STREAM_ADD) {
    add_row(a, g, row, y);
  } else {
    window_row(a, g, top_of(a, i), y);
  }
  p->next++;
}

static void stream_image(run *a) {
  int32_t last = a->chain->count - 1, i = last;
  while (a->made[1 + last].next < a->chain->stages[last].shape->oh) {
    int32_t from = lacking(a, i);
    if (from >= 0) {
      const tl_stream_stage *g = &a->chain->stages[from];
      make_room(a, &g->window, &a->made[1 + from], g->shape->ow * g->shape->o, 1);
      a->made[1 + from].caller = (int16_t)i;
      i = from;
    } else {
      run_row(a, i);
      if (i < last) i = a->made[1 + i].caller;
    }
  }
}

void tl_stream_s8(const tl_stream_chain *chain, const int8_t *const *given, const tl_rows *rows, int8_t *y,
                  int8_t *windows, void *scratch) {
  progress *made = (progress *)(void *)windows;
  run a = {chain, given, rows, y, windows, made, scratch, 0};
  for (; a.image < chain->stages[0].shape->n; a.image++) {
    memset(made, 0, (size_t)(chain->count + 1) * sizeof *made);
    stream_image(&a);
  }
}
