"""Emitted sources + firmware -> an image for a board, with the part's gcc or with `zig cc`."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainlet.device import firmware
from trainlet.device.board import Board
from trainlet.device.elf import Elf, read_elf
from trainlet.device.firmware import Place
from trainlet.device.install import routes
from trainlet.errors import BackendError, BudgetError
from trainlet.runtime.toolchain import cache_folder, digest, publish

# -ffreestanding: the compiler's own headers suffice; -fbuiltin: it may still expand a small memcpy.
FLAGS = (
    "-std=gnu99", "-O3", "-ffp-contract=off", "-fno-math-errno", "-ffreestanding", "-fbuiltin",
    "-ffunction-sections", "-fdata-sections", "-fno-common", "-g0",
)  # fmt: skip
WARNINGS = (
    "-Wall",
    "-Wextra",
    "-Werror",
)  # for the firmware; the emitted sources are checked where they are made
# zig links its compiler-rt (soft floats, 64-bit division) unless told -nostdlib; there is no libc to link.
LINK = {
    "gcc": ("-nostdlib", "-static", "-Wl,--gc-sections", "-Wl,-e,tl_reset"),
    "zig": ("-static", "-Wl,--gc-sections", "-Wl,-e,tl_reset"),
}
MEMORY_FLAGS = {"gcc": ("-fno-tree-loop-distribute-patterns",), "zig": ()}
COMPILERS = ("gcc", "zig")


@dataclass(frozen=True)
class CrossCompiler:
    """A compiler for a board. `kind` is "gcc" or "zig"."""

    kind: str
    command: tuple[str, ...]
    flags: tuple[str, ...]
    libraries: tuple[str, ...]


@dataclass(frozen=True)
class Image:
    """A linked firmware with its sizes, in bytes. bss includes `context` and `samples`, not the stack."""

    elf: Elf
    compiler: CrossCompiler
    place: Place
    manifest: Mapping[str, Any]

    @property
    def text_bytes(self) -> int:
        return sum(self.elf.section_bytes(name) for name in (".vectors", ".text", ".rodata"))

    @property
    def data_bytes(self) -> int:
        return self.elf.section_bytes(".data")

    @property
    def bss_bytes(self) -> int:
        return self.elf.section_bytes(".bss") + self.context_bytes

    @property
    def context_bytes(self) -> int:
        """The program's memory: arena, state, scratch, padding."""
        return self.elf.section_bytes(".context")

    @property
    def code(self) -> tuple[int, bytes]:
        """(address, bytes) of flash from its begin to its last byte that is used."""
        origin = self.place.flash
        inside = [s for s in self.elf.segments if s.address >= origin]
        flash = bytearray(max(s.address + len(s.data) for s in inside) - origin)
        for s in inside:
            flash[s.address - origin : s.address - origin + len(s.data)] = s.data
        return origin, bytes(flash)

    @property
    def sample_bytes(self) -> int:
        """The buffer that samples arrive in; 0 if they arrive in the arena."""
        return sum(s.bytes for s in self.elf.symbols if s.name == "samples" and s.file == "main.c")


def cross_compiler(board: Board, wanted: str = "auto") -> CrossCompiler:
    """The board's gcc where it is installed, else zig. Raises BackendError saying what to install."""
    if wanted not in ("auto", *COMPILERS):
        raise BackendError(f"no compiler {wanted!r} for boards: choose auto, {' or '.join(COMPILERS)}")
    gcc = board.gcc
    if wanted in ("auto", "gcc") and gcc is not None and (path := shutil.which(gcc.command)):
        return CrossCompiler("gcc", (path,), gcc.flags, ("-lgcc",))
    zig = board.zig
    if wanted in ("auto", "zig") and zig is not None and importlib.util.find_spec("ziglang") is not None:
        flags = ("-target", zig.target, f"-mcpu={zig.cpu}", "-fno-sanitize=all")
        return CrossCompiler("zig", (sys.executable, "-m", "ziglang", "cc"), flags, ())
    commands = [gcc.command] if gcc is not None and wanted != "zig" else []
    wheels = ["ziglang"] if zig is not None and wanted != "gcc" else []
    what = routes(commands, wheels) or f"its file has no [{wanted}]"
    raise BackendError(f"no compiler for {board.name}: {what}")


def read_manifest(folder: Path) -> dict[str, Any]:
    """program.json of a folder of emitted sources. Raises BackendError where there is none."""
    path = folder / "program.json"
    if not path.is_file():
        raise BackendError(f"{folder} holds no trainlet program (program.json is missing)")
    return dict(json.loads(path.read_text()))


def build_firmware(
    folder: Path,
    board: Board,
    output: Path,
    place: Place | None = None,
    compiler: str = "auto",
    input_offsets: Mapping[str, int] | None = None,
    keeps: bool = False,
) -> Image:
    """Compile and link the emitted program in `folder` into `output`/firmware.elf.

    place: the part's addresses unless given. keeps: the state is saved by runtime/store.c. Objects are
    cached by content. Raises BudgetError when flash or RAM do not suffice, by how much; BackendError with
    the compiler's first error otherwise.
    """
    manifest, chosen = read_manifest(folder), cross_compiler(board, compiler)
    place = place or firmware.on_part(board)
    output.mkdir(parents=True, exist_ok=True)
    config = firmware.program_config(manifest, input_offsets, board.program_unit if keeps else 0)
    (output / "program_config.h").write_text(config)
    script = output / "firmware.ld"
    script.write_text(firmware.linker_script(board, place))
    flags = (*FLAGS, *chosen.flags, *firmware.defines(board, place))
    own = firmware.sources(board, keeps, by_rows=manifest["input"].get("where") == "rows")
    emitted = [*sorted(folder.glob("*.c")), *sorted((folder / "kernels").glob("*.c"))]
    include: tuple[Path, ...] = (firmware.FOLDER, output, folder / "kernels", folder)
    if keeps:
        store = firmware.store_folder(folder)
        emitted, include = [*emitted, store / "store.c"], (*include, store)
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        objects = list(pool.map(lambda source: _object(chosen, flags, source, include), (*own, *emitted)))
    elf = output / "firmware.elf"
    _link(chosen, flags, objects, script, elf, board)
    return Image(read_elf(elf), chosen, place, manifest)


def _object(compiler: CrossCompiler, flags: Sequence[str], source: Path, include: Sequence[Path]) -> Path:
    """One object file. Kernels see their own headers only: what is around does not rebuild them."""
    if source.parent.name == "kernels":
        include = (firmware.FOLDER, source.parent)
    headers = sorted(h for folder in include for h in folder.glob("*.h"))
    if source.parent == firmware.FOLDER:
        flags = (*flags, *WARNINGS)
    if source.name == "memory.c":  # a loop in memcpy must not become a call of memcpy
        flags = (*flags, "-fno-builtin", *MEMORY_FLAGS[compiler.kind])
    command = [*compiler.command, *flags]
    parts = [file.read_bytes() for file in (source, *headers)]
    result = cache_folder() / f"{digest([*command, source.name], parts)}.o"
    if not result.exists():
        folders = [word for folder in include for word in ("-I", str(folder))]
        publish(result, lambda out: [*command, *folders, "-c", str(source), "-o", out])
    return result


def _link(
    compiler: CrossCompiler,
    flags: Sequence[str],
    objects: Sequence[Path],
    script: Path,
    elf: Path,
    board: Board,
) -> None:
    command = [*compiler.command, *flags, *LINK[compiler.kind], f"-Wl,-T,{script}", *map(str, objects)]
    done = subprocess.run(
        [*command, *compiler.libraries, "-o", str(elf)], capture_output=True, text=True, check=False
    )
    if done.returncode == 0:
        return
    if too_much := _overflow(done.stderr):
        memory, excess = too_much
        budget = (board.flash if memory == "FLASH" else board.ram).budget_bytes
        word = "flash" if memory == "FLASH" else f"RAM (with a stack of {board.stack_bytes:,})"
        raise BudgetError(
            f"the firmware needs {budget + excess:,} bytes of {word}, {excess:,} more than the {budget:,} of "
            f"{board.name}: train fewer or later layers, or take a larger board"
        )
    lines = [line for line in done.stderr.splitlines() if "error" in line or "undefined" in line]
    raise BackendError(f"linking for {board.name} failed: {(lines or [done.stderr.strip()])[0]}")


def _overflow(message: str) -> tuple[str, int] | None:
    """(memory, bytes too many) from what GNU ld and lld say; the largest where several sections are named."""
    found = re.findall(r"region [`']?(\w+)'? overflowed by (\d+) bytes", message)
    found += [(m, n) for m, n in re.findall(r"overflows? (?:memory )?region '(\w+)'[^\d]*(\d+)", message)]
    found += [(m, n) for m, n in re.findall(r"will not fit in region '(\w+)': overflowed by (\d+)", message)]
    sizes = [(memory, int(count)) for memory, count in found]
    return max(sizes, key=lambda item: item[1], default=None)
