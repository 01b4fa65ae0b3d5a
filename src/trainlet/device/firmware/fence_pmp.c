/* The memory fence of RISC-V: physical memory protection, top-of-range entries, locked so that machine mode obeys. */
#include "board.h"

enum { READ = 1, WRITE = 2, EXECUTE = 4, TOP_OF_RANGE = 1 << 3, LOCKED = 1 << 7 };

void tl_fence_raise(void) {
  const uint32_t none = LOCKED | TOP_OF_RANGE;
  /* Each entry reaches from the one before it to its own address. */
  __asm__ volatile("csrw pmpaddr0, %0" ::"r"((uint32_t)tl_stack_limit < (uint32_t)tl_flash_start
                                                 ? (uint32_t)tl_stack_limit >> 2
                                                 : (uint32_t)tl_flash_start >> 2));
  if ((uint32_t)tl_stack_limit < (uint32_t)tl_flash_start) {
    __asm__ volatile("csrw pmpaddr1, %0" ::"r"((uint32_t)tl_context_end >> 2));
    __asm__ volatile("csrw pmpaddr2, %0" ::"r"((uint32_t)tl_flash_start >> 2));
    __asm__ volatile("csrw pmpaddr3, %0" ::"r"((uint32_t)tl_flash_end >> 2));
    __asm__ volatile("csrw pmpcfg0, %0" ::"r"(none | (none | READ | WRITE) << 8 | none << 16 |
                                              (none | READ | EXECUTE) << 24));
  } else {
    __asm__ volatile("csrw pmpaddr1, %0" ::"r"((uint32_t)tl_flash_end >> 2));
    __asm__ volatile("csrw pmpaddr2, %0" ::"r"((uint32_t)tl_stack_limit >> 2));
    __asm__ volatile("csrw pmpaddr3, %0" ::"r"((uint32_t)tl_context_end >> 2));
    __asm__ volatile("csrw pmpcfg0, %0" ::"r"(none | (none | READ | EXECUTE) << 8 | none << 16 |
                                              (none | READ | WRITE) << 24));
  }
  /* The rest of the address space. */
  __asm__ volatile("csrw pmpaddr4, %0" ::"r"(0xffffffffu));
  __asm__ volatile("csrw pmpcfg1, %0" ::"r"(none));
}
