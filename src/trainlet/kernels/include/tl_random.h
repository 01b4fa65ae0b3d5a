/* A counter-based generator: the i-th number of a key needs no state and no order. uint32 arithmetic, modulo 2^32.
 *
 *   mix(x):  x ^= x >> 16;  x *= 0x85ebca6b;  x ^= x >> 13;  x *= 0xc2b2ae35;  x ^= x >> 16
 *   key     = mix(mix(mix(seed + 0x9e3779b9) + step) + stream)
 *   bits(i) = mix(mix(key + i * 0x9e3779b9) + (key ^ 0x6a09e667))
 * mix is the 32-bit finalizer of MurmurHash3 (Appleby, public domain). The key enters twice so that two keys that
 * differ by a multiple of the stride do not give shifted copies of one sequence.
 */
#ifndef TL_RANDOM_H
#define TL_RANDOM_H

#include <stdint.h>

static inline uint32_t tl_mix(uint32_t x) {
  x ^= x >> 16;
  x *= 0x85ebca6bu;
  x ^= x >> 13;
  x *= 0xc2b2ae35u;
  return x ^ (x >> 16);
}

static inline uint32_t tl_random_key(uint32_t seed, uint32_t step, uint32_t stream) {
  return tl_mix(tl_mix(tl_mix(seed + 0x9e3779b9u) + step) + stream);
}

static inline uint32_t tl_random_bits(uint32_t key, uint32_t i) {
  return tl_mix(tl_mix(key + i * 0x9e3779b9u) + (key ^ 0x6a09e667u));
}

/* [0, 1) in multiples of 2^-24, exact in fp32. */
static inline float tl_uniform(uint32_t key, uint32_t i) {
  return (float)(int32_t)(tl_random_bits(key, i) >> 8) * (1.0f / 16777216.0f);
}

#endif
