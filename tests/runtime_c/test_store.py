"""The store: its documented format, what it refuses, what it says, what it does when the flash misbehaves."""

import ctypes
import re
import struct
import zlib

import numpy as np
import pytest

from tests.runtime_c.build import SOURCES, Nor, store_library

MODEL, OTHER = 0xFEDCBA9876543210, 0xFEDCBA9876543211
OK, EMPTY, OTHER_MODEL, DAMAGED, UNREADABLE, TOO_LARGE, BAD_FLASH, FLASH_ERROR, NOT_WRITTEN = range(9)
SLOT_EMPTY, SLOT_VALID, SLOT_OTHER_MODEL, SLOT_DAMAGED, SLOT_UNREADABLE = range(5)


class CSlot(ctypes.Structure):
    _fields_ = [
        ("state", ctypes.c_int),
        *((n, ctypes.c_uint32) for n in ("sequence", "length", "payload_crc")),
    ]


class Store:
    """The C functions on one flash."""

    def __init__(self, library, nor):
        self.library, self.nor = library, nor

    def save(self, state, model=MODEL):
        return self.library.tl_store_save(self.nor.c, model, bytes(state), len(state))

    def load(self, length, model=MODEL):
        found = ctypes.create_string_buffer(b"\xa5" * length, length)
        status = self.library.tl_store_load(self.nor.c, model, found, length)
        return (
            (status, found.raw)
            if status == OK
            else (status, None if found.raw == b"\xa5" * length else found.raw)
        )

    def reset(self):
        return self.library.tl_store_reset(self.nor.c, MODEL)

    def slots(self, model=MODEL):
        found = (CSlot * 2)()
        self.library.tl_store_inspect(self.nor.c, model, found)
        return [(s.state, s.sequence) for s in found]


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    return store_library(tmp_path_factory.mktemp("store"))


@pytest.fixture
def store(library):
    return Store(library, Nor())


def state(seed, length=1000):
    return np.random.default_rng(seed).bytes(length)


def record(sequence, payload, unit=8, model=MODEL):
    """A slot's bytes as store.h documents them."""
    head = struct.pack("<4sIQII", b"TLS1", sequence, model, len(payload), zlib.crc32(payload))
    head += struct.pack("<I", zlib.crc32(head))
    return head + b"\xff" * (-len(head) % unit) + payload + b"\xff" * (-len(payload) % unit)


def test_crc_is_that_of_zlib(library):
    assert library.tl_store_crc32(0, b"123456789", 9) == 0xCBF43926
    data = state(3)
    assert library.tl_store_crc32(library.tl_store_crc32(0, data, 77), data[77:], 923) == zlib.crc32(data)


def test_every_status_has_words_of_its_own(library):
    words = [library.tl_store_words(i).decode() for i in range(9)]
    assert len(set(words)) == 9 and all(len(w) >= 4 for w in words)
    assert library.tl_store_words(99) == b"unknown status"


def test_statuses_here_are_those_of_the_header():
    body = re.search(r"typedef enum \{([^}]*)\} tl_store_status", (SOURCES / "store.h").read_text()).group(1)
    names = re.findall(r"TL_STORE_(\w+),?\s", re.sub(r"/\*.*?\*/", "", body) + "\n")
    assert [globals()[n] for n in names] == list(range(9))


@pytest.mark.parametrize("unit", [1, 2, 4, 8, 16, 32, 256, 24])
@pytest.mark.parametrize("length", [0, 1, 255, 256, 257, 1000])
def test_a_saved_state_is_the_documented_record(library, unit, length):
    store = Store(library, Nor(unit, unit * (-(-2048 // unit))))
    assert store.load(length) == (EMPTY, None)
    for generation in range(1, 4):
        assert store.save(state(generation, length)) == OK
        expected = record(generation, state(generation, length), unit)
        assert bytes(store.nor.slots[(generation - 1) % 2]).startswith(expected)
        assert store.load(length) == (OK, state(generation, length))


def test_a_save_erases_once_and_programs_the_header_last(store):
    store.save(state(1))
    store.nor.operations.clear()
    store.save(state(2))
    assert store.nor.operations[0] == ("erase", 1, 0)
    kinds = [kind for kind, _, _ in store.nor.operations]
    assert kinds.count("erase") == 1 and store.nor.operations[-1] == ("program", 1, 0)
    assert all(slot == 1 for _, slot, _ in store.nor.operations)


def test_the_sequence_wraps_around(store):
    store.nor.slots[0][: len(record(2**32 - 1, b"old!"))] = record(2**32 - 1, b"old!")
    store.nor.slots[1][: len(record(2**32 - 2, b"gone"))] = record(2**32 - 2, b"gone")
    assert store.load(4) == (OK, b"old!")
    assert store.save(b"new!") == OK
    assert store.slots() == [(SLOT_VALID, 2**32 - 1), (SLOT_VALID, 0)]
    assert store.load(4) == (OK, b"new!")
    assert store.save(b"last") == OK and store.load(4) == (OK, b"last")


def test_another_models_record_is_refused_and_replaced_last(store):
    store.save(state(1))
    assert store.load(1000, OTHER) == (OTHER_MODEL, None)
    assert store.slots(OTHER)[0] == (SLOT_OTHER_MODEL, 1)
    assert store.save(state(2), OTHER) == OK
    assert store.load(1000) == (OK, state(1)) and store.load(1000, OTHER) == (OK, state(2))
    assert store.save(state(3), OTHER) == OK
    assert store.load(1000) == (OTHER_MODEL, None) and store.load(1000, OTHER) == (OK, state(3))


def test_of_two_other_records_the_older_is_replaced(store):
    for generation in (1, 2, 3):
        store.save(state(generation))
    assert store.save(state(9), OTHER) == OK
    assert store.load(1000) == (OK, state(3))


def test_a_record_of_another_length_is_refused(store):
    store.save(state(1))
    assert store.load(999) == (OTHER_MODEL, None)


def test_any_flipped_bit_brings_the_older_record_back(store):
    store.save(state(1, 40))
    store.save(state(2, 40))
    for byte in [*range(28), *range(32, 72)]:
        for bit in range(8):
            store.nor.slots[1][byte] ^= 1 << bit
            assert store.load(40) == (OK, state(1, 40)), (byte, bit)
            store.nor.slots[1][byte] ^= 1 << bit
    store.nor.slots[1][40] ^= 1
    assert store.slots() == [(SLOT_VALID, 1), (SLOT_DAMAGED, 2)]


def test_a_lone_damaged_record_is_named_and_outnumbered_by_the_next(store):
    store.save(state(1))
    store.nor.slots[0][500] ^= 4
    assert store.load(1000) == (DAMAGED, None)
    assert store.save(state(2)) == OK and store.load(1000) == (OK, state(2))
    assert max(sequence for _, sequence in store.slots()) == 2


def test_a_record_survives_every_failing_hook(store):
    store.save(state(1))
    for hook in ("erase", "program"):
        store.nor.broken = {hook}
        assert store.save(state(2)) == FLASH_ERROR
        store.nor.broken = set()
        assert store.load(1000) == (OK, state(1))
    store.nor.broken = {"read"}
    assert store.load(1000) == (UNREADABLE, None)
    store.nor.broken = set()
    assert store.save(state(3)) == OK and store.load(1000) == (OK, state(3))


@pytest.mark.parametrize("offset", [5, 600], ids=["header", "payload"])
def test_a_worn_cell_is_noticed_by_the_save(store, offset):
    store.save(state(1))
    store.nor.stuck = {(1, offset): 0xFF} if offset > 28 else {(1, 0): 0xFF}
    assert store.save(state(2)) == NOT_WRITTEN
    assert store.load(1000) == (OK, state(1))


def test_what_does_not_fit_is_refused_before_anything_is_erased(library):
    store = Store(library, Nor(32, 1024))
    store.save(state(1, 992))
    assert store.load(992) == (OK, state(1, 992))
    assert store.save(state(2, 993)) == TOO_LARGE
    assert store.load(992) == (OK, state(1, 992))
    assert store.library.tl_store_save(store.nor.c, MODEL, b"", 0xFFFFFFFF) == TOO_LARGE


@pytest.mark.parametrize(("unit", "slot_size"), [(0, 4096), (257, 257 * 8), (8, 4097), (64, 0)])
def test_an_impossible_flash_is_refused(store, unit, slot_size):
    store.nor.c.unit, store.nor.c.slot_size = unit, slot_size
    assert store.save(b"x") == store.load(1)[0] == store.reset() == BAD_FLASH
    assert store.slots() == [(SLOT_UNREADABLE, 0)] * 2


def test_a_factory_reset_leaves_nothing(store):
    store.save(state(1))
    store.save(state(2))
    assert store.reset() == OK
    assert store.load(1000) == (EMPTY, None)
    assert store.slots() == [(SLOT_EMPTY, 0)] * 2
    assert store.save(state(3)) == OK and store.load(1000) == (OK, state(3))
