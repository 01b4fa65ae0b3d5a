/* All of libc that an emitted program and the store call; memory.c holds the bodies. */
#ifndef TL_STRING_H
#define TL_STRING_H

#include <stddef.h>

/* memcpy may copy a buffer onto itself: a program whose sample is in place already does. */
void *memcpy(void *to, const void *from, size_t size);
void *memmove(void *to, const void *from, size_t size);
void *memset(void *to, int value, size_t size);
int memcmp(const void *a, const void *b, size_t size);

#endif
