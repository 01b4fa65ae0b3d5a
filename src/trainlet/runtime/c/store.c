#include "store.h"

#include <stddef.h>
#include <string.h>

#define MAGIC 0x31534c54u /* "TLS1" */

const char *tl_store_words(tl_store_status status) {
  switch (status) {
    case TL_STORE_OK: return "done";
    case TL_STORE_EMPTY: return "nothing is saved yet: start from the factory state";
    case TL_STORE_OTHER_MODEL: return "the saved state belongs to another model: start from the factory state";
    case TL_STORE_DAMAGED: return "the saved state is damaged: start from the factory state and check the flash";
    case TL_STORE_UNREADABLE: return "neither slot can be read: start from the factory state and check the flash";
    case TL_STORE_TOO_LARGE: return "the state does not fit a slot: give each slot TL_STORE_SLOT_BYTES";
    case TL_STORE_BAD_FLASH: return "the flash description is impossible: check unit, slot_size and the hooks";
    case TL_STORE_FLASH_ERROR: return "a flash operation failed: check the flash and its hooks";
    case TL_STORE_NOT_WRITTEN: return "the flash did not keep what was written: what was saved before is still there";
  }
  return "unknown status";
}

/* Four bits at a time: 64 bytes of table for a quarter of the time. */
uint32_t tl_store_crc32(uint32_t crc, const void *data, uint32_t length) {
  static const uint32_t table[16] = {
      0x00000000u, 0x1db71064u, 0x3b6e20c8u, 0x26d930acu, 0x76dc4190u, 0x6b6b51f4u, 0x4db26158u, 0x5005713cu,
      0xedb88320u, 0xf00f9344u, 0xd6d6a3e8u, 0xcb61b38cu, 0x9b64c2b0u, 0x86d3d2d4u, 0xa00ae278u, 0xbdbdf21cu,
  };
  const uint8_t *p = (const uint8_t *)data;
  crc = ~crc;
  for (uint32_t i = 0; i < length; i++) {
    crc ^= p[i];
    crc = (crc >> 4) ^ table[crc & 15u];
    crc = (crc >> 4) ^ table[crc & 15u];
  }
  return ~crc;
}

static void put32(uint8_t *to, uint32_t x) {
  for (int i = 0; i < 4; i++) to[i] = (uint8_t)(x >> (8 * i));
}

static uint32_t get32(const uint8_t *from) {
  return (uint32_t)from[0] | (uint32_t)from[1] << 8 | (uint32_t)from[2] << 16 | (uint32_t)from[3] << 24;
}

static uint32_t smaller(uint32_t a, uint32_t b) { return a < b ? a : b; }

static uint32_t round_up(uint32_t length, uint32_t unit) { return (length + unit - 1) / unit * unit; }

static uint32_t payload_at(const tl_store_flash *f) { return round_up(TL_STORE_HEADER_BYTES, f->unit); }

static int possible(const tl_store_flash *f) {
  return f->unit >= 1 && f->unit <= TL_STORE_MAX_UNIT && f->slot_size % f->unit == 0 &&
         f->slot_size >= payload_at(f) && f->read != NULL && f->erase != NULL && f->program != NULL;
}

/* Whether the payload in flash has the CRC. */
static int payload_is(const tl_store_flash *f, int slot, uint32_t length, uint32_t crc) {
  uint8_t block[TL_STORE_MAX_UNIT];
  uint32_t found = 0;
  for (uint32_t at = 0, n; at < length; at += n) {
    n = smaller(length - at, sizeof block);
    if (f->read(f->ctx, slot, payload_at(f) + at, block, n) != 0) return 0;
    found = tl_store_crc32(found, block, n);
  }
  return found == crc;
}

static tl_store_slot look(const tl_store_flash *f, tl_store_model_id model, int slot) {
  tl_store_slot s = {TL_SLOT_EMPTY, 0, 0, 0};
  uint8_t h[TL_STORE_HEADER_BYTES];
  if (f->read(f->ctx, slot, 0, h, sizeof h) != 0) {
    s.state = TL_SLOT_UNREADABLE;
    return s;
  }
  if (get32(h) != MAGIC || get32(h + 24) != tl_store_crc32(0, h, 24)) return s;
  s.sequence = get32(h + 4);
  s.length = get32(h + 16);
  s.payload_crc = get32(h + 20);
  if (((uint64_t)get32(h + 12) << 32 | get32(h + 8)) != model) {
    s.state = TL_SLOT_OTHER_MODEL;
  } else if (s.length > f->slot_size - payload_at(f) || !payload_is(f, slot, s.length, s.payload_crc)) {
    s.state = TL_SLOT_DAMAGED;
  } else {
    s.state = TL_SLOT_VALID;
  }
  return s;
}

static int later(uint32_t a, uint32_t b) { return a != b && a - b < 0x80000000u; }

/* The slot of the newest valid record, -1 where there is none. */
static int newest(const tl_store_slot s[2]) {
  const int first = s[0].state == TL_SLOT_VALID, second = s[1].state == TL_SLOT_VALID;
  if (first && second) return later(s[1].sequence, s[0].sequence);
  return first ? 0 : second ? 1 : -1;
}

void tl_store_inspect(const tl_store_flash *flash, tl_store_model_id model, tl_store_slot slots[2]) {
  const tl_store_slot none = {TL_SLOT_UNREADABLE, 0, 0, 0};
  for (int i = 0; i < 2; i++) slots[i] = possible(flash) ? look(flash, model, i) : none;
}

static int either(const tl_store_slot s[2], tl_slot_state state) {
  return s[0].state == state || s[1].state == state;
}

tl_store_status tl_store_load(const tl_store_flash *flash, tl_store_model_id model, void *dst, uint32_t length) {
  tl_store_slot s[2];
  if (!possible(flash)) return TL_STORE_BAD_FLASH;
  tl_store_inspect(flash, model, s);
  const int slot = newest(s);
  if (slot >= 0) {
    if (s[slot].length != length) return TL_STORE_OTHER_MODEL;
    if (flash->read(flash->ctx, slot, payload_at(flash), dst, length) != 0) return TL_STORE_FLASH_ERROR;
    return tl_store_crc32(0, dst, length) == s[slot].payload_crc ? TL_STORE_OK : TL_STORE_DAMAGED;
  }
  if (either(s, TL_SLOT_OTHER_MODEL)) return TL_STORE_OTHER_MODEL;
  if (either(s, TL_SLOT_DAMAGED)) return TL_STORE_DAMAGED;
  const int unreadable = s[0].state == TL_SLOT_UNREADABLE && s[1].state == TL_SLOT_UNREADABLE;
  return unreadable ? TL_STORE_UNREADABLE : TL_STORE_EMPTY;
}

/* Where the next record goes: never over the newest one; over another model's only if there is no other place. */
static int next_slot(const tl_store_slot s[2]) {
  const int keep = newest(s);
  if (keep >= 0) return 1 - keep;
  const int first = s[0].state == TL_SLOT_OTHER_MODEL, second = s[1].state == TL_SLOT_OTHER_MODEL;
  if (first && second) return later(s[0].sequence, s[1].sequence);
  return first;
}

/* One more than any sequence of this model, a damaged record's too: its read error may have been a passing one. */
static uint32_t next_sequence(const tl_store_slot s[2]) {
  uint32_t last = 0;
  int found = 0;
  for (int i = 0; i < 2; i++) {
    if (s[i].state != TL_SLOT_VALID && s[i].state != TL_SLOT_DAMAGED) continue;
    if (!found || later(s[i].sequence, last)) last = s[i].sequence;
    found = 1;
  }
  return last + 1;
}

/* `length` bytes from `at`, a multiple of unit; the last unit is filled up with 0xff. */
static int write(const tl_store_flash *f, int slot, uint32_t at, const uint8_t *src, uint32_t length) {
  uint64_t aligned[TL_STORE_MAX_UNIT / 8];
  uint8_t *block = (uint8_t *)aligned;
  const uint32_t most = (uint32_t)sizeof aligned / f->unit * f->unit;
  for (uint32_t done = 0, n; done < length; done += n) {
    n = smaller(length - done, most);
    const uint32_t whole = round_up(n, f->unit);
    memcpy(block, src + done, n);
    memset(block + n, 0xff, whole - n);
    if (f->program(f->ctx, slot, at + done, block, whole) != 0) return 1;
  }
  return 0;
}

static tl_store_status write_payload(const tl_store_flash *f, int slot, const tl_store_slot *s, const void *src) {
  if (write(f, slot, payload_at(f), (const uint8_t *)src, s->length) != 0) return TL_STORE_FLASH_ERROR;
  return payload_is(f, slot, s->length, s->payload_crc) ? TL_STORE_OK : TL_STORE_NOT_WRITTEN;
}

static tl_store_status write_header(const tl_store_flash *f, int slot, const tl_store_slot *s,
                                    tl_store_model_id model) {
  uint8_t h[TL_STORE_HEADER_BYTES], back[TL_STORE_HEADER_BYTES];
  put32(h, MAGIC);
  put32(h + 4, s->sequence);
  put32(h + 8, (uint32_t)model);
  put32(h + 12, (uint32_t)(model >> 32));
  put32(h + 16, s->length);
  put32(h + 20, s->payload_crc);
  put32(h + 24, tl_store_crc32(0, h, 24));
  if (write(f, slot, 0, h, sizeof h) != 0 || f->read(f->ctx, slot, 0, back, sizeof back) != 0) {
    return TL_STORE_FLASH_ERROR;
  }
  return memcmp(h, back, sizeof h) == 0 ? TL_STORE_OK : TL_STORE_NOT_WRITTEN;
}

tl_store_status tl_store_save(const tl_store_flash *flash, tl_store_model_id model, const void *src, uint32_t length) {
  tl_store_slot s[2];
  if (!possible(flash)) return TL_STORE_BAD_FLASH;
  if (length > flash->slot_size - payload_at(flash)) return TL_STORE_TOO_LARGE;
  tl_store_inspect(flash, model, s);
  const int slot = next_slot(s);
  const tl_store_slot made = {TL_SLOT_VALID, next_sequence(s), length, tl_store_crc32(0, src, length)};
  if (flash->erase(flash->ctx, slot) != 0) return TL_STORE_FLASH_ERROR;
  tl_store_status status = write_payload(flash, slot, &made, src);
  if (status == TL_STORE_OK) status = write_header(flash, slot, &made, model);
  return status;
}

tl_store_status tl_store_reset(const tl_store_flash *flash, tl_store_model_id model) {
  tl_store_slot s[2];
  if (!possible(flash)) return TL_STORE_BAD_FLASH;
  tl_store_inspect(flash, model, s);
  const int first = next_slot(s);
  if (flash->erase(flash->ctx, first) != 0) return TL_STORE_FLASH_ERROR;
  return flash->erase(flash->ctx, 1 - first) == 0 ? TL_STORE_OK : TL_STORE_FLASH_ERROR;
}
