/* Counts instructions, loads and stores, exactly, per entry point of a program and per kernel it calls; engines feed it
 * block by block. An instruction that moves several words (LDM, LDRD, VLDM, PUSH, …) is one; the words beyond its first
 * are counted as extra.
 *
 * A table tells the role of each function, one a line: role, first address, end address, name.
 *   F  firmware around the program: reaching it ends a region
 *   E  entry point of the program: reaching its start from the firmware begins a region of that name
 *   P  the program's own code, between kernel calls
 *   K  kernel: what runs from a call by the program until the return counts as that kernel's
 * Whatever has no role (functions that kernels call) counts for whoever called it.
 *
 * Result, one a line, in order of execution; COUNTS is instructions, loads, stores, extra words:
 *   call NAME COUNTS            a kernel call that returned
 *   region NAME COUNTS          the region whose calls were listed before
 *   open REGION KERNEL          where execution stood at the end, if inside a region; "-": in the program's own code
 *   total COUNTS
 */
#ifndef TL_COUNT_H
#define TL_COUNT_H

#include <stdint.h>
#include <stdio.h>

typedef struct function function;

typedef struct {
  uint64_t instructions, loads, stores, extra_words;
} counts;

/* A straight run of instructions that begins at an address. */
typedef struct {
  const function *inside;
  counts each; /* execution */
  int starts_function;
} block;

/* 0 if the table was read and the result file was opened. */
int count_open(const char *table, const char *result);

/* The code that blocks are made of: `size` bytes at address `from`. is_thumb: else RISC-V. */
void count_code(const uint8_t *bytes, uint32_t from, uint32_t size, int is_thumb);

block *count_make_block(uint32_t address, uint32_t instructions);

/* Before each execution of the block. */
void count_run(const block *b);

/* The result file, for other findings. */
FILE *count_result(void);

void count_close(void);

#endif
