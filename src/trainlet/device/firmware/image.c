#include "image.h"

#include "program_config.h"
#include "semihosting.h"

enum { EXIT_INPUT = 3, PIECE = 64 };

static int32_t from;
static uint32_t at, end; /* bytes of the images: behind us, and in all */

static void get(void *to, uint32_t size) {
  if (at + size > end || tl_file_read(from, to, size) != 0) {
    tl_console("rows are asked for twice, or job.bin is too short\n");
    tl_exit(EXIT_INPUT);
  }
  at += size;
}

static void pass_over(uint32_t until) {
  uint8_t piece[PIECE];
  while (at < until) get(piece, until - at < PIECE ? until - at : PIECE);
}

void tl_image_begin(int32_t file, uint32_t bytes) {
  from = file;
  at = 0;
  end = bytes;
}

void tl_image_rows(void *context, int32_t first, int32_t count, int8_t *to) {
  (void)context;
  pass_over((uint32_t)first * TL_ROW_BYTES);
  if (at != (uint32_t)first * TL_ROW_BYTES) end = 0; /* rows that are gone: get complains */
  get(to, (uint32_t)count * TL_ROW_BYTES);
}

void tl_image_end(void) { pass_over(end); }
