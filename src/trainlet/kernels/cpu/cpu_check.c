#include "tl_check.h"

#include <stddef.h>

#if defined(__x86_64__)
/* The features are those of the flags this file is compiled with; the code is for any x86-64. */
#define LACKS(name) (!__builtin_cpu_supports(name))

__attribute__((target("arch=x86-64"))) const char *tl_missing_feature(void) {
  __builtin_cpu_init();
#ifdef __AVX__
  if (LACKS("avx")) return "avx";
#endif
#ifdef __AVX2__
  if (LACKS("avx2")) return "avx2";
#endif
#ifdef __FMA__
  if (LACKS("fma")) return "fma";
#endif
#ifdef __BMI2__
  if (LACKS("bmi2")) return "bmi2";
#endif
#ifdef __AVX512F__
  if (LACKS("avx512f")) return "avx512f";
#endif
#ifdef __AVX512VL__
  if (LACKS("avx512vl")) return "avx512vl";
#endif
  return NULL;
}
#else
const char *tl_missing_feature(void) { return NULL; }
#endif
