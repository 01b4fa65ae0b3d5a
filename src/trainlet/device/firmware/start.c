/* The part of start-up that no core needs assembly for. */
#include "board.h"

void tl_memory_start(uint32_t *sp) {
  const uint32_t *from = tl_data_load;
  for (uint32_t *to = tl_data_start; to < tl_data_end; to++) *to = *from++;
  for (uint32_t *to = tl_bss_start; to < tl_bss_end; to++) *to = 0;
  for (uint32_t *to = tl_stack_limit; to < sp - 32; to++) *to = TL_PAINT;
}

uint32_t tl_stack_used(void) {
  const uint32_t *at = tl_stack_limit;
  while (at < tl_stack_top && *at == TL_PAINT) at++;
  return (uint32_t)(tl_stack_top - at) * 4u;
}
