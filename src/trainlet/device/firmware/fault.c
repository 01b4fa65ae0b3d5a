/* A fault in words: what was tried, where that is, which instruction. */
#include "board.h"
#include "semihosting.h"

enum { EXIT_FAULT = 70, LONGEST = 240 };

static char line[LONGEST];
static uint32_t used;

static void text(const char *words) {
  while (*words && used < LONGEST - 2) line[used++] = *words++;
}

static void hexadecimal(uint32_t value) {
  text("0x");
  for (int shift = 28; shift >= 0; shift -= 4) {
    const char digit[2] = {"0123456789abcdef"[(value >> shift) & 15u], 0};
    text(digit);
  }
}

static void decimal(uint32_t value) {
  char digits[11];
  uint32_t at = sizeof digits - 1;
  digits[at] = 0;
  do {
    digits[--at] = (char)('0' + value % 10u);
    value /= 10u;
  } while (value);
  text(digits + at);
}

static void bytes(uint32_t count, const char *what) {
  decimal(count);
  text(" bytes ");
  text(what);
}

/* Where an address lies, in the words of the memory map in board.h. */
static void place(uint32_t at) {
  const uint32_t bottom = (uint32_t)tl_stack_limit, top = (uint32_t)tl_stack_top, end = (uint32_t)tl_context_end;
  const uint32_t beyond = 0x10000; /* further away it is a wild pointer rather than an overflow */
  uint32_t offset;
  if (at < bottom && bottom - at <= beyond) {
    bytes(bottom - at, "under the stack of ");
    bytes(top - bottom, "(stack overflow)");
  } else if (at >= bottom && at < top) {
    text("in the stack");
  } else if (at >= (uint32_t)tl_flash_start && at < (uint32_t)tl_flash_end) {
    text("in flash, which holds code and constants");
  } else if (at >= end && at - end <= beyond) {
    const char *part = tl_context_part(at, &offset);
    bytes(offset, "behind the last byte of the program's ");
    text(part);
  } else if (at >= top && at < end) {
    const char *part = tl_context_part(at, &offset);
    bytes(offset, "into the ");
    text(part);
  } else {
    text("in no memory of this board");
  }
}

void tl_fault(tl_fault_kind kind, uint32_t at, uint32_t pc, uint32_t cause) {
  static const char *const verbs[] = {"read of ", "write to ", "execution of ", "access to ", "access to "};
  used = 0;
  text("fault: ");
  if (kind == TL_OTHER) {
    text("the core reports cause ");
    hexadecimal(cause);
  } else {
    text(verbs[kind]);
    hexadecimal(at);
    text(", ");
    place(at);
  }
  if (pc != 0) {
    text(", by the instruction at ");
    hexadecimal(pc);
  }
  line[used++] = '\n';
  line[used] = 0;
  tl_console(line);
  tl_exit(EXIT_FAULT);
}
