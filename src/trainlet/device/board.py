"""Boards: memories, instruction set, clock, compilers and emulators of a part, from a TOML file."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainlet.errors import BackendError

FOLDER = Path(__file__).parent / "boards"
ISAS = ("thumb", "riscv32")
FENCES = {"thumb": ("pmsav7", "pmsav8", "none"), "riscv32": ("pmp", "none")}
UNICORN_CPUS = {
    "thumb": ("cortex-m0", "cortex-m3", "cortex-m4", "cortex-m7", "cortex-m33"),
    "riscv32": ("any",),
}
LARGEST_ADDRESS = 2**32
LARGEST_UNIT = 256  # TL_STORE_MAX_UNIT of runtime/c/store.h


@dataclass(frozen=True)
class Memory:
    """One memory of a part. The linker may fill `budget_bytes` of its `bytes`.

    `vectors`: where the core looks for its vector table when that is not at `origin`.
    """

    origin: int
    bytes: int
    budget_bytes: int
    vectors: int | None = None


@dataclass(frozen=True)
class Gcc:
    """A cross gcc: its command, and the flags that choose the core."""

    command: str
    flags: tuple[str, ...]


@dataclass(frozen=True)
class Zig:
    """The same for `zig cc`."""

    target: str
    cpu: str


@dataclass(frozen=True)
class Qemu:
    """A QEMU machine with the same core, and where its memories lie."""

    command: str
    machine: str
    flash: int
    ram: int
    vectors: int | None = None


@dataclass(frozen=True)
class Unicorn:
    """Unicorn's model of the core; memories lie where the part has them."""

    cpu: str


@dataclass(frozen=True)
class Board:
    """A part that programs are built for. Absent compilers and emulators are None.

    program_unit: bytes of flash that are programmed at once.
    """

    name: str
    title: str
    isa: str
    fpu: bool
    fence: str
    clock_mhz: float
    cycles_per_instruction: float
    cycles_per_extra_word: float
    stack_bytes: int
    program_unit: int
    ram: Memory
    flash: Memory
    gcc: Gcc | None
    zig: Zig | None
    qemu: Qemu | None
    unicorn: Unicorn | None

    @property
    def fma(self) -> bool:
        """Whether a * b + c is rounded once there: decides the bits, here and on the host twin."""
        return self.fpu

    def milliseconds(self, instructions: float, extra_words: float = 0) -> float:
        """Projected time of so many instructions that move so many extra words; see `assumption`."""
        cycles = instructions * self.cycles_per_instruction + extra_words * self.cycles_per_extra_word
        return cycles / (self.clock_mhz * 1e3)

    def as_dict(self) -> dict[str, Any]:
        """`boards --json`."""
        return {
            "name": self.name,
            "title": self.title,
            "ram_bytes": self.ram.bytes,
            "ram_budget_bytes": self.ram.budget_bytes,
            "flash_bytes": self.flash.bytes,
            "flash_budget_bytes": self.flash.budget_bytes,
            "fpu": self.fpu,
            "clock_mhz": self.clock_mhz,
        }

    @property
    def assumption(self) -> str:
        """What a projected time rests on."""
        return (
            f"projected, not measured: {self.cycles_per_instruction:g} cycles per instruction and "
            f"{self.cycles_per_extra_word:g} for each further word that a load or store moves, at "
            f"{self.clock_mhz:g} MHz, no wait states"
        )


def boards() -> dict[str, Board]:
    """The boards that come with the package, by name."""
    return {path.stem: read_board(path) for path in sorted(FOLDER.glob("*.toml"))}


def board_lines(found: Iterable[Board]) -> list[str]:
    """Boards as lines of plain text; memories are what a program may take of them."""
    lines = [f"{'board':<12} {'RAM':>9} {'flash':>10}  {'MHz':>4}  FPU  part"]
    for b in found:
        memories = f"{b.ram.budget_bytes:>9,} {b.flash.budget_bytes:>10,}"
        lines.append(f"{b.name:<12} {memories}  {b.clock_mhz:>4g}  {'yes' if b.fpu else 'no':<3}  {b.title}")
    return lines


def board(name: str | Path | Board) -> Board:
    """A board by name, by the path of a .toml file, or itself. Raises BackendError listing what there is."""
    if isinstance(name, Board):
        return name
    if str(name).endswith(".toml"):
        return read_board(Path(name))
    path = FOLDER / f"{name}.toml"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in FOLDER.glob("*.toml")))
        raise BackendError(f"no board {name}: there are {known}; or give the path of your own .toml")
    return read_board(path)


def read_board(path: Path) -> Board:
    """The board in a TOML file. Raises BackendError naming the file and the key that is wrong."""
    try:
        table = tomllib.loads(path.read_text())
    except FileNotFoundError:
        raise BackendError(f"no board file {path}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise BackendError(f"{path} cannot be read: {error}") from None
    except tomllib.TOMLDecodeError as error:
        raise BackendError(f"{path} is not TOML: {error}") from None
    return _board(_Table(table, str(path)), path.stem)


class _Table:
    """A TOML table whose keys are taken one by one, their types checked; a key that is left is an error."""

    def __init__(self, values: Mapping[str, Any], where: str) -> None:
        self.values, self.where, self.known = values, where, set[str]()

    def take(self, key: str, kind: type, default: Any = None) -> Any:
        self.known.add(key)
        if key not in self.values:
            if default is not None:
                return default
            raise BackendError(f"{self.where}: {key} is missing")
        value = self.values[key]
        if kind is float and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise BackendError(f"{self.where}: {key} is {value!r}, it must be {_WORDS[kind]}")
        if isinstance(value, int | float) and not 0 <= value < LARGEST_ADDRESS:
            raise BackendError(f"{self.where}: {key} is {value}, it must lie in 0..2^32-1")
        return value

    def choose(self, key: str, among: tuple[str, ...]) -> str:
        value = str(self.take(key, str))
        if value not in among:
            raise BackendError(f"{self.where}: {key} is {value!r}, it must be one of {', '.join(among)}")
        return value

    def positive(self, key: str, kind: type, default: Any = None) -> Any:
        value = self.take(key, kind, default)
        if value <= 0:
            raise BackendError(f"{self.where}: {key} must be positive")
        return value

    def optional(self, key: str) -> int | None:
        return int(self.take(key, int)) if key in self.values else None

    def table(self, key: str) -> _Table:
        return _Table(self.take(key, dict), f"{self.where}: [{key}]")

    def finish(self) -> None:
        if unknown := sorted(set(self.values) - self.known):
            raise BackendError(
                f"{self.where}: unknown {unknown[0]}; known are {', '.join(sorted(self.known))}"
            )


_WORDS = {
    int: "a whole number", float: "a number", str: "a string", bool: "true or false",
    dict: "a table", list: "a list",
}  # fmt: skip


def _board(t: _Table, name: str) -> Board:
    isa = t.choose("isa", ISAS)
    found = Board(
        name,
        t.take("title", str, name),
        isa,
        t.take("fpu", bool),
        t.choose("fence", FENCES[isa]),
        t.positive("clock_mhz", float),
        t.positive("cycles_per_instruction", float, 1.0),
        t.take("cycles_per_extra_word", float, 1.0),
        _multiple(t, t.positive("stack_bytes", int), 32, "stack_bytes"),
        _unit(t, t.positive("program_unit", int, 8)),
        _memory(t.table("ram")),
        _memory(t.table("flash")),
        _gcc(t.table("gcc")) if _has(t, "gcc") else None,
        _zig(t.table("zig")) if _has(t, "zig") else None,
        _qemu(t.table("qemu")) if _has(t, "qemu") else None,
        _unicorn(t.table("unicorn"), isa) if _has(t, "unicorn") else None,
    )
    t.finish()
    if found.gcc is None and found.zig is None:
        raise BackendError(f"{t.where}: no compiler, give [gcc] or [zig]")
    if found.stack_bytes >= found.ram.budget_bytes:
        raise BackendError(f"{t.where}: stack_bytes {found.stack_bytes} leaves nothing of the RAM")
    return found


def _has(t: _Table, key: str) -> bool:
    t.known.add(key)
    return key in t.values


def _multiple(t: _Table, value: int, of: int, key: str) -> int:
    if value % of:
        raise BackendError(f"{t.where}: {key} is {value}, it must be a multiple of {of}")
    return value


def _unit(t: _Table, value: int) -> int:
    if value > LARGEST_UNIT:
        raise BackendError(
            f"{t.where}: program_unit is {value}, the store programs 1 to {LARGEST_UNIT} at once"
        )
    return value


def _memory(t: _Table) -> Memory:
    origin = _multiple(t, t.take("origin", int), 32, "origin")
    size = _multiple(t, t.positive("bytes", int), 32, "bytes")
    budget = _multiple(t, t.positive("budget_bytes", int, size), 32, "budget_bytes")
    found = Memory(origin, size, budget, t.optional("vectors"))
    t.finish()
    if budget > size:
        raise BackendError(f"{t.where}: budget_bytes {budget} is more than the {size} bytes there are")
    if origin + size > LARGEST_ADDRESS:
        raise BackendError(f"{t.where}: {size} bytes from {origin:#x} pass the end of the address space")
    return found


def _gcc(t: _Table) -> Gcc:
    flags = t.take("flags", list)
    if not all(isinstance(flag, str) for flag in flags):
        raise BackendError(f"{t.where}: flags must be a list of strings")
    found = Gcc(t.take("command", str), tuple(flags))
    t.finish()
    return found


def _zig(t: _Table) -> Zig:
    found = Zig(t.take("target", str), t.take("cpu", str))
    t.finish()
    return found


def _qemu(t: _Table) -> Qemu:
    found = Qemu(
        t.take("command", str),
        t.take("machine", str),
        t.take("flash", int),
        t.take("ram", int),
        t.optional("vectors"),
    )
    t.finish()
    return found


def _unicorn(t: _Table, isa: str) -> Unicorn:
    found = Unicorn(t.choose("cpu", UNICORN_CPUS[isa]))
    t.finish()
    return found
