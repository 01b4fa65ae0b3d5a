"""search: a budget in, a scheme out."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from trainlet import api
from trainlet.cli import options as o
from trainlet.errors import DataError
from trainlet.output import whole_files
from trainlet.report import tables


class Method(StrEnum):
    """How a scheme is searched for."""

    exact = "exact"
    evolution = "evolution"
    freeze = "freeze"


class Cost(StrEnum):
    """What the budget counts."""

    planned = "planned"
    analytic = "analytic"


class Rule(StrEnum):
    """Which channels of a weight are trained."""

    norm = "norm"
    fisher = "fisher"
    redraw = "redraw"


def search(
    model: o.Model,
    data: o.Data,
    budget: Annotated[
        int,
        typer.Option(
            "--budget", parser=o.byte_count, metavar="BYTES", help="RAM that training may take: 256KB."
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="The scheme file to write.")],
    analysis: Annotated[
        Path | None, typer.Option("--analysis", help="What `analyze` wrote; made if missing. Needed.")
    ] = None,
    report: Annotated[Path | None, typer.Option(help="Folder for the one-page report.")] = None,
    method: Annotated[
        Method, typer.Option(help="Exact for summed gains; the others see docs/choosing.md.")
    ] = (Method.exact),
    cost: Annotated[
        Cost, typer.Option(help="RAM as planned, or the price of the publication.")
    ] = Cost.planned,
    rule: Annotated[
        Rule, typer.Option(help="Channels of largest norm, Fisher information, or others in every epoch.")
    ] = Rule.norm,
    board: Annotated[
        str | None, typer.Option(help="Plan for this board's kernels; times are its own.")
    ] = None,
    max_step_ms: Annotated[float | None, typer.Option(help="Limit on the time of one training step.")] = None,
    threshold: Annotated[
        float | None, typer.Option(help="For freeze: the gain over the head alone that has to remain.")
    ] = None,
    confirm_epochs: Annotated[
        int, typer.Option(min=0, help="Of the trainings that compare candidates; 0: none.")
    ] = 4,
    batch: o.Batch = 1,
    train_batch: Annotated[int, typer.Option(min=1, help="Batch of the comparing trainings.")] = 32,
    master: o.MasterOption = o.Master("nearest"),  # noqa: B008  (a member of an enumeration)
    optimizer: o.RuleOption = o.RULE,
    seed: o.Seed = 0,
    as_json: o.AsJson = False,
) -> None:
    """Find what to train within a memory budget: biases, layers, and how many channels of each."""
    if analysis is None:
        given = f"{model} --data {data}"
        raise DataError(
            "--analysis is missing: what training each part of the network gains. "
            f"`trainlet analyze {given} -o analysis.json` measures it, once for every budget (search does it "
            f"too where the file is not there yet); `trainlet train {given} --budget {budget}` does all "
            "in one go"
        )
    from trainlet.choose.report import as_dict, write_report
    from trainlet.choose.request import Request
    from trainlet.choose.request import search as find
    from trainlet.choose.search import Options

    settings = api.Settings("head", str(master), str(optimizer), batch=batch, seed=seed)
    request = Request(
        budget, Options(str(method), str(cost), threshold=threshold, seed=seed), str(rule), board,
        max_step_ms, confirm_epochs, train_batch,
    )  # fmt: skip
    console = tables.console()
    say = (lambda line: None) if as_json else (lambda line: console.print(line, highlight=False))
    chosen = find(model, data, settings, request, analysis, say)
    with whole_files(output) as folder:
        (folder / output.name).write_text(chosen.scheme.to_json())
    written = [output] if report is None else [output, *write_report(chosen, report)]
    if as_json:
        return o.print_json(as_dict(chosen))
    console.print(tables.front_table(chosen))
    console.print(f"wrote {', '.join(map(str, written))}", highlight=False)
    return None
