"""analyze: what each bias, layer and share of channels is worth on a task."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from trainlet.cli import options as o
from trainlet.cli.display import PhaseDisplay
from trainlet.report import tables
from trainlet.report.contributions import contributions_line, contributions_table

Output = Annotated[
    Path, typer.Option("-o", "--output", help="The analysis, as JSON; a picture goes beside it.")
]
Jobs = Annotated[int, typer.Option("--jobs", min=1, help="Processes that run trials.")]
On = Annotated[
    str, typer.Option("--on", help="Where trials run: local, ray (started here), ray://host:port.")
]
Samples = Annotated[
    int | None,
    typer.Option("--samples", min=2, help="Use the first training samples only; the rest of them not."),
]
Epochs = Annotated[int, typer.Option(min=1, help="Of a trial that goes all the way.")]
Keep = Annotated[float, typer.Option(help="Share of the trials that goes on after the first epoch.")]


def analyze(
    model: o.Model,
    data: o.Data,
    output: Output,
    batch: o.Batch = 32,
    master: o.MasterOption = o.MASTER,
    epochs: Epochs = 4,
    keep: Keep = 0.3,
    samples: Samples = None,
    seed: o.Seed = 0,
    jobs: Jobs = 1,
    on: On = "local",
) -> None:
    """Measure what training each bias and each share of a weight gains. Test data stays unseen.

    Finished trials are kept: stopped, it goes on where it was. The result serves every budget (`search`).
    """
    from trainlet.choose.analyze import AnalysisSettings
    from trainlet.choose.analyze import analyze as measure
    from trainlet.choose.picture import picture

    rungs = ((1, 1), (epochs, 1), (epochs, 2)) if epochs > 1 else ((1, 1), (1, 2))
    settings = AnalysisSettings(
        master=str(master), batch=batch, rungs=rungs, keep=keep, samples=samples, seed=seed
    )
    console = tables.console()
    try:
        with PhaseDisplay(console) as display:
            found = measure(model, data, output, settings, jobs=jobs, on=on, watch=display)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            f"finished trials are kept beside {output}; the same command goes on"
        ) from None
    console.print(contributions_table(found))
    console.print(contributions_line(found), highlight=False)
    drawn = picture(found, output.with_suffix(".png"))
    console.print(f"wrote {output}" + (f" and {drawn}" if drawn else ""), highlight=False)
    if drawn is None:
        console.print("for a picture as well: pip install matplotlib", highlight=False)
