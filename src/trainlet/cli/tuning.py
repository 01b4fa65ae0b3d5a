"""tune: measure kernels on this machine."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from trainlet.cli import options as o
from trainlet.report import tables
from trainlet.report.tuning import tuning_summary, tuning_table


def tune(
    model: Annotated[
        str | None, typer.Argument(help="ONNX file or IR text (.tl); without it, layers of common networks.")
    ] = None,
    scheme: o.Scheme = "full",
    batch: o.Batch = 8,
    threads: Annotated[int, typer.Option(min=1, max=64, help="The most that work on one layer.")] = 1,
    rounds: Annotated[int, typer.Option(min=10, help="Training steps that each way runs.")] = 100,
    everything: Annotated[bool, typer.Option("--all", help="Also list what stays as it was.")] = False,
) -> None:
    """Measure which kernel is faster for which shape here; later compiles on this machine use it."""
    from trainlet.backends.cpu import native_isa
    from trainlet.backends.cpu.choices import table_path
    from trainlet.compiled.tune import tune as measured

    found = measured(
        model, scheme=scheme, batch=batch, threads=threads, rounds=rounds,
        watch=lambda text: print(text, file=sys.stderr, flush=True),
    )  # fmt: skip
    tables.console().print(tuning_table(found, everything))
    print(f"{tuning_summary(found)}; kept in {table_path(native_isa())}")
