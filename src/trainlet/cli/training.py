"""train and eval."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from trainlet import api
from trainlet.cli import options as o
from trainlet.cli.display import Display
from trainlet.errors import CheckpointError, DataError
from trainlet.output import check_writable, whole_files
from trainlet.report import tables

if TYPE_CHECKING:
    from trainlet.runtime.trainer import TrainResult

Program = Annotated[
    str, typer.Argument(metavar="MODEL|DIR", help="A network, or a folder that `compile` wrote.")
]


def train(
    ctx: typer.Context,
    model: Program,
    data: o.Data,
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the training samples.")],
    lr: Annotated[
        float | None,
        typer.Option(
            help="Learning rate at its peak; then it falls along a cosine. Searched for with the scheme."
        ),
    ] = None,
    scheme: Annotated[
        str | None,
        typer.Option("--scheme", help="As in `plan`; with a --budget and no scheme, one is searched for."),
    ] = None,
    batch: o.Batch = 1,
    accumulate: o.Accumulate = 1,
    master: o.MasterOption = o.MASTER,
    optimizer: o.RuleOption = o.RULE,
    loss: o.LossOption = o.LOSS,
    classes: o.Classes = None,
    budget: o.Budget = None,
    seed: o.Seed = 0,
    warmup: Annotated[
        float | None, typer.Option(min=0, help="Epochs of linear warm-up; a tenth of the run if not given.")
    ] = None,
    augment: Annotated[bool, typer.Option("--augment", help="Flip and shift images at random.")] = False,
    checkpoint: Annotated[Path | None, typer.Option(help="Where the state goes after every epoch.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on where the checkpoint stopped.")] = False,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the results to this file.")] = None,
    analysis: Annotated[
        Path | None,
        typer.Option(help="For the search of a scheme: what `analyze` wrote; made there if missing."),
    ] = None,
    report_folder: Annotated[
        Path | None, typer.Option("--report", help="For the search: folder for the scheme and its report.")
    ] = None,
) -> None:
    """Adapt a network to data: the emitted C program, run on this machine."""
    if api.is_program(model):
        _refuse_build_options(ctx, model)
    searching = budget is not None and scheme is None and not api.is_program(model)
    if lr is None and not searching:
        raise typer.BadParameter("give a learning rate: --lr")
    if json_file is not None:
        check_writable(json_file)
    settings = api.Settings(
        scheme=scheme or "head", master=master, optimizer=optimizer, batch=batch,
        accumulate=accumulate > 1, loss=loss, classes=classes, seed=seed, budget_bytes=budget,
    )  # fmt: skip
    console = tables.console()
    try:
        if lr is None or searching:
            result = _train_within(
                model, data, settings, epochs, lr, analysis, report_folder, console, augment=augment,
                checkpoint=checkpoint, resume=resume,
            )  # fmt: skip
        else:
            with Display(console, epochs) as display:
                result = api.train(
                    model, data, settings, epochs, lr, seed=seed, accumulate=accumulate,
                    warmup_epochs=warmup, augment=augment, checkpoint=checkpoint, resume=resume,
                    watch=display,
                )  # fmt: skip
    except KeyboardInterrupt:
        raise KeyboardInterrupt(_what_is_kept(checkpoint)) from None
    report = api.train_report(result)
    console.print(tables.training_table(report))
    if json_file is not None:
        with whole_files(json_file) as folder:
            (folder / json_file.name).write_text(o.to_json(report) + "\n")


def _train_within(
    model: str,
    data: Path,
    settings: api.Settings,
    epochs: int,
    lr: float | None,
    analysis: Path | None,
    report_folder: Path | None,
    console: Console,
    **options: Any,
) -> TrainResult:
    """Analyze, search and train for settings.budget_bytes; the scheme is written beside the report."""
    from trainlet.choose.pipeline import train_within
    from trainlet.choose.report import write_report
    from trainlet.choose.request import Request

    if settings.accumulate or settings.budget_bytes is None:
        raise DataError("a scheme is searched for programs that update at every call: leave out --accumulate")
    folder = report_folder or Path(f"{Path(model).stem}-report")
    request = Request(settings.budget_bytes)
    with Display(console, epochs) as display:
        chosen, result = train_within(
            model, data, settings, request, analysis or folder / "analysis.json", epochs, lr,
            say=lambda line: console.print(line, highlight=False), watch=display, **options,
        )  # fmt: skip
    with whole_files(folder / "scheme.json") as temporary:
        (temporary / "scheme.json").write_text(chosen.scheme.to_json())
    written = [folder / "scheme.json", *write_report(chosen, folder)]
    console.print(tables.front_table(chosen))
    console.print(f"wrote {', '.join(map(str, written))}", highlight=False)
    return result


def _refuse_build_options(ctx: typer.Context, folder: str) -> None:
    """A compiled program has these settings already; to ignore them silently would mislead."""
    for name in ("scheme", "batch", "master", "optimizer", "loss", "classes", "budget"):
        source = ctx.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            raise DataError(
                f"the program in {folder} is compiled already: leave out --{name}, or give the model"
            )


def _what_is_kept(checkpoint: Path | None) -> str:
    from trainlet.runtime.checkpoint import load_checkpoint

    if checkpoint is None:
        return "nothing is kept; name a --checkpoint to be able to resume"
    try:
        run = load_checkpoint(checkpoint)[1]["run"]
    except (CheckpointError, KeyError):
        return f"no epoch was finished, {checkpoint} is not written"
    return f"{checkpoint} holds epoch {run['epoch']} of {run['config']['epochs']}; go on with --resume"


def evaluate(
    model: o.Model,
    data: o.Data,
    checkpoint: Annotated[Path | None, typer.Option(help="What `train` saved.")] = None,
    as_json: o.AsJson = False,
) -> None:
    """Measure a network, as it came or adapted, on the test samples."""
    report: dict[str, Any] = api.evaluate(model, data, checkpoint)
    if as_json:
        return o.print_json(report)
    print(f"{report['metric']} {report['accuracy']:.4f} on {report['samples']} test samples")
    return None
