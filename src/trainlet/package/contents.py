"""What every format carries: the emitted program, kernels for a board, the runtime, compiler flags."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import trainlet
from trainlet.backends.c99.emit import KERNEL_FOLDER, emit
from trainlet.backends.c99.header import model_id
from trainlet.backends.c99.manifest import manifest
from trainlet.package.templates import fill
from trainlet.plan.program import Program

if TYPE_CHECKING:
    from trainlet.device.board import Board

RUNTIME_FOLDER = Path(trainlet.__file__).parent / "runtime" / "c"
# Cores with faster bodies of some kernels, by the compiler's name of the core. The plain C bodies run on all.
CORE_KERNELS = {"cortex-m4": ("armv7em",), "cortex-m7": ("armv7em",)}
# As device/build.py compiles them, so that what `trainlet emulate` counts and compares holds for the package.
FLAGS = ("-O2", "-ffp-contract=off", "-fno-math-errno")
LANES = """
/* Outputs that a kernel computes side by side; said here for a host that plays the board. */
#ifndef TL_LANES
#define TL_LANES 4
#endif
"""


@dataclass(frozen=True)
class Contents:
    """A program with what goes around it. `sources`: path within the package -> text, C and headers.

    Includes are relative to themselves, so that a build needs no include path but the package's folder.
    """

    program: Program
    manifest: Mapping[str, Any]
    sources: Mapping[str, str]
    board: Board | None

    @property
    def name(self) -> str:
        """Prefix of the program's C names, and the name of its library."""
        return str(self.manifest["prefix"])

    @property
    def c_files(self) -> list[str]:
        return sorted(path for path in self.sources if path.endswith(".c"))

    @property
    def model_id(self) -> str:
        """C expression: the header's constant if it has one, else the number itself."""
        constant = f"{self.name.upper()}_MODEL_ID"
        return constant if constant in self.sources[f"{self.name}.h"] else f"0x{model_id(self.program):016x}u"


def contents(program: Program, board: Board | None) -> Contents:
    """The sources of a program for a board (None: any). Raises BackendError for a node without a kernel."""
    files = {
        path: _relative(text, "kernels/") for path, text in emit(program).items() if path[-2:] in (".c", ".h")
    }
    for name, path in kernel_files(board).items():
        files[f"kernels/{name}"] = path.read_text(encoding="utf-8")
    for path in sorted(RUNTIME_FOLDER.glob("*.[ch]")):
        files[f"runtime/{path.name}"] = _relative(path.read_text(encoding="utf-8"), "../kernels/")
    files = {path: _with_config(path, text) for path, text in files.items()}
    return Contents(program, manifest(program), files | {"tl_config.h": _config(board)}, board)


def kernel_files(board: Board | None) -> dict[str, Path]:
    """File name -> kernel source: the portable one, or one for the board's core in its place."""
    folders = ("include", "portable", *CORE_KERNELS.get(core(board), ()))
    found = [path for folder in folders for path in sorted((KERNEL_FOLDER / folder).glob("*.[ch]"))]
    return {path.name: path for path in found}


def core(board: Board | None) -> str:
    """The core of a board as gcc calls it ("cortex-m7"), "" where that is not known."""
    if board is None:
        return ""
    flags = board.gcc.flags if board.gcc is not None else ()
    named = [flag.removeprefix("-mcpu=") for flag in flags if flag.startswith("-mcpu=")]
    if not named and board.zig is not None:
        named = [board.zig.cpu.replace("_", "-")]
    return named[-1].split("+")[0] if named else ""


def _config(board: Board | None) -> str:
    """tl_config.h: what the kernels must know of a board. Without one, what runs everywhere."""
    values = {
        "WHY": "For any processor" if board is None else f"For {board.title}",
        "FMA": int(board is not None and board.fma),
        "LANES": "" if board is None else LANES,
        "FLAGS": " ".join(FLAGS[1:]),
    }
    return fill("tl_config.h.in", values)


def _with_config(path: str, text: str) -> str:
    """A C file that includes tl_config.h before anything else; headers as they are."""
    return f'#include "{"../" * path.count("/")}tl_config.h"\n{text}' if path.endswith(".c") else text


def _relative(text: str, folder: str) -> str:
    """Includes of kernel headers by the path from the including file."""
    return re.sub(r'^#include "(tl_\w+\.h)"', rf'#include "{folder}\1"', text, flags=re.MULTILINE)
