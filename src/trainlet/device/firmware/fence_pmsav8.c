/* The memory fence of Armv8-M (PMSAv8): regions from a base to a limit, in steps of 32 bytes. All else is forbidden. */
#include "board.h"

#define MPU_CTRL (*(volatile uint32_t *)0xE000ED94)
#define MPU_RNR (*(volatile uint32_t *)0xE000ED98)
#define MPU_RBAR (*(volatile uint32_t *)0xE000ED9C)
#define MPU_RLAR (*(volatile uint32_t *)0xE000EDA0)
#define MPU_MAIR0 (*(volatile uint32_t *)0xE000EDC0)

/* RBAR: AP in bits 2:1 (privileged read-write 0, read-only 2), XN in bit 0. */
enum { READ_EXECUTE = 2 << 1, READ_WRITE = 1 };

static void region(uint32_t number, const void *first, const void *end, uint32_t rights) {
  MPU_RNR = number;
  MPU_RBAR = (uint32_t)first | rights;
  MPU_RLAR = (((uint32_t)end - 1u) & ~31u) | 1u;
}

void tl_fence_raise(void) {
  MPU_MAIR0 = 0xff; /* attribute 0: normal memory, write-back */
  region(0, tl_flash_start, tl_flash_end, READ_EXECUTE);
  region(1, tl_stack_limit, tl_context_end, READ_WRITE);
#if TL_VECTORS
  region(2, (const void *)TL_VECTORS, (const void *)(TL_VECTORS + 64), READ_EXECUTE);
#endif
  MPU_CTRL = 1;
  __asm__ volatile("dsb\n isb");
}
