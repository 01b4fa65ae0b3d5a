/* What start-up, fence and fault report share. The linker script defines the addresses.
 *
 *   RAM    [ stack, grows down | .data | .bss | context ]    no access below the stack and behind the context
 *   flash  [ vectors | code | constants | copy of .data ]    read and execute only
 *
 * The stack lies lowest and the program's context highest, so that growing out of either leaves what may be accessed.
 */
#ifndef TL_BOARD_H
#define TL_BOARD_H

#include <stdint.h>

extern uint32_t tl_stack_limit[], tl_stack_top[];
extern uint32_t tl_data_load[], tl_data_start[], tl_data_end[];
extern uint32_t tl_bss_start[], tl_bss_end[];
extern uint8_t tl_flash_start[], tl_flash_end[], tl_ram_start[], tl_ram_end[];
extern uint8_t tl_context_end[]; /* a multiple of 32 */

enum { TL_PAINT = 0x5afe57ac };

/* Copies .data, clears .bss, paints the stack below `sp`. */
void tl_memory_start(uint32_t *sp);

/* Bytes of the stack that were ever used: from its top to the lowest word that lost its paint. */
uint32_t tl_stack_used(void);

/* Forbids every access that the map above does not allow. */
void tl_fence_raise(void);

typedef enum { TL_READ, TL_WRITE, TL_EXECUTE, TL_ACCESS, TL_STACKING, TL_OTHER } tl_fault_kind;

/* Says what happened in words and ends the run. pc: 0 if unknown. cause: the core's own code, shown for TL_OTHER. */
void tl_fault(tl_fault_kind kind, uint32_t at, uint32_t pc, uint32_t cause) __attribute__((noreturn));

/* The buffer that holds an address of the context, or that ends last before it; *offset: how far in or behind. */
const char *tl_context_part(uint32_t at, uint32_t *offset);

void tl_main(void);

#endif
