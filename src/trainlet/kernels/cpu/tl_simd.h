/* One register of floats, as wide as the target has them: AVX-512, AVX2, NEON and SSE from one source.
 *
 * Vector types are the GNU extension that gcc and clang share. Only what it cannot say well (maximum, a bit an
 * element) has a body for an instruction set, each with a plain one beside it. Internal to the kernels of this folder.
 */
#ifndef TL_SIMD_H
#define TL_SIMD_H

#include <stdint.h>
#include <string.h>

#if defined(__AVX512F__)
#include <immintrin.h> /* slow to read: the few functions of AVX2 are written as the compilers' builtins below */
#elif defined(__ARM_NEON)
#include <arm_neon.h>
#endif

#if defined(__AVX512F__)
#define TL_VL 16
#elif defined(__AVX__)
#define TL_VL 8
#else
#define TL_VL 4
#endif

/* Vector registers: they decide how many rows of a product are summed at once. */
#if defined(__AVX512F__) || defined(__ARM_NEON)
#define TL_REGISTERS 32
#else
#define TL_REGISTERS 16
#endif

#define TL_INLINE static inline __attribute__((always_inline))

/* Before a loop over registers, whose count is a constant where it is inlined: written out, so that they stay registers
 * (gcc unrolls up to `most` times); or kept a loop. */
#define TL_PRAGMA(words) _Pragma(#words)
#if defined(__clang__)
#define TL_UNROLL(most) TL_PRAGMA(clang loop unroll(full))
#define TL_ROLLED TL_PRAGMA(clang loop unroll(disable))
#else
#define TL_UNROLL(most) TL_PRAGMA(GCC unroll most)
#define TL_ROLLED TL_PRAGMA(GCC unroll 1)
#endif

typedef float tl_vf __attribute__((vector_size(4 * TL_VL)));
typedef int32_t tl_vi __attribute__((vector_size(4 * TL_VL)));
typedef float tl_vf_memory __attribute__((vector_size(4 * TL_VL), aligned(4), may_alias));

TL_INLINE tl_vf tl_load(const float *p) { return *(const tl_vf_memory *)p; }
TL_INLINE void tl_save(float *p, tl_vf v) { *(tl_vf_memory *)p = v; }
TL_INLINE tl_vf tl_all(float x) { return x - (tl_vf){0}; }

/* The first `count` elements (none where count <= 0); the rest is 0. */
TL_INLINE tl_vf tl_load_part(const float *p, int32_t count) {
  if (count >= TL_VL) return tl_load(p);
  tl_vf v = {0};
  if (count <= 0) return v;
  memcpy(&v, p, (size_t)count * sizeof(float));
  return v;
}

TL_INLINE void tl_save_part(float *p, tl_vf v, int32_t count) {
  if (count >= TL_VL) {
    tl_save(p, v);
  } else if (count > 0) {
    memcpy(p, &v, (size_t)count * sizeof(float));
  }
}

TL_INLINE tl_vf tl_choose(tl_vi where, tl_vf yes, tl_vf no) {
  return (tl_vf)((where & (tl_vi)yes) | (~where & (tl_vi)no));
}

/* clip(v, lo, hi); a NaN gives lo. */
TL_INLINE tl_vf tl_clip_v(tl_vf v, float lo, float hi) {
#if defined(__AVX512F__)
  return _mm512_min_ps(_mm512_max_ps(v, _mm512_set1_ps(lo)), _mm512_set1_ps(hi));
#elif defined(__AVX__)
  return __builtin_ia32_minps256(__builtin_ia32_maxps256(v, tl_all(lo)), tl_all(hi));
#else
  tl_vf low = tl_all(lo), high = tl_all(hi);
  tl_vf above = tl_choose(v > low, v, low);
  return tl_choose(above < high, above, high);
#endif
}

/* Whether one register fills whole bytes of a mask, so that a mask is read and written where a result is stored. */
#define TL_MASK_IN_REGISTER (TL_VL >= 8)

#if TL_MASK_IN_REGISTER
/* Bit i: lo < v[i] < hi. */
TL_INLINE void tl_save_mask(uint8_t *to, tl_vf v, float lo, float hi) {
#if defined(__AVX512F__)
  uint16_t bits = (uint16_t)(_mm512_cmp_ps_mask(v, _mm512_set1_ps(lo), _CMP_GT_OQ) &
                             _mm512_cmp_ps_mask(v, _mm512_set1_ps(hi), _CMP_LT_OQ));
  memcpy(to, &bits, sizeof bits);
#else
  tl_vi inside = (v > tl_all(lo)) & (v < tl_all(hi));
  *to = (uint8_t)__builtin_ia32_movmskps256((tl_vf)inside);
#endif
}

/* v where the bit is 1, else 0. */
TL_INLINE tl_vf tl_keep(tl_vf v, const uint8_t *mask) {
#if defined(__AVX512F__)
  uint16_t bits;
  memcpy(&bits, mask, sizeof bits);
  return _mm512_maskz_mov_ps(bits, v);
#else
  const tl_vi bit = {1, 2, 4, 8, 16, 32, 64, 128};
  tl_vi all = (int32_t)*mask - (tl_vi){0};
  return (tl_vf)((tl_vi)v & ((all & bit) == bit));
#endif
}
#endif

#endif
