/* The QEMU plugin: counts, and looks at every store. Arguments: table=FILE result=FILE fence=FIRST:END (hexadecimal)
 * code=FILE, the bytes of flash, origin=ADDRESS of the first (hexadecimal), thumb=1 or 0.
 *
 * The fence is a second one: it holds where the part's own memory protection is absent or wrong. A store outside it,
 * and below the core's registers at 0xe0000000, is noted as "store ADDRESS PC" (the first only) and does not stop.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "count.h"
#include "qemu_api.h"

enum { LONGEST_PATH = 4096 };
#define CORE_REGISTERS 0xe0000000u

#ifndef QEMU_API_VERSION
#define QEMU_API_VERSION 1
#endif

#define EXPORT __attribute__((visibility("default")))

EXPORT int qemu_plugin_version = QEMU_API_VERSION;

static unsigned fence_first, fence_end;
static int outside;

static void run(unsigned vcpu, void *data) {
  (void)vcpu;
  count_run(data);
}

static void store(unsigned vcpu, qemu_plugin_meminfo_t info, uint64_t address, void *pc) {
  (void)vcpu;
  if (!qemu_plugin_mem_is_store(info) || outside) return; /* QEMU 7 also reports loads here */
  const uint64_t last = address + (1u << qemu_plugin_mem_size_shift(info)) - 1;
  if (address >= CORE_REGISTERS || (address >= fence_first && last < fence_end)) return;
  outside = 1;
  fprintf(count_result(), "store %llx %llx\n", (unsigned long long)address, (unsigned long long)(uintptr_t)pc);
}

static void translated(qemu_plugin_id_t id, struct qemu_plugin_tb *tb) {
  (void)id;
  const size_t n = qemu_plugin_tb_n_insns(tb);
  block *b = count_make_block((uint32_t)qemu_plugin_tb_vaddr(tb), (uint32_t)n);
  qemu_plugin_register_vcpu_tb_exec_cb(tb, run, QEMU_PLUGIN_CB_NO_REGS, b);
  for (size_t i = 0; i < n; i++) {
    struct qemu_plugin_insn *instruction = qemu_plugin_tb_get_insn(tb, i);
    void *pc = (void *)(uintptr_t)qemu_plugin_insn_vaddr(instruction);
    qemu_plugin_register_vcpu_mem_cb(instruction, store, QEMU_PLUGIN_CB_NO_REGS, QEMU_PLUGIN_MEM_W, pc);
  }
}

static int read_code(const char *path, unsigned origin, int thumb) {
  FILE *file = fopen(path, "rb");
  if (!file || fseek(file, 0, SEEK_END) != 0) return 1;
  const long size = ftell(file);
  uint8_t *bytes = size > 0 ? malloc((size_t)size) : NULL;
  rewind(file);
  if (!bytes || fread(bytes, 1, (size_t)size, file) != (size_t)size) return 1;
  fclose(file);
  count_code(bytes, origin, (uint32_t)size, thumb);
  return 0;
}

static void finish(qemu_plugin_id_t id, void *data) {
  (void)id, (void)data;
  count_close();
}

EXPORT int qemu_plugin_install(qemu_plugin_id_t id, const struct qemu_info_t *info, int argc, char **argv) {
  char table[LONGEST_PATH] = "", result[LONGEST_PATH] = "", code[LONGEST_PATH] = "";
  unsigned origin = 0;
  int thumb = 1;
  (void)info;
  for (int i = 0; i < argc; i++) {
    sscanf(argv[i], "table=%4095[^\n]", table);
    sscanf(argv[i], "result=%4095[^\n]", result);
    sscanf(argv[i], "code=%4095[^\n]", code);
    sscanf(argv[i], "origin=%x", &origin);
    sscanf(argv[i], "thumb=%d", &thumb);
    sscanf(argv[i], "fence=%x:%x", &fence_first, &fence_end);
  }
  if (count_open(table, result) != 0 || read_code(code, origin, thumb) != 0) {
    fprintf(stderr, "count: cannot read %s or %s, or write %s\n", table, code, result);
    return 1;
  }
  qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
  qemu_plugin_register_atexit_cb(id, finish, NULL);
  return 0;
}
