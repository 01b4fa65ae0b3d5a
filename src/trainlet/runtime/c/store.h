/* Trained state that survives a power cut: one record in each of two flash slots, the newest valid one counts.
 *
 * A save erases the slot that does not hold the newest record, programs the payload, reads it back, and programs the
 * header last: the header is the commit. A cut at any moment leaves the old record or the new one, never neither.
 *
 * A slot, all numbers little-endian:
 *   0   magic "TLS1"              u32    16  length of the payload in bytes      u32
 *   4   sequence, +1 each save    u32    20  CRC-32 of the payload               u32
 *   8   model id                  u64    24  CRC-32 of bytes 0 .. 23             u32
 *   28 rounded up to the programming unit: the payload. Padding is 0xff.
 * CRC-32 is that of IEEE 802.3 and zlib: reflected polynomial 0xedb88320, start and final xor 0xffffffff
 * ("123456789" gives 0xcbf43926). Sequences are compared modulo 2^32.
 *
 * Stack: about 500 bytes. No malloc, no globals; of libc only string.h.
 */
#ifndef TL_STORE_H
#define TL_STORE_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define TL_STORE_MAX_UNIT 256
#define TL_STORE_HEADER_BYTES 28

/* Bytes that a slot needs for a payload, before rounding up to whole sectors. */
#define TL_STORE_SLOT_BYTES(length, unit)                                                   \
  ((TL_STORE_HEADER_BYTES + (unit) - 1) / (unit) * (unit) + ((length) + (unit) - 1) / (unit) * (unit))

/* Which program a record belongs to: a hash over everything that gives its bytes their meaning, which is the names,
 * types, shapes and offsets of the state and all frozen constants. The emitted header defines <NAME>_MODEL_ID. */
typedef uint64_t tl_store_model_id;

/* The caller's flash. slot: 0 or 1; the two must not share an erase sector. Hooks return 0 when all went well.
 * slot_size: bytes of each slot, a multiple of unit.
 * unit: bytes that are programmed at once, 1 .. TL_STORE_MAX_UNIT (STM32F7: 1, STM32L4: 8, STM32H7: 32, RP2040: 256).
 * read: any offset and length; fails where the part reports an uncorrectable error, which a cut can leave behind.
 * erase: the whole slot.
 * program: offset and length are multiples of unit; no unit is programmed twice between two erases. src is aligned
 *   to 8 bytes and lies in RAM. */
typedef struct {
  void *ctx;
  uint32_t slot_size, unit;
  int (*read)(void *ctx, int slot, uint32_t offset, void *dst, uint32_t length);
  int (*erase)(void *ctx, int slot);
  int (*program)(void *ctx, int slot, uint32_t offset, const void *src, uint32_t length);
} tl_store_flash;

typedef enum {
  TL_STORE_OK,
  TL_STORE_EMPTY,       /* no record: start from the factory state */
  TL_STORE_OTHER_MODEL, /* only records of another model, or of another length */
  TL_STORE_DAMAGED,     /* only a record whose payload fails its CRC: worn flash, or somebody wrote there */
  TL_STORE_UNREADABLE,  /* neither slot can be read: both torn, or erased on a part that cannot read that */
  TL_STORE_TOO_LARGE,   /* the state does not fit a slot: see TL_STORE_SLOT_BYTES */
  TL_STORE_BAD_FLASH,   /* unit or slot_size is impossible, or a hook is missing */
  TL_STORE_FLASH_ERROR, /* a hook failed; a save leaves the record that was there */
  TL_STORE_NOT_WRITTEN  /* what was programmed reads back differently; the record that was there still is */
} tl_store_status;

/* A status as a sentence for a log. */
const char *tl_store_words(tl_store_status status);

/* The newest valid record of `model` into dst, `length` bytes. dst is written only if there is such a record;
 * on EMPTY, OTHER_MODEL, DAMAGED and UNREADABLE go on with the factory state, a save then makes things good again. */
tl_store_status tl_store_load(const tl_store_flash *flash, tl_store_model_id model, void *dst, uint32_t length);

/* One more record. Replaces the older of this model's two; records of other models only where there is no other
 * place, the older first. src needs no alignment and is not copied as a whole. Blocks while the flash erases. */
tl_store_status tl_store_save(const tl_store_flash *flash, tl_store_model_id model, const void *src, uint32_t length);

/* Factory reset: erases both slots, the newest record last, so that a cut never brings an older one back. */
tl_store_status tl_store_reset(const tl_store_flash *flash, tl_store_model_id model);

typedef enum {
  TL_SLOT_EMPTY,       /* no header: erased, or a save was cut */
  TL_SLOT_VALID,       /* a whole record of the model */
  TL_SLOT_OTHER_MODEL, /* a header of another model */
  TL_SLOT_DAMAGED,     /* a header of the model over a payload that fails its CRC */
  TL_SLOT_UNREADABLE   /* read failed within the header */
} tl_slot_state;

typedef struct {
  tl_slot_state state;
  uint32_t sequence, length, payload_crc; /* of the header, 0 where there is none */
} tl_store_slot;

/* What the two slots hold, for diagnosis: a load that succeeds beside a damaged slot has fallen back to the older. */
void tl_store_inspect(const tl_store_flash *flash, tl_store_model_id model, tl_store_slot slots[2]);

/* CRC-32 as above of `length` bytes that follow bytes of CRC `crc` (0 at the start). */
uint32_t tl_store_crc32(uint32_t crc, const void *data, uint32_t length);

#ifdef __cplusplus
}
#endif

#endif
