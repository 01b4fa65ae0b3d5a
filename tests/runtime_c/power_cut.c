/* Cuts the power in every erase and every program operation of saves and resets, on a simulated NOR flash.
 *
 * The flash: an erase sets a slot to 0xff, programming only clears bits, in whole units, each once per erase (as parts
 * with error correction demand); anything else ends the test with code 2. One unit is one operation. A cut tears its
 * operation in one of the modes below and returns to the boot code by longjmp: nothing after it runs.
 *
 * Prints one line of JSON with counts; the caller judges them. Usage: power_cut UNIT LENGTH
 */
#include "store.h"

#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SLOT_BYTES 1536
#define MODEL 0x0123456789abcdefu

enum { NOTHING, FIRST_HALF, SECOND_HALF, SOME_BITS, GARBAGE, UNREADABLE, COMPLETE, MODES };

typedef struct {
  uint8_t bytes[2][SLOT_BYTES];
  uint8_t used[2][SLOT_BYTES]; /* not erased since it was programmed or torn */
  uint8_t dead[2][SLOT_BYTES]; /* a read of it fails */
} nor;

static struct {
  nor flash;
  uint32_t unit;
  long operations, cut_at;
  int mode, cut_erase, cut_slot;
  uint32_t random;
  jmp_buf boot;
} sim;

static struct {
  long cases, old, fresh, lost, corrupt, early, stuck;
} seen;

static uint8_t noise(void) {
  sim.random = sim.random * 1664525u + 1013904223u;
  return (uint8_t)(sim.random >> 24);
}

static void expect(int holds, const char *what) {
  if (holds) return;
  printf("flash misuse: %s\n", what);
  exit(2);
}

/* What is left of `length` bytes on their way to `target` (NULL: to 0xff). */
static void tear(int slot, uint32_t offset, uint32_t length, const uint8_t *target) {
  for (uint32_t i = 0; i < length; i++) {
    uint8_t *byte = &sim.flash.bytes[slot][offset + i];
    const uint8_t to = target == NULL ? 0xff : target[i], some = noise(), other = noise();
    const int first = i < length / 2;
    const int moved = sim.mode == COMPLETE || (sim.mode == FIRST_HALF && first) || (sim.mode == SECOND_HALF && !first);
    if (moved) *byte = to;
    if (sim.mode == SOME_BITS) *byte = (uint8_t)((*byte & ~some) | (to & some));
    if (sim.mode == GARBAGE) *byte = target == NULL ? other : (uint8_t)(*byte & other);
    if (sim.mode != NOTHING) sim.flash.used[slot][offset + i] = 1;
    if (sim.mode == UNREADABLE) sim.flash.dead[slot][offset + i] = 1;
  }
}

static void cut_here(int slot, uint32_t offset, uint32_t length, const uint8_t *target) {
  if (sim.operations++ != sim.cut_at) return;
  tear(slot, offset, length, target);
  sim.cut_erase = target == NULL;
  sim.cut_slot = slot;
  longjmp(sim.boot, 1);
}

static int nor_read(void *ctx, int slot, uint32_t offset, void *dst, uint32_t length) {
  (void)ctx;
  expect(length <= SLOT_BYTES && offset <= SLOT_BYTES - length, "read outside the slot");
  for (uint32_t i = 0; i < length; i++) {
    if (sim.flash.dead[slot][offset + i]) return -1;
  }
  memcpy(dst, &sim.flash.bytes[slot][offset], length);
  return 0;
}

static int nor_erase(void *ctx, int slot) {
  (void)ctx;
  cut_here(slot, 0, SLOT_BYTES, NULL);
  memset(sim.flash.bytes[slot], 0xff, SLOT_BYTES);
  memset(sim.flash.used[slot], 0, SLOT_BYTES);
  memset(sim.flash.dead[slot], 0, SLOT_BYTES);
  return 0;
}

static int nor_program(void *ctx, int slot, uint32_t offset, const void *src, uint32_t length) {
  const uint8_t *from = (const uint8_t *)src;
  (void)ctx;
  expect(length <= SLOT_BYTES && offset <= SLOT_BYTES - length, "program outside the slot");
  expect(offset % sim.unit == 0 && length % sim.unit == 0, "program of part of a unit");
  expect((uintptr_t)src % 8 == 0, "source is not aligned");
  for (uint32_t at = 0; at < length; at += sim.unit) {
    for (uint32_t i = at; i < at + sim.unit; i++) expect(!sim.flash.used[slot][offset + i], "unit programmed twice");
    cut_here(slot, offset + at, sim.unit, from + at);
    for (uint32_t i = at; i < at + sim.unit; i++) {
      sim.flash.bytes[slot][offset + i] &= from[i];
      sim.flash.used[slot][offset + i] = 1;
    }
  }
  return 0;
}

static tl_store_flash flash_of(void) {
  tl_store_flash f = {NULL, 0, 0, nor_read, nor_erase, nor_program};
  f.unit = sim.unit;
  f.slot_size = SLOT_BYTES / sim.unit * sim.unit;
  return f;
}

static uint32_t length;

/* The state of a generation, different in every byte's neighbourhood. */
static const uint8_t *state(int generation) {
  static uint8_t bytes[SLOT_BYTES];
  for (uint32_t i = 0; i < length; i++) {
    bytes[i] = (uint8_t)tl_store_crc32((uint32_t)generation, &i, sizeof i);
  }
  return bytes;
}

/* Saves `generation` (-1: factory reset); the power is cut in operation `cut`. Whether it was cut. */
static int interrupted(int generation, long cut) {
  const tl_store_flash f = flash_of();
  sim.operations = 0;
  sim.cut_at = cut;
  if (setjmp(sim.boot) != 0) {
    sim.cut_at = -1;
    return 1;
  }
  const tl_store_status status = generation < 0 ? tl_store_reset(&f, MODEL)
                                                : tl_store_save(&f, MODEL, state(generation), length);
  sim.cut_at = -1;
  if (status != TL_STORE_OK) seen.stuck++;
  return 0;
}

/* After a boot: 0 nothing is saved, i + 1 generation i is, -1 something that nobody saved. */
static int loaded(int generations) {
  static uint8_t found[SLOT_BYTES];
  const tl_store_flash f = flash_of();
  const tl_store_status status = tl_store_load(&f, MODEL, found, length);
  if (status == TL_STORE_EMPTY || status == TL_STORE_DAMAGED || status == TL_STORE_UNREADABLE) return 0;
  if (status != TL_STORE_OK) return -1;
  for (int i = 0; i < generations; i++) {
    if (memcmp(found, state(i), length) == 0) return i + 1;
  }
  return -1;
}

/* old: what a load gave before the operation that was cut; fresh: what it gives once that is done. */
static int judge(int old, int fresh) {
  const int found = loaded(16);
  seen.cases++;
  if (found == fresh) {
    seen.fresh++;
  } else if (found == old) {
    seen.old++;
  } else if (found == 0) {
    seen.lost++;
  } else {
    seen.corrupt++;
  }
  return found;
}

/* Programming that is cut leaves no header: over half a payload it would have been the commit, too early. */
static void judge_header(void) {
  const tl_store_flash f = flash_of();
  tl_store_slot slots[2];
  tl_store_inspect(&f, MODEL, slots);
  if (!sim.cut_erase && slots[sim.cut_slot].state == TL_SLOT_DAMAGED) seen.early++;
}

/* The next save is cut as well: in its erase, its last operation, and one between; then one is left alone. */
static void go_on(int found, int generation, long cut) {
  const nor before = sim.flash;
  const long last = (long)(TL_STORE_SLOT_BYTES(length, sim.unit) / sim.unit);
  for (int i = 0; i < 3; i++) {
    sim.flash = before;
    if (interrupted(generation, i == 0 ? 0 : i == 1 ? last : cut * 7 % last)) judge(found, generation + 1);
  }
  interrupted(generation + 1, -1);
  if (judge(generation + 2, generation + 2) != generation + 2) seen.stuck++;
}

static void sweep(int mode, int generations, int reset) {
  for (long cut = 0;; cut++) {
    memset(&sim.flash, 0, sizeof sim.flash);
    memset(sim.flash.bytes, 0xff, sizeof sim.flash.bytes);
    sim.random = (uint32_t)(cut * 7 + generations * 131 + mode * 977 + 1);
    sim.mode = mode;
    for (int g = 0; g < generations; g++) interrupted(g, -1);
    if (!interrupted(reset ? -1 : generations, cut)) break;
    const int found = judge(generations, reset ? 0 : generations + 1);
    judge_header();
    go_on(found < 0 ? 0 : found, generations + 1, cut);
  }
}

int main(int count, char **arguments) {
  if (count != 3) return 1;
  sim.unit = (uint32_t)atoi(arguments[1]);
  length = (uint32_t)atoi(arguments[2]);
  for (int mode = 0; mode < MODES; mode++) {
    for (int generations = 0; generations < 4; generations++) {
      sweep(mode, generations, 0);
      sweep(mode, generations, 1);
    }
  }
  printf("{\"cases\": %ld, \"old\": %ld, \"new\": %ld, ", seen.cases, seen.old, seen.fresh);
  printf("\"lost\": %ld, \"corrupt\": %ld, ", seen.lost, seen.corrupt);
  printf("\"early\": %ld, \"stuck\": %ld}\n", seen.early, seen.stuck);
  return 0;
}
