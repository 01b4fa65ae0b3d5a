"""opt: passes on the text form of the IR."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from trainlet import api
from trainlet.cli import options as o
from trainlet.errors import GraphError
from trainlet.ir import Graph
from trainlet.ir.text import load_graph, parse_program, print_program
from trainlet.passes import run_passes


def opt(
    file: Annotated[str, typer.Argument(help="IR text (.tl), or - for stdin.")],
    passes: Annotated[list[str] | None, typer.Option("--pass", help="Passes to run, in this order.")] = None,
    autodiff: Annotated[
        bool, typer.Option(help="First derive the functions of the training program.")
    ] = False,
    scheme: o.Scheme = "head",
    accumulate: o.Accumulate = 1,
    master: o.MasterOption = o.MASTER,
    optimizer: o.RuleOption = o.RULE,
    loss: o.LossOption = o.LOSS,
) -> None:
    """Run passes on graphs in the text form, and print the result.

    Large tensors are read from the .npz beside the text; where there is none they count as zeros.
    """
    graphs = _read(file)
    if autodiff:
        settings = api.Settings(
            scheme=scheme, master=master, optimizer=optimizer, accumulate=accumulate > 1, loss=loss
        )
        graphs = [f for g in graphs for f in api.derive(g, _own_batch(settings, g)).functions.values()]
    print(print_program([run_passes(g, passes or []) for g in graphs]), end="")


def _own_batch(settings: api.Settings, graph: Graph) -> api.Settings:
    return replace(settings, batch=graph.inputs[0].shape[0])


def _read(file: str) -> list[Graph]:
    if file == "-":
        return list(parse_program(sys.stdin.read(), shapes_only=True))
    path = Path(file)
    if path.suffix == ".tl" and path.with_suffix(".npz").is_file():
        return [load_graph(path)]
    try:
        return list(parse_program(path.read_text(encoding="utf-8"), shapes_only=True))
    except (OSError, UnicodeDecodeError) as error:
        raise GraphError(f"{path} cannot be read as IR text: {error}") from None
    except GraphError as error:
        raise GraphError(f"{path}: {error}") from None
