/* What happens to a sum before it is stored: bias, clip with its mask, residual, the mask of a gradient.
 *
 *   v = sum + bias[c] + add[i];   mask[i] = lo < v < hi;   y[i] = keep[i] ? clip(v, lo, hi) : 0
 *
 * i: index in the result [positions][channels], c: its channel. Internal to the kernels of this folder.
 */
#ifndef TL_FINISH_H
#define TL_FINISH_H

#include "tl_simd.h"

typedef struct {
  const float *bias;   /* [channels], or NULL */
  const float *add;    /* like the result, may be the result, or NULL */
  float lo, hi;        /* -INFINITY, INFINITY: no clip */
  uint8_t *mask;       /* out, a bit an element, or NULL */
  const uint8_t *keep; /* in, a bit an element, or NULL */
} tl_finish;

/* Whether masks are handled register by register; otherwise tl_finish_masks has to follow. */
TL_INLINE int tl_masks_in_registers(int32_t channels) { return TL_MASK_IN_REGISTER && channels % TL_VL == 0; }

/* Bias and residual are already in v. masks: tl_masks_in_registers. at: index of the first lane. */
TL_INLINE tl_vf tl_finish_value(const tl_finish *f, tl_vf v, int32_t at, int masks) {
#if TL_MASK_IN_REGISTER
  if (masks && f->mask) tl_save_mask(f->mask + at / 8, v, f->lo, f->hi);
  v = tl_clip_v(v, f->lo, f->hi);
  if (masks && f->keep) v = tl_keep(v, f->keep + at / 8);
  return v;
#else
  (void)at, (void)masks;
  return tl_clip_v(v, f->lo, f->hi);
#endif
}

/* What an ending has beside bias and clip. Kernels whose sums are short are compiled once for each kind, so that nothing is
 * asked for each register. */
enum { TL_PLAIN, TL_WRITES_MASK, TL_KEEPS, TL_ANY_ENDING };

/* Whole registers only, but for TL_ANY_ENDING. */
static inline int32_t tl_finish_kind(const tl_finish *f, int32_t channels) {
  if (channels % TL_VL || f->add || (!TL_MASK_IN_REGISTER && (f->mask || f->keep))) return TL_ANY_ENDING;
  if (f->mask) return f->keep ? TL_ANY_ENDING : TL_WRITES_MASK;
  return f->keep ? TL_KEEPS : TL_PLAIN;
}

/* Ends and stores a sum that already has its bias. kind: tl_finish_kind of `channels`, a constant where it is called; at:
 * index in y of the first lane; width: channels that remain. *f should be a copy in the calling function: the compiler has
 * to read everything else again after each store. */
TL_INLINE void tl_finish_save(const tl_finish *f, float *y, tl_vf v, int32_t at, int32_t width, int32_t channels,
                              const int kind) {
  if (kind == TL_ANY_ENDING) {
    if (f->add) v += tl_load_part(f->add + at, width);
    tl_save_part(y + at, tl_finish_value(f, v, at, tl_masks_in_registers(channels)), width);
    return;
  }
#if TL_MASK_IN_REGISTER
  if (kind == TL_WRITES_MASK) tl_save_mask(f->mask + (uint32_t)at / 8, v, f->lo, f->hi);
#endif
  v = tl_clip_v(v, f->lo, f->hi);
#if TL_MASK_IN_REGISTER
  if (kind == TL_KEEPS) v = tl_keep(v, f->keep + (uint32_t)at / 8);
#endif
  tl_save(y + at, v);
}

/* `count` sums, `stride` elements apart, each as tl_finish_save does it. Endings of any kind are a loop: written
 * out for every sum they only take longer to compile. */
TL_INLINE void tl_finish_save_all(const tl_finish *f, float *y, const tl_vf *sums, const int count, int32_t at,
                                  int32_t stride, int32_t width, int32_t channels, const int kind) {
  if (kind == TL_ANY_ENDING) {
    tl_vf kept[8];
    TL_UNROLL(8)
    for (int i = 0; i < count; i++) kept[i] = sums[i];
    TL_ROLLED
    for (int i = 0; i < count; i++) tl_finish_save(f, y, kept[i], at + i * stride, width, channels, kind);
    return;
  }
  TL_UNROLL(8)
  for (int i = 0; i < count; i++) tl_finish_save(f, y, sums[i], at + i * stride, width, channels, kind);
}

/* Masks of the stored elements first .. last-1; first is a multiple of 8. A clipped value lies strictly inside exactly
 * where the unclipped one did. */
static inline void tl_finish_masks(const tl_finish *f, float *y, int32_t first, int32_t last) {
  if (!f->mask && !f->keep) return;
  for (int32_t i = first; i < last; i += 8) {
    uint32_t bits = 0, kept = f->keep ? f->keep[i / 8] : 255u;
    for (int32_t j = 0; j < 8 && i + j < last; j++) {
      float value = y[i + j];
      bits |= (uint32_t)((value > f->lo) & (value < f->hi)) << j;
      if (!(kept >> j & 1u)) y[i + j] = 0.0f;
    }
    if (f->mask) f->mask[i / 8] = (uint8_t)bits;
  }
}

#endif
