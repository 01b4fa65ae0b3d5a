/* A session from start to end without Python: for sanitizers, and to compare optimisation levels.
 * Prints the CRC of the state after each period, and the verdicts. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "residual.h"
#include "session.h"
#include "tl_random.h"

TL_SESSION_PROGRAM(residual, RESIDUAL, int8_t, 5)

#define SAMPLE_BYTES (9 * 7 * 3)
#define SLOT_BYTES TL_STORE_SLOT_BYTES(RESIDUAL_STATE_BYTES, 16)
#define REPLAY_BYTES TL_SESSION_KEEP_BYTES(12, RESIDUAL_STEP_BOUNDARY_BYTES)
#define HELD_BYTES TL_SESSION_KEEP_BYTES(20, RESIDUAL_PREDICT_BOUNDARY_BYTES)
#define LARGER_BOUNDARY                                                                                 \
  (RESIDUAL_STEP_BOUNDARY_BYTES > RESIDUAL_PREDICT_BOUNDARY_BYTES ? RESIDUAL_STEP_BOUNDARY_BYTES         \
                                                                  : RESIDUAL_PREDICT_BOUNDARY_BYTES)
#define SESSION_BYTES \
  (TL_SESSION_BASE_BYTES(LARGER_BOUNDARY, RESIDUAL_STATE_BYTES, 1, 5) + REPLAY_BYTES + HELD_BYTES)

static residual_t m;
static tl_session s;
static uint32_t memory[SESSION_BYTES / 4];
static uint8_t slots[2][SLOT_BYTES];

static int ram_read(void *ctx, int slot, uint32_t offset, void *dst, uint32_t length) {
  (void)ctx;
  memcpy(dst, slots[slot] + offset, length);
  return 0;
}

static int ram_erase(void *ctx, int slot) {
  (void)ctx;
  memset(slots[slot], 0xff, SLOT_BYTES);
  return 0;
}

static int ram_program(void *ctx, int slot, uint32_t offset, const void *src, uint32_t length) {
  (void)ctx;
  memcpy(slots[slot] + offset, src, length);
  return 0;
}

/* A pattern of the class with noise. */
static void draw(uint32_t number, int32_t label, int8_t *sample) {
  const uint32_t pattern = tl_random_key(1, 0, (uint32_t)label), noise = tl_random_key(2, number, 0);
  for (uint32_t i = 0; i < SAMPLE_BYTES; i++) {
    const uint32_t shape = tl_random_bits(pattern, i) % 161, some = tl_random_bits(noise, i) % 61;
    sample[i] = (int8_t)((int32_t)shape - 80 + (int32_t)some - 30);
  }
}

static int learn(uint32_t period, float lr) {
  int8_t sample[SAMPLE_BYTES];
  float out[5];
  for (uint32_t i = 0; i < 80; i++) {
    const int32_t label = (int32_t)(tl_random_bits(tl_random_key(3, period, 0), i) % 5);
    draw(period * 1000 + i, label, sample);
    const int32_t told = period == 2 ? (label + 1) % 5 : label; /* one period of wrong labels */
    if (tl_session_learn(&s, sample, told, lr, out) > TL_SESSION_HELD_BACK) return 1;
  }
  return tl_session_rehearse(&s, 5, lr) != 5;
}

int main(void) {
  const tl_store_flash flash = {NULL, SLOT_BYTES, 16, ram_read, ram_erase, ram_program};
  const tl_session_config config = {7, REPLAY_BYTES, HELD_BYTES, 2, 48, 4, 12, &flash, 99};
  const tl_session_program program = residual_session_program(&m);
  tl_session_report report;
  ram_erase(NULL, 0);
  ram_erase(NULL, 1);
  if (tl_session_bytes(&program, &config) != sizeof memory) return 1;
  for (int boot = 0; boot < 2; boot++) {
    residual_init(&m, 5);
    if (tl_session_begin(&s, &program, &config, memory, sizeof memory, NULL) != TL_SESSION_OK) return 2;
    printf("%08x booted\n", (unsigned)tl_store_crc32(0, m.state, RESIDUAL_STATE_BYTES));
    for (uint32_t period = 0; period < 4; period++) {
      if (learn(period, 0.05f)) return 3;
      const tl_session_status verdict = tl_session_judge(&s, &report);
      printf("%08x %s\n", (unsigned)tl_store_crc32(0, m.state, RESIDUAL_STATE_BYTES), tl_session_words(verdict));
    }
  }
  return tl_store_reset(&flash, 99) == TL_STORE_OK ? 0 : 4;
}
