/* memcpy, memmove, memset: by words where both ends allow it, four at a time; memcmp for the store. */
#include <stdint.h>

#include "string.h"

typedef uint32_t __attribute__((may_alias)) word;

static int aligned(const void *a, const void *b) { return (((uintptr_t)a | (uintptr_t)b) & 3u) == 0; }

/* From the first byte on: also right where `to` lies before `from` in the same buffer, or is the same. */
static void ascend(uint8_t *d, const uint8_t *s, size_t size) {
  if (aligned(d, s)) {
    for (; size >= 16; size -= 16, d += 16, s += 16) {
      word a = ((const word *)s)[0], b = ((const word *)s)[1], c = ((const word *)s)[2], e = ((const word *)s)[3];
      ((word *)d)[0] = a, ((word *)d)[1] = b, ((word *)d)[2] = c, ((word *)d)[3] = e;
    }
    for (; size >= 4; size -= 4, d += 4, s += 4) *(word *)d = *(const word *)s;
  }
  while (size--) *d++ = *s++;
}

void *memcpy(void *to, const void *from, size_t size) {
  ascend(to, from, size);
  return to;
}

void *memmove(void *to, const void *from, size_t size) {
  uint8_t *d = to;
  const uint8_t *s = from;
  if (d <= s || d >= s + size) {
    ascend(d, s, size);
  } else {
    while (size--) d[size] = s[size];
  }
  return to;
}

void *memset(void *to, int value, size_t size) {
  uint8_t *d = to;
  if (aligned(to, to)) {
    word fill = (uint8_t)value * 0x01010101u;
    for (; size >= 16; size -= 16, d += 16) ((word *)d)[0] = ((word *)d)[1] = ((word *)d)[2] = ((word *)d)[3] = fill;
    for (; size >= 4; size -= 4, d += 4) *(word *)d = fill;
  }
  while (size--) *d++ = (uint8_t)value;
  return to;
}

int memcmp(const void *a, const void *b, size_t size) {
  const uint8_t *x = a, *y = b;
  for (; size > 0; size--, x++, y++) {
    if (*x != *y) return *x - *y;
  }
  return 0;
}
