/* Cortex-M: vectors, reset, faults (Armv7-M and Armv8-M architecture reference manuals, B1 and B3). */
#include "board.h"

#define REGISTER(at) (*(volatile uint32_t *)(at))

enum { CPACR_FULL = 0xf << 20, SHCSR_FAULTS = 7 << 16 };
enum { MMFSR_IACCVIOL = 1 << 0, MMFSR_STACKING = 1 << 4, MMFSR_LAZY = 1 << 5, MMFSR_ADDRESS = 1 << 7 };
enum { BFSR_STACKING = 1 << 12, BFSR_LAZY = 1 << 13, BFSR_ADDRESS = 1 << 15 };

static uint32_t *stack_pointer(void) {
  uint32_t *sp;
  __asm__ volatile("mrs %0, msp" : "=r"(sp));
  return sp;
}

/* frame: where the core stacked r0-r3, r12, lr, pc, xpsr; not written if stacking is what failed. */
static void __attribute__((used, noreturn)) taken(const uint32_t *frame) {
  const uint32_t cfsr = REGISTER(0xE000ED28);
  REGISTER(0xE000ED94) = 0; /* the fence off: the report may read anything */
  const int unstacked = (cfsr & (MMFSR_STACKING | MMFSR_LAZY | BFSR_STACKING | BFSR_LAZY)) != 0;
  const uint32_t pc = unstacked ? 0 : frame[6];
  if (cfsr & MMFSR_ADDRESS) tl_fault(TL_ACCESS, REGISTER(0xE000ED34), pc, cfsr);
  if (cfsr & BFSR_ADDRESS) tl_fault(TL_ACCESS, REGISTER(0xE000ED38), pc, cfsr);
  if (unstacked) tl_fault(TL_STACKING, (uint32_t)frame, 0, cfsr);
  if (cfsr & MMFSR_IACCVIOL) tl_fault(TL_EXECUTE, pc, pc, cfsr);
  tl_fault(TL_OTHER, 0, pc, cfsr);
}

/* The stack may be what is broken: report from its top. */
static void __attribute__((naked)) fault(void) {
  __asm__ volatile(
      "mrs r0, msp\n"
      "ldr r1, =tl_stack_top\n"
      "msr msp, r1\n"
      "b taken\n"
      ".ltorg\n");
}

void tl_reset(void) {
#if TL_FPU /* first: vector registers may serve to clear memory */
  REGISTER(0xE000ED88) |= CPACR_FULL;
  __asm__ volatile("dsb\n isb");
#endif
  tl_memory_start(stack_pointer());
  REGISTER(0xE000ED24) |= SHCSR_FAULTS;
  tl_fence_raise();
  tl_main();
}

typedef void (*handler)(void);

typedef struct {
  uint32_t *stack;
  handler reset, nmi, hard, memory, bus, usage, secure, reserved[3], svcall, debug, reserved_too, pendsv, systick;
} vector_table;

const vector_table tl_vectors __attribute__((section(".vectors"), used)) = {
    .stack = tl_stack_top,
    .reset = tl_reset,
    .nmi = fault,
    .hard = fault,
    .memory = fault,
    .bus = fault,
    .usage = fault,
    .secure = fault,
    .svcall = fault,
    .debug = fault,
    .pendsv = fault,
    .systick = fault,
};
