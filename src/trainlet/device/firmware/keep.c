#include "keep.h"

#include "program_config.h"
#include "semihosting.h"
#include "store.h"
#include "string.h"

enum { UNIT = TL_FLASH_UNIT, SLOT_BYTES = TL_STORE_SLOT_BYTES(TL_STATE_BYTES, UNIT), BLOCK = TL_STORE_MAX_UNIT };
enum { EXIT_FLASH = 4, EXIT_POWER_CUT = 75 };

static int32_t file;
static uint32_t operations, cut, mode, noise;

static int move(int slot, uint32_t offset, void *to, const void *from, uint32_t length) {
  if (tl_file_seek(file, (uint32_t)slot * SLOT_BYTES + offset) != 0) return 1;
  return (to ? tl_file_read(file, to, length) : tl_file_write(file, from, length)) != 0;
}

static int read(void *ctx, int slot, uint32_t offset, void *dst, uint32_t length) {
  (void)ctx;
  return move(slot, offset, dst, NULL, length);
}

static uint8_t random(void) {
  noise = noise * 1664525u + 1013904223u;
  return (uint8_t)(noise >> 24);
}

/* What a cut leaves of a byte on its way to `to`. first: it lies in the first half of the operation. */
static uint8_t torn(uint8_t byte, uint8_t to, int first) {
  const uint8_t some = random(), other = random();
  switch (mode) {
    case TL_TEAR_FIRST_HALF: return first ? to : byte;
    case TL_TEAR_SECOND_HALF: return first ? byte : to;
    case TL_TEAR_SOME_BITS: return (uint8_t)((byte & ~some) | (to & some));
    case TL_TEAR_GARBAGE: return to == 0xff ? other : (uint8_t)(byte & other);
    case TL_TEAR_COMPLETE: return to;
    default: return byte;
  }
}

static int erase(void *ctx, int slot) {
  const int cut_here = operations++ == cut;
  uint8_t block[BLOCK];
  (void)ctx;
  for (uint32_t at = 0, n; at < SLOT_BYTES; at += n) {
    n = SLOT_BYTES - at < BLOCK ? SLOT_BYTES - at : BLOCK;
    if (move(slot, at, block, NULL, n)) return 1;
    for (uint32_t i = 0; i < n; i++) block[i] = cut_here ? torn(block[i], 0xff, at + i < SLOT_BYTES / 2) : 0xff;
    if (move(slot, at, NULL, block, n)) return 1;
  }
  if (cut_here) tl_exit(EXIT_POWER_CUT);
  return 0;
}

/* length <= BLOCK, as the store asks for. */
static int program(void *ctx, int slot, uint32_t offset, const void *src, uint32_t length) {
  const uint8_t *from = src;
  uint8_t block[BLOCK];
  (void)ctx;
  if (length > BLOCK || move(slot, offset, block, NULL, length)) return 1;
  for (uint32_t at = 0; at < length; at += UNIT) {
    const int cut_here = operations++ == cut;
    for (uint32_t i = at; i < at + UNIT; i++) {
      if (block[i] != 0xff) { /* a part with error correction would refuse */
        tl_console("a unit of flash is programmed twice between two erases\n");
        tl_exit(EXIT_FLASH);
      }
      block[i] = cut_here ? torn(block[i], from[i], i - at < (UNIT + 1) / 2) : from[i];
    }
    if (cut_here) {
      move(slot, offset, NULL, block, at + UNIT);
      tl_exit(EXIT_POWER_CUT);
    }
  }
  return move(slot, offset, NULL, block, length);
}

static const tl_store_flash flash = {NULL, SLOT_BYTES, UNIT, read, erase, program};

uint32_t tl_keep_load(void *state, uint32_t cut_at, uint32_t tear, uint32_t *status) {
  tl_store_slot slots[2];
  uint32_t newest = 0;
  cut = cut_at, mode = tear, noise = cut_at * 7u + tear * 977u + 1u;
  file = tl_file_open("flash.bin", 9, TL_FILE_UPDATE);
  *status = (uint32_t)tl_store_load(&flash, TL_MODEL_ID, state, TL_STATE_BYTES);
  tl_store_inspect(&flash, TL_MODEL_ID, slots);
  for (int i = 0; i < 2; i++) {
    if (slots[i].state == TL_SLOT_VALID && slots[i].sequence > newest) newest = slots[i].sequence;
  }
  return *status == TL_STORE_OK ? newest : 0;
}

uint32_t tl_keep_save(const void *state) {
  return (uint32_t)tl_store_save(&flash, TL_MODEL_ID, state, TL_STATE_BYTES);
}

uint32_t tl_keep_operations(void) { return operations; }
