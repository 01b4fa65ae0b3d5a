/* A port for tests: samples that can be learned, and a flash that is a file, "flash.bin". */
#include <stdio.h>
#include <string.h>

#include "port.h"

enum { CLASSES = 5, SAMPLES = 250, SLOT = 4096, UNIT = 8, ELEMENTS = 189 };

static int32_t taken;

int port_sample(int8_t sample[ELEMENTS]) {
  if (taken == SAMPLES) return 0;
  for (int32_t i = 0; i < ELEMENTS; i++) sample[i] = (int8_t)(i % CLASSES == taken % CLASSES ? 90 : -20);
  taken++;
  return 1;
}

void port_answer(const float output[CLASSES]) { (void)output; }

int port_label(int32_t label[1]) {
  label[0] = (taken - 1) % CLASSES;
  return taken % 50 != 0;
}

int port_power_fails(void) { return taken == SAMPLES - 1; }

static FILE *at(int slot, uint32_t offset) {
  static char erased[2 * SLOT];
  FILE *flash = fopen("flash.bin", "r+b");
  if (!flash) {
    memset(erased, 0xff, sizeof erased);
    flash = fopen("flash.bin", "w+b");
    if (flash) fwrite(erased, 1, sizeof erased, flash);
  }
  if (flash) fseek(flash, (long)slot * SLOT + (long)offset, SEEK_SET);
  return flash;
}

static int flash_read(void *ctx, int slot, uint32_t offset, void *dst, uint32_t length) {
  (void)ctx;
  FILE *flash = at(slot, offset);
  const size_t count = flash ? fread(dst, 1, length, flash) : 0;
  if (flash) fclose(flash);
  return count == length ? 0 : -1;
}

static int flash_program(void *ctx, int slot, uint32_t offset, const void *src, uint32_t length) {
  (void)ctx;
  FILE *flash = at(slot, offset);
  const size_t count = flash ? fwrite(src, 1, length, flash) : 0;
  if (flash) fclose(flash);
  return count == length ? 0 : -1;
}

static int flash_erase(void *ctx, int slot) {
  static char erased[SLOT];
  memset(erased, 0xff, sizeof erased);
  return flash_program(ctx, slot, 0, erased, SLOT);
}

const tl_store_flash port_flash = {NULL, SLOT, UNIT, flash_read, flash_erase, flash_program};
