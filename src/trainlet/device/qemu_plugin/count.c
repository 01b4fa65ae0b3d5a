#include "count.h"

#include <stdlib.h>

#include "transfers.h"

enum { MOST_FUNCTIONS = 4096 };

struct function {
  char role;
  unsigned first, end;
  char name[128];
};

static function functions[MOST_FUNCTIONS];
static int function_count;
static FILE *result;

static const uint8_t *code;
static uint32_t origin, code_bytes;
static int thumb;

static counts total, region_start, kernel_start;
static const function *region, *kernel;

int count_open(const char *table, const char *path) {
  FILE *file = fopen(table, "r");
  if (!file) return 1;
  while (function_count < MOST_FUNCTIONS) {
    function *f = &functions[function_count];
    if (fscanf(file, " %c %x %x %127s", &f->role, &f->first, &f->end, f->name) != 4) break;
    function_count++;
  }
  fclose(file);
  result = fopen(path, "w");
  return result == NULL;
}

void count_code(const uint8_t *bytes, uint32_t from, uint32_t size, int is_thumb) {
  code = bytes, origin = from, code_bytes = size, thumb = is_thumb;
}

static uint16_t halfword(uint32_t at) { return at + 1 < code_bytes ? (uint16_t)(code[at] | code[at + 1] << 8) : 0; }

static void count_transfers(counts *c, uint32_t address) {
  uint32_t at = address - origin;
  for (uint64_t i = 0; i < c->instructions && at < code_bytes; i++) {
    const uint16_t first = halfword(at);
    const transfer t = transfer_of(first, halfword(at + 2), thumb);
    if (t.words > 0) {
      *(t.is_store ? &c->stores : &c->loads) += 1;
      c->extra_words += (uint64_t)t.words - 1;
    }
    at += instruction_bytes(first, thumb);
  }
}

block *count_make_block(uint32_t address, uint32_t instructions) {
  block *b = calloc(1, sizeof *b);
  if (!b) abort();
  b->each.instructions = instructions;
  count_transfers(&b->each, address);
  for (int i = 0; i < function_count; i++) {
    if (functions[i].first <= address && address < functions[i].end) {
      b->inside = &functions[i];
      b->starts_function = functions[i].first == address;
    }
  }
  return b;
}

static void print_since(const counts *start) {
  fprintf(result, " %llu %llu %llu %llu\n", (unsigned long long)(total.instructions - start->instructions),
          (unsigned long long)(total.loads - start->loads), (unsigned long long)(total.stores - start->stores),
          (unsigned long long)(total.extra_words - start->extra_words));
}

static void end_kernel(void) {
  if (kernel) {
    fprintf(result, "call %s", kernel->name);
    print_since(&kernel_start);
  }
  kernel = NULL;
}

static void end_region(void) {
  end_kernel();
  if (region) {
    fprintf(result, "region %s", region->name);
    print_since(&region_start);
  }
  region = NULL;
}

static void change(const block *b) {
  const char role = b->inside->role;
  if (role == 'F') {
    end_region();
  } else if (role == 'K') {
    if (region && !kernel && b->starts_function) {
      kernel = b->inside;
      kernel_start = total;
    }
  } else if (region) {
    end_kernel();
  } else if (role == 'E' && b->starts_function) {
    region = b->inside;
    region_start = total;
  }
}

void count_run(const block *b) {
  if (b->inside) change(b);
  total.instructions += b->each.instructions;
  total.loads += b->each.loads;
  total.stores += b->each.stores;
  total.extra_words += b->each.extra_words;
}

FILE *count_result(void) { return result; }

void count_close(void) {
  if (region) fprintf(result, "open %s %s\n", region->name, kernel ? kernel->name : "-");
  const counts zero = {0, 0, 0, 0};
  fputs("total", result);
  print_since(&zero);
  fclose(result);
}
