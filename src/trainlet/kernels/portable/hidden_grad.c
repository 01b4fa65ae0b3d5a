/* A loop over groups of hidden channels around the kernels for gradients. Each gets the slice of its operands that
 * belongs to the group: rows of weights and of what is updated, columns of masks and saved inputs.
 */
#include "tl_hidden.h"

#include <string.h>

static const void *advance(const void *at, int32_t bytes) { return at ? (const uint8_t *)at + bytes : NULL; }

static int32_t weight_bytes(tl_weight_kind kind) { return kind == TL_W_S8 ? 1 : 4; }

/* Rows from `first` on; taps: kernel taps, c: input channels of a group. */
static tl_weights rows_of_weights(const tl_weights *w, int32_t first, int32_t taps, int32_t c) {
  tl_weights rows = *w;
  rows.base = advance(w->base, first * taps * c * weight_bytes(w->kind_base));
  rows.trained = advance(w->trained, first * taps * w->k * weight_bytes(w->kind_trained));
  return rows;
}

/* The update of rows from `first` on, of row_len elements each. */
static tl_update rows_of_update(const tl_update *u, int32_t first, int32_t row_len) {
  tl_update rows = *u;
  int32_t elements = first * row_len;
  rows.w = (uint8_t *)u->w + elements * (u->stored == TL_T_S8 && u->rule > TL_ACCUMULATE ? 1 : 4);
  rows.fraction = u->fraction ? u->fraction + elements : NULL;
  rows.m = u->m ? u->m + elements : NULL;
  rows.v = u->v ? u->v + elements : NULL;
  rows.row_scale = u->row_scale ? u->row_scale + first : NULL;
  rows.first = u->first + (uint32_t)elements;
  return rows;
}

static void clamp_grad(const tl_clamp_grad *a, float *d, int32_t positions, int32_t channels, int32_t first,
                       int32_t count, void *scratch) {
  const tl_channel_slice slice = {positions, channels, first, count};
  if (a->scale) {
    tl_requantize_grad_slice(d, a->mask, a->scale, &slice);
  } else if (a->mask) {
    tl_mask_grad_slice(d, a->mask, a->factor, &slice);
  }
  if (a->bias) {
    const tl_update u = rows_of_update(a->bias, first, 1);
    tl_bias_grad(positions, count, d, &u, scratch);
  }
}

/* The depthwise dx of a group, from d to `to`, which is d where it is overwritten, unless the chain ends here; then its
 * weights. */
static void depthwise_grads(const tl_hidden_chain *a, int32_t first, int32_t count, float *d, float *to,
                            void *scratch) {
  tl_conv_shape s = *a->depthwise.shape;
  int32_t taps = s.kh * s.kw;
  s.c = s.o = s.groups = count;
  if (a->depthwise.weights) {
    const tl_weights w = rows_of_weights(a->depthwise.weights, first, taps, 1);
    if (a->overwrite) {
      tl_depthwise_input_grad_inplace(&s, d, &w, scratch);
    } else {
      tl_depthwise_input_grad(&s, d, &w, to, 0, scratch);
    }
  }
  if (a->depthwise.update) {
    tl_grad_x x = *a->depthwise.x;
    const tl_update u = rows_of_update(a->depthwise.update, first, taps);
    x.s8 = x.s8 ? x.s8 + first : NULL;
    x.f32 = x.f32 ? x.f32 + first : NULL;
    tl_depthwise_weight_grad(&s, &x, d, NULL, count, &u, scratch);
  }
}

static void maker_grads(const tl_hidden_chain *a, int32_t first, int32_t count, const float *d, float *dx,
                        int32_t accumulate, void *scratch) {
  tl_conv_shape s = *a->maker.shape;
  int32_t taps = s.kh * s.kw;
  s.o = count;
  if (dx) {
    const tl_weights w = rows_of_weights(a->maker.weights, first, taps, s.c);
    tl_conv_input_grad(&s, d, &w, dx, accumulate, scratch);
  }
  if (a->maker.update) {
    const tl_update u = rows_of_update(a->maker.update, first, a->maker.update->row_len);
    s.c = a->maker.x->k;
    tl_conv_weight_grad(&s, a->maker.x, d, &u, scratch);
  }
}

void tl_hidden_grad(const tl_hidden_chain *a, const float *dy, float *dx, int32_t accumulate, float *work,
                    void *scratch) {
  const tl_conv_shape *reader = a->reader.shape, *depthwise = a->depthwise.shape;
  int32_t channels = reader->c, positions = reader->n * reader->h * reader->w;
  int32_t group = channels < a->group ? channels : a->group;
  for (int32_t first = 0; first < channels; first += group) {
    int32_t count = channels - first < group ? channels - first : group;
    float *d = work;
    tl_conv_input_grad_slice(reader, dy, a->reader.weights, first, count, d, scratch);
    clamp_grad(&a->inner, d, positions, channels, first, count, scratch);
    if (depthwise) {
      if (!a->overwrite) d = work + group * positions;
      depthwise_grads(a, first, count, work, d, scratch);
    }
    if (depthwise && a->depthwise.weights)
      clamp_grad(&a->outer, d, depthwise->n * depthwise->h * depthwise->w, channels, first, count, scratch);
    if (a->maker.shape) maker_grads(a, first, count, d, dx, accumulate || first > 0, scratch);
  }
}
