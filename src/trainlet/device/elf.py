"""What a linked 32-bit little-endian ELF file holds: segments, sections, symbols."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

SHT_SYMTAB, SHT_NOBITS, SHF_ALLOC = 2, 8, 2
STT_OBJECT, STT_FUNC, STT_FILE = 1, 2, 4
STB_LOCAL = 0


@dataclass(frozen=True)
class Segment:
    """Bytes to be put at a physical address before the core starts."""

    address: int
    data: bytes


@dataclass(frozen=True)
class Section:
    """A section that takes memory; `loaded`: it has contents in the file."""

    name: str
    address: int
    bytes: int
    loaded: bool


@dataclass(frozen=True)
class Symbol:
    """A function ("func"), an array ("object") or a plain address ("").

    `file`: the C file of a local symbol, "" where global. A Thumb function's lowest address bit is cleared.
    """

    name: str
    address: int
    bytes: int
    kind: str
    file: str


@dataclass(frozen=True)
class Elf:
    """Entry point, segments, sections and symbols of a program."""

    path: Path
    thumb: bool
    entry: int
    segments: tuple[Segment, ...]
    sections: tuple[Section, ...]
    symbols: tuple[Symbol, ...]

    def address(self, name: str) -> int:
        """The address of a symbol, which must exist."""
        return next(s.address for s in self.symbols if s.name == name)

    def section_bytes(self, name: str) -> int:
        """Size of a section, 0 if absent."""
        return sum(s.bytes for s in self.sections if s.name == name)

    def at(self, address: int, kind: str) -> Symbol | None:
        """The function or object that holds an address."""
        inside = (s for s in self.symbols if s.kind == kind and s.address <= address < s.address + s.bytes)
        return next(inside, None)


def read_elf(path: Path) -> Elf:
    """The program in a file that our own linker wrote."""
    data = path.read_bytes()
    thumb = struct.unpack_from("<H", data, 18)[0] == 40  # EM_ARM
    entry, program_at, section_at = struct.unpack_from("<III", data, 24)
    program_size, program_count, section_size, section_count, names_index = struct.unpack_from(
        "<5H", data, 42
    )
    segments = []
    for i in range(program_count):
        kind, at, _, physical, size = struct.unpack_from("<5I", data, program_at + i * program_size)
        if kind == 1 and size:
            segments.append(Segment(physical, data[at : at + size]))
    headers = [struct.unpack_from("<10I", data, section_at + i * section_size) for i in range(section_count)]
    names = headers[names_index]
    sections = tuple(
        Section(_string(data, names[4] + h[0]), h[3], h[5], h[1] != SHT_NOBITS)
        for h in headers
        if h[2] & SHF_ALLOC and h[5]
    )
    table = next(h for h in headers if h[1] == SHT_SYMTAB)
    return Elf(path, thumb, entry, tuple(segments), sections, _symbols(data, table, headers[table[6]], thumb))


def _string(data: bytes, at: int) -> str:
    return data[at : data.index(b"\0", at)].decode()


def _symbols(
    data: bytes, table: tuple[int, ...], strings: tuple[int, ...], thumb: bool
) -> tuple[Symbol, ...]:
    found, file = [], ""
    for at in range(table[4], table[4] + table[5], 16):
        name_at, address, size, info = struct.unpack_from("<IIIB", data, at)
        name, kind = _string(data, strings[4] + name_at), info & 15
        if kind == STT_FILE:
            file = Path(name).name
        elif name:
            word = {STT_FUNC: "func", STT_OBJECT: "object"}.get(kind, "")
            where = address & ~1 if thumb and kind == STT_FUNC else address
            found.append(Symbol(name, where, size, word, file if info >> 4 == STB_LOCAL else ""))
    return tuple(found)
