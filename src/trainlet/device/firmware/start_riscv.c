/* RV32, machine mode: start, traps (RISC-V privileged architecture 1.11, chapter 3). */
#include "board.h"

enum { CAUSE_FETCH = 1, CAUSE_LOAD = 5, CAUSE_STORE = 7 };

static void __attribute__((used, noreturn)) taken(void) {
  uint32_t cause, pc, at;
  __asm__ volatile("csrr %0, mcause" : "=r"(cause));
  __asm__ volatile("csrr %0, mepc" : "=r"(pc));
  __asm__ volatile("csrr %0, mtval" : "=r"(at));
  if (cause == CAUSE_LOAD) tl_fault(TL_READ, at, pc, cause);
  if (cause == CAUSE_STORE) tl_fault(TL_WRITE, at, pc, cause);
  if (cause == CAUSE_FETCH) tl_fault(TL_EXECUTE, at, pc, cause);
  tl_fault(TL_OTHER, 0, pc, cause);
}

/* The stack may be what is broken: report from its top. */
static void __attribute__((naked, aligned(4), used)) trap(void) {
  __asm__ volatile(
      "la sp, tl_stack_top\n"
      "j taken\n");
}

static void __attribute__((used)) started(void) {
  uint32_t *sp;
  __asm__ volatile("mv %0, sp" : "=r"(sp));
  tl_memory_start(sp);
  tl_fence_raise();
  tl_main();
}

void __attribute__((naked, section(".vectors"), used)) tl_reset(void) {
  __asm__ volatile(
      ".option push\n"
      ".option norelax\n"
      "la sp, tl_stack_top\n"
      "la t0, trap\n"
      "csrw mtvec, t0\n"
      "j started\n"
      ".option pop\n");
}
