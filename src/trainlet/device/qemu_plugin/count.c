#include "count.h"

#include <stdlib.h>

enum { MOST_FUNCTIONS = 4096 };

struct function {
  char role;
  unsigned first, end;
  char name[128];
};

static function functions[MOST_FUNCTIONS];
static int function_count;
static FILE *result;

static uint64_t total, region_start, kernel_start;
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

block *count_make_block(uint32_t address, uint32_t instructions) {
  block *b = calloc(1, sizeof *b);
  if (!b) abort();
  b->instructions = instructions;
  for (int i = 0; i < function_count; i++) {
    if (functions[i].first <= address && address < functions[i].end) {
      b->inside = &functions[i];
      b->starts_function = functions[i].first == address;
    }
  }
  return b;
}

static void end_kernel(void) {
  if (kernel) fprintf(result, "call %s %llu\n", kernel->name, (unsigned long long)(total - kernel_start));
  kernel = NULL;
}

static void end_region(void) {
  end_kernel();
  if (region) fprintf(result, "region %s %llu\n", region->name, (unsigned long long)(total - region_start));
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
  total += b->instructions;
}

FILE *count_result(void) { return result; }

void count_close(void) {
  if (region) fprintf(result, "open %s %s\n", region->name, kernel ? kernel->name : "-");
  fprintf(result, "total %llu\n", (unsigned long long)total);
  fclose(result);
}
