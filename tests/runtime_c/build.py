"""The C parts of the runtime, built for this machine and bound through ctypes."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import trainlet
from trainlet.runtime.toolchain import WARNINGS, compiler

SOURCES = Path(trainlet.__file__).parent / "runtime" / "c"
KERNEL_HEADERS = Path(trainlet.__file__).parent / "kernels" / "include"
TESTS = Path(__file__).parent
C99 = ("-std=c99", *WARNINGS, "-Wshadow", f"-I{KERNEL_HEADERS}")
SANITIZE = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-g")

HOOK_READ = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.c_void_p, ctypes.c_int, ctypes.c_uint32, ctypes.c_void_p, ctypes.c_uint32
)
HOOK_ERASE = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int)


class CFlash(ctypes.Structure):
    """tl_store_flash."""

    _fields_ = [
        ("ctx", ctypes.c_void_p), ("slot_size", ctypes.c_uint32), ("unit", ctypes.c_uint32),
        ("read", HOOK_READ), ("erase", HOOK_ERASE), ("program", HOOK_READ),
    ]  # fmt: skip


class Nor:
    """NOR flash: an erase sets a slot to 0xff, programming clears bits, a unit once per erase.

    `broken`: names of hooks that fail. `stuck`: bits (slot, offset) -> mask that stay 0.
    """

    def __init__(self, unit: int = 8, slot_size: int = 4096) -> None:
        self.unit, self.slots = unit, [bytearray(b"\xff" * slot_size) for _ in range(2)]
        self.programmed: list[set[int]] = [set(), set()]
        self.operations: list[tuple[str, int, int]] = []
        self.broken: set[str] = set()
        self.stuck: dict[tuple[int, int], int] = {}
        self.c = CFlash(
            None, slot_size, unit, HOOK_READ(self._read), HOOK_ERASE(self._erase), HOOK_READ(self._program)
        )

    def _read(self, _: int, slot: int, offset: int, dst: int, length: int) -> int:
        if "read" in self.broken or offset + length > len(self.slots[slot]):
            return -1
        ctypes.memmove(dst, bytes(self.slots[slot][offset : offset + length]), length)
        return 0

    def _erase(self, _: int, slot: int) -> int:
        if "erase" in self.broken:
            return -1
        self.operations.append(("erase", slot, 0))
        self.slots[slot][:] = b"\xff" * len(self.slots[slot])
        self.programmed[slot].clear()
        return 0

    def _program(self, _: int, slot: int, offset: int, src: int, length: int) -> int:
        units = set(range(offset, offset + length, self.unit))
        misuse = offset % self.unit or length % self.unit or units & self.programmed[slot]
        if "program" in self.broken or misuse or offset + length > len(self.slots[slot]):
            return -1
        self.operations.append(("program", slot, offset))
        self.programmed[slot] |= units
        for i, byte in enumerate(ctypes.string_at(src, length), offset):
            self.slots[slot][i] &= byte & ~self.stuck.get((slot, i), 0)
        return 0


def run(command: Sequence[str | Path]) -> str:
    """Output of a command that must succeed."""
    result = subprocess.run([str(c) for c in command], capture_output=True, text=True)
    assert result.returncode == 0, (result.stdout + result.stderr)[-3000:]
    return result.stdout


def store_library(folder: Path) -> ctypes.CDLL:
    """store.c as a shared library, its functions typed."""
    path = folder / "store.so"
    run([*compiler(), *C99, "-O1", "-fPIC", "-shared", SOURCES / "store.c", "-o", path])
    library = ctypes.CDLL(str(path))
    record: list[Any] = [ctypes.POINTER(CFlash), ctypes.c_uint64, ctypes.c_void_p, ctypes.c_uint32]
    library.tl_store_load.argtypes = library.tl_store_save.argtypes = record
    library.tl_store_reset.argtypes = record[:2]
    library.tl_store_inspect.argtypes = record[:3]
    library.tl_store_words.restype = ctypes.c_char_p
    library.tl_store_crc32.argtypes = [ctypes.c_uint32, ctypes.c_char_p, ctypes.c_uint32]
    library.tl_store_crc32.restype = ctypes.c_uint32
    return library


def power_cut_program(
    folder: Path, edit: Sequence[tuple[str, str]] = (), flags: Sequence[str] = ("-O2",)
) -> Path:
    """The power-cut sweep, over store.c with each (text, replacement) of `edit` applied."""
    source = (SOURCES / "store.c").read_text()
    for text, replacement in edit:
        assert source.count(text) == 1, text
        source = source.replace(text, replacement)
    folder.mkdir(exist_ok=True)
    (folder / "store.c").write_text(source)
    shutil.copy(SOURCES / "store.h", folder)
    sources = [folder / "store.c", TESTS / "power_cut.c"]
    run([*compiler(), *C99, *flags, f"-I{folder}", *sources, "-o", folder / "power_cut"])
    return folder / "power_cut"
