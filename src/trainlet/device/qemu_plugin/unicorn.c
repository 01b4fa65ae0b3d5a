/* The same counts under Unicorn: a block hook. Unicorn tells a block's bytes; its instructions are counted in them. */
#include <stdlib.h>

#include "count.h"
#include "transfers.h"

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
  count_code(bytes, from, size, is_thumb);
  blocks = calloc(size / 2 + 1, sizeof *blocks);
  return blocks == NULL || count_open(table, result) != 0;
}

static block *count_instructions(uint32_t at, uint32_t bytes) {
  uint32_t n = 0;
  for (uint32_t i = at; i < at + bytes && i + 1 < code_bytes; n++) {
    i += instruction_bytes((uint16_t)(code[i] | code[i + 1] << 8), thumb);
  }
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

/* For tests: words of the transfer at these halfwords, negative for a store. */
EXPORT int hook_transfer(unsigned first, unsigned second, int is_thumb) {
  const transfer t = transfer_of((uint16_t)first, (uint16_t)second, is_thumb);
  return t.is_store ? -t.words : t.words;
}

EXPORT void hook_close(void) { count_close(); }
