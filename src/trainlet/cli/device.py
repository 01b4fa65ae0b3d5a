"""boards and emulate: microcontrollers."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from trainlet.cli import options as o


class Engine(StrEnum):
    """What runs the firmware."""

    auto = "auto"
    qemu = "qemu"
    unicorn = "unicorn"


class Compiler(StrEnum):
    """What builds the firmware."""

    auto = "auto"
    gcc = "gcc"
    zig = "zig"


def boards(as_json: o.AsJson = False) -> None:
    """List the boards that `emulate` knows."""
    from trainlet import device

    found = device.boards().values()
    if as_json:
        return o.print_json([b.as_dict() for b in found])
    print("\n".join(device.board_lines(found)))
    return None


def emulate(
    program: Annotated[Path, typer.Argument(metavar="DIR", help="A folder that `compile` wrote.")],
    data: o.Data,
    board: Annotated[str, typer.Option(help="A name from `boards`, or your own .toml.")],
    steps: Annotated[int, typer.Option(min=1, help="Training calls.")] = 10,
    lr: Annotated[float, typer.Option(help="Learning rate.")] = 0.01,
    accumulate: o.Accumulate = 1,
    engine: Annotated[Engine, typer.Option(help="The emulator.")] = Engine.auto,
    compiler: Annotated[Compiler, typer.Option(help="The compiler.")] = Compiler.auto,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder for the firmware and its linker script.")
    ] = None,
    power_cuts: Annotated[
        int | None,
        typer.Option(
            min=1, help="Instead, cut the power in so many flash operations of the saves, and resume."
        ),
    ] = None,
    save_every: Annotated[
        int, typer.Option(min=1, help="Training calls between saves, with --power-cuts.")
    ] = 1,
    as_json: o.AsJson = False,
) -> None:
    """Train on an emulated board: same bits as here? How much RAM, flash, and how many instructions?"""
    from trainlet import device

    if power_cuts is not None:
        cut = device.power_cuts(
            program, board, data, steps, power_cuts, save_every=save_every, lr=lr,
            calls_per_update=accumulate, engine=engine.value, compiler=compiler.value,
        )  # fmt: skip
        if as_json:
            o.print_json(cut.as_dict())
        else:
            print("\n".join(cut.lines()))
        if not cut.passed:
            raise typer.Exit(1)
        return
    report = device.emulate(
        program, board, data, steps, lr=lr, calls_per_update=accumulate, engine=engine.value,
        compiler=compiler.value, output=output,
    )  # fmt: skip
    if as_json:
        o.print_json(report.as_dict())
    else:
        print("\n".join(device.report_lines(report.as_dict())))
    if not report.identical:
        raise typer.Exit(1)
