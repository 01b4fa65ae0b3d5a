/* What an instruction moves between registers and memory, from its bits alone: instructions whose condition fails count. */
#ifndef TL_TRANSFERS_H
#define TL_TRANSFERS_H

#include <stdint.h>

typedef struct {
  int words;    /* 0: no load or store. A byte or a halfword counts as one word */
  int is_store;
} transfer;

/* Bytes of the instruction that begins with this halfword. */
uint32_t instruction_bytes(uint16_t first, int thumb);

/* Thumb (Armv7-M, Armv8-M mainline, FPU; no MVE) or RV32 with compressed instructions. second: its next halfword. */
transfer transfer_of(uint16_t first, uint16_t second, int thumb);

#endif
