/* Images that a program asks for by rows, out of the file that samples arrive in: at no time is one in memory whole. */
#ifndef TL_IMAGE_H
#define TL_IMAGE_H

#include <stdint.h>

/* The next `bytes` of the file are the images of one call. */
void tl_image_begin(int32_t file, uint32_t bytes);

/* NAME_rows of an emitted header. */
void tl_image_rows(void *context, int32_t first, int32_t count, int8_t *to);

/* Passes over what the call did not ask for. */
void tl_image_end(void);

#endif
