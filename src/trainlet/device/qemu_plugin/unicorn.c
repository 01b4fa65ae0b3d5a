/* The same counts under Unicorn: a block hook. Unicorn tells a block's bytes; its instructions are counted in them. */
#include <stdlib.h>

#include "count.h"

#define EXPORT __attribute__((visibility("default")))

typedef struct known {
  struct known *next;
  uint32_t bytes;
  block *counted;
} known;

static const uint8_t *code;
static uint32_t origin, code_bytes;
static int thumb;
static known **blocks; /* by halfword of the code */

/* code: `bytes` at address `from`. is_thumb: else RISC-V. 0 on success. */
EXPORT int hook_open(const char *table, const char *result, const uint8_t *bytes, uint32_t from, uint32_t size,
                     int is_thumb) {
  code = bytes, origin = from, code_bytes = size, thumb = is_thumb;
  blocks = calloc(size / 2 + 1, sizeof *blocks);
  return blocks == NULL || count_open(table, result) != 0;
}

static uint32_t instruction_bytes(uint32_t at) {
  if (thumb) return code[at + 1] >> 3 >= 0x1d ? 4 : 2;
  return (code[at] & 3) == 3 ? 4 : 2;
}

static block *count_instructions(uint32_t at, uint32_t bytes) {
  uint32_t n = 0;
  for (uint32_t i = at; i < at + bytes && i < code_bytes; i += instruction_bytes(i)) n++;
  return count_make_block(origin + at, n);
}

EXPORT void hook_block(void *engine, uint64_t address, uint32_t bytes, void *data) {
  (void)engine, (void)data;
  const uint32_t at = (uint32_t)address - origin;
  if (at >= code_bytes) return;
  known *k = blocks[at / 2];
  while (k && k->bytes != bytes) k = k->next;
  if (!k) {
    k = calloc(1, sizeof *k);
    if (!k) abort();
    k->bytes = bytes, k->counted = count_instructions(at, bytes), k->next = blocks[at / 2];
    blocks[at / 2] = k;
  }
  count_run(k->counted);
}

EXPORT void hook_close(void) { count_close(); }
