"""Firmware around an emitted program: its sources, its linker script, what it is told about the program."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainlet.device.board import Board

FOLDER = Path(__file__).parent / "firmware"
RUNTIME_FOLDER = Path(__file__).parents[1] / "runtime" / "c"
START = {"thumb": "start_cortex_m.c", "riscv32": "start_riscv.c"}
VECTOR_BYTES = 1024


@dataclass(frozen=True)
class Place:
    """Where an image lies: on the part itself, or in the memories of the QEMU machine that stands for it."""

    flash: int
    ram: int
    vectors: int | None


def on_part(board: Board) -> Place:
    """The part's own addresses."""
    return Place(board.flash.origin, board.ram.origin, board.flash.vectors)


def on_machine(board: Board) -> Place:
    """The addresses of its QEMU machine."""
    assert board.qemu is not None
    return Place(board.qemu.flash, board.qemu.ram, board.qemu.vectors)


def sources(board: Board, keeps: bool = False, by_rows: bool = False) -> tuple[Path, ...]:
    """Our C files for a board.

    keeps: with the store, and a flash for it. by_rows: the program asks for rows of its samples.
    """
    names = ["main.c", "fault.c", "memory.c", "semihosting.c", "start.c", START[board.isa]]
    names += ["keep.c"] if keeps else []
    names += ["image.c"] if by_rows else []
    return tuple(FOLDER / name for name in (*names, f"fence_{board.fence}.c"))


def store_folder(program: Path) -> Path:
    """Where store.c lies: in the package of a program, or with us where its folder has none."""
    own = program / "runtime"
    return own if (own / "store.c").is_file() else RUNTIME_FOLDER


def defines(board: Board, place: Place) -> tuple[str, ...]:
    """What the sources must know about a board, as compiler flags."""
    return (
        f"-DTL_USE_FMA={int(board.fma)}",
        f"-DTL_FPU={int(board.fpu)}",
        f"-DTL_VECTORS={place.vectors or 0:#x}",
    )


def linker_script(board: Board, place: Place) -> str:
    """The memories of a board, as large as their budgets: what does not fit does not link."""
    apart = place.vectors is not None
    values = {
        "BOARD": board.name,
        "VECTORS_ORIGIN": f"{place.vectors if apart else place.flash:#x}",
        "VECTORS_BYTES": str(VECTOR_BYTES),
        "VECTORS_MEMORY": "VECTORS" if apart else "FLASH",
        "FLASH_ORIGIN": f"{place.flash:#x}",
        "FLASH_BYTES": str(board.flash.budget_bytes),
        "RAM_ORIGIN": f"{place.ram:#x}",
        "RAM_BYTES": str(board.ram.budget_bytes),
        "STACK_BYTES": str(board.stack_bytes),
    }
    text = (FOLDER / "firmware.ld.in").read_text()
    for key, value in values.items():
        text = text.replace(f"@{key}@", value)
    return text


def program_config(
    manifest: Mapping[str, Any], input_offsets: Mapping[str, int] | None, program_unit: int = 0
) -> str:
    """program_config.h: the names and sizes of a program, from its program.json.

    input_offsets: where predict and the training function keep their samples in the arena, in bytes; with
    None the firmware holds a buffer of its own, and the program copies from there.
    program_unit: bytes of flash that are programmed at once; 0 where the state is not saved.
    """
    prefix, train = manifest["prefix"], manifest["training_function"]
    batch = manifest["batch"]
    values = {
        "CONTEXT": f"{prefix}_t",
        "INIT": f"{prefix}_init",
        "PREDICT": f"{prefix}_predict",
        "TRAIN": f"{prefix}_{train}",
        "LOGITS": f"{prefix}_logits",
        "BATCH": batch,
        "SAMPLE_BYTES": manifest["input"]["bytes"] // manifest["input"]["shape"][0],
        "LABEL_BYTES": manifest["label"]["bytes"],
        "OUTPUTS": manifest["output"]["shape"][-1],
        "STATE_BYTES": manifest["bytes"]["state"],
    }
    if train == "accumulate":
        values["APPLY"] = f"{prefix}_apply"
    if program_unit:
        values |= {"KEEP": 1, "MODEL_ID": f"{prefix.upper()}_MODEL_ID", "FLASH_UNIT": program_unit}
    if manifest["input"].get("where") == "rows":
        values |= {
            "IMAGE": f"{prefix}_image",
            "ROW_BYTES": values["SAMPLE_BYTES"] // manifest["input"]["shape"][1],
        }
    if input_offsets is not None:
        values["PREDICT_INPUT"] = input_offsets["predict"]
        values["TRAIN_INPUT"] = input_offsets[train]
    lines = [f"#define TL_{key} {value}" for key, value in values.items()]
    return "\n".join(
        [f"/* {manifest['name']} for main.c. Generated. */", f'#include "{prefix}.h"', "", *lines, ""]
    )
