"""What an emulator gives back, whichever it is; and which one to take."""

from __future__ import annotations

import importlib.util
import shutil
from dataclasses import dataclass

from trainlet.device.board import Board
from trainlet.device.counting import Counts
from trainlet.device.install import routes
from trainlet.errors import BackendError

EXIT_FAULT = 70  # of fault.c
EXIT_POWER_CUT = 75  # of keep.c
FLASH_FILE = "flash.bin"  # what the flash of keep.c holds; it outlives a run
ENGINES = ("qemu", "unicorn")


@dataclass(frozen=True)
class Run:
    """A finished run: the bytes of result.bin, what was said on the console, exit code, counts."""

    result: bytes
    console: str
    exit_code: int
    counts: Counts


def choose_engine(board: Board, wanted: str = "auto") -> str:
    """QEMU where it is installed, else Unicorn. Raises BackendError saying what to install."""
    if wanted not in ("auto", *ENGINES):
        raise BackendError(f"no emulator {wanted!r}: choose auto, {' or '.join(ENGINES)}")
    if wanted in ("auto", "qemu") and board.qemu is not None and shutil.which(board.qemu.command):
        return "qemu"
    present = importlib.util.find_spec("unicorn") is not None
    if wanted in ("auto", "unicorn") and board.unicorn is not None and present:
        return "unicorn"
    commands = [board.qemu.command] if board.qemu is not None and wanted != "unicorn" else []
    wheels = ["unicorn"] if board.unicorn is not None and wanted != "qemu" else []
    what = routes(commands, wheels) or f"its file has no [{wanted}]"
    raise BackendError(f"no emulator for {board.name}: {what}")
