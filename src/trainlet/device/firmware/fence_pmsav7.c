/* The memory fence of Armv7-M (PMSAv7): at most eight regions, each a power of two, aligned to its size.
 *
 * Where regions overlap the one with the higher number counts: RAM is one region that encloses it, what must not be
 * accessed around it is forbidden by regions on top.
 */
#include "board.h"

#define MPU_CTRL (*(volatile uint32_t *)0xE000ED94)
#define MPU_RNR (*(volatile uint32_t *)0xE000ED98)
#define MPU_RBAR (*(volatile uint32_t *)0xE000ED9C)
#define MPU_RASR (*(volatile uint32_t *)0xE000EDA0)

enum { REGIONS = 8, SMALLEST = 32 };

/* RASR: XN, AP (0 none, 3 read-write, 6 read-only), normal memory, not shareable. */
static const uint32_t READ_EXECUTE = 6u << 24, READ_WRITE = 1u << 28 | 3u << 24 | 1u << 17, NONE = 1u << 28;

static uint32_t next;

/* size is 2^bits. */
static void region(uint32_t base, uint32_t bits, uint32_t rights) {
  MPU_RNR = next++;
  MPU_RBAR = base;
  MPU_RASR = rights | (bits - 1u) << 1 | 1u;
}

/* One region that encloses [first, last]. Returns its base. */
static uint32_t enclose(uint32_t first, uint32_t last, uint32_t rights) {
  uint32_t bits = 5;
  while (first >> bits != last >> bits) bits++;
  region(first >> bits << bits, bits, rights);
  return first >> bits << bits;
}

void tl_fence_raise(void) {
  const uint32_t bottom = (uint32_t)tl_stack_limit, end = (uint32_t)tl_context_end;
  enclose((uint32_t)tl_flash_start, (uint32_t)tl_flash_end - 1u, READ_EXECUTE);
  const uint32_t base = enclose(bottom, end - 1u, READ_WRITE);
  if (base < bottom) region(bottom - SMALLEST, 5, NONE);
  /* From the end upwards, the largest aligned blocks: 32 bytes at least, a growing part of RAM with each. */
  uint32_t at = end;
  while (next < REGIONS && at < (uint32_t)tl_ram_end) {
    uint32_t bits = 5;
    while (bits < 31 && (at & ((2u << bits) - 1u)) == 0) bits++;
    region(at, bits, NONE);
    at += 1u << bits;
  }
  MPU_CTRL = 1;
  __asm__ volatile("dsb\n isb");
}
