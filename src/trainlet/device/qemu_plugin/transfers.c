/* Armv7-M architecture reference manual, A5.2 and A5.3; RISC-V unprivileged ISA, chapters 2, 16 and 24. */
#include "transfers.h"

static const transfer NOTHING = {0, 0};

static int ones(uint32_t list) {
  int n = 0;
  for (; list; list &= list - 1) n++;
  return n;
}

static transfer load(int words) { return (transfer){words, 0}; }
static transfer store(int words) { return (transfer){words, words > 0}; }
static transfer either(int words, int is_load) { return is_load ? load(words) : store(words); }

uint32_t instruction_bytes(uint16_t first, int thumb) {
  if (thumb) return first >> 11 >= 0x1d ? 4 : 2;
  return (first & 3) == 3 ? 4 : 2;
}

static transfer thumb16(uint16_t h) {
  if (h >> 11 == 0x09) return load(1);                               /* LDR literal */
  if (h >> 12 == 0x5) return either(1, ((h >> 9) & 7) >= 3);         /* register offset */
  if (h >> 12 >= 0x6 && h >> 12 <= 0x9) return either(1, h >> 11 & 1); /* immediate offset */
  if ((h & 0xfe00) == 0xb400) return store(ones(h & 0x1ff));         /* PUSH */
  if ((h & 0xfe00) == 0xbc00) return load(ones(h & 0x1ff));          /* POP */
  if (h >> 12 == 0xc) return either(ones(h & 0xff), h >> 11 & 1);    /* STM, LDM */
  return NOTHING;
}

/* LDRD and STRD; exclusives, acquire and release; table branches, which load. */
static transfer dual_or_exclusive(uint16_t first) {
  const int is_load = first >> 4 & 1, dual = (first & 0x0100) || (first & 0x0020);
  return either(dual ? 2 : 1, is_load);
}

static transfer single(uint16_t first, uint16_t second) {
  const int is_load = first >> 4 & 1, word = (first & 0x0060) == 0x0040;
  if (is_load && !word && second >> 12 == 15) return NOTHING; /* preload hint */
  return either(1, is_load);
}

static transfer floating(uint16_t first, uint16_t second) {
  const int is_load = first >> 4 & 1, is_double = second >> 8 & 1;
  if ((first & 0xffe0) == 0xec40) return NOTHING; /* VMOV between register files */
  if ((first & 0xff20) == 0xed00) return either(is_double ? 2 : 1, is_load);
  return either(second & 0xff & (is_double ? 0xfe : 0xff), is_load);
}

static transfer thumb32(uint16_t first, uint16_t second) {
  if ((first & 0xfe40) == 0xe800) return either(ones(second), first >> 4 & 1);
  if ((first & 0xfe40) == 0xe840) return dual_or_exclusive(first);
  if ((first & 0xfe00) == 0xf800) return single(first, second);
  if ((first & 0xfe00) == 0xec00 && (second & 0x0e00) == 0x0a00) return floating(first, second);
  return NOTHING;
}

static transfer riscv(uint16_t first) {
  const int quadrant = first & 3, kind = first >> 13;
  if (quadrant == 3) {
    const int opcode = first & 0x7f;
    return opcode == 0x03 || opcode == 0x07 ? load(1) : opcode == 0x23 || opcode == 0x27 ? store(1) : NOTHING;
  }
  if (quadrant == 1) return NOTHING;
  return kind == 2 ? load(1) : kind == 6 ? store(1) : NOTHING; /* C.LW, C.LWSP; C.SW, C.SWSP */
}

transfer transfer_of(uint16_t first, uint16_t second, int thumb) {
  if (!thumb) return riscv(first);
  return instruction_bytes(first, 1) == 4 ? thumb32(first, second) : thumb16(first);
}
