"""`trainlet train MODEL --data D --budget B`: analyze (or reuse it), search, compile and train, in one go."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from trainlet import api
from trainlet.choose.request import Chosen, Request, Say, search
from trainlet.data import Dataset
from trainlet.frontends import load
from trainlet.ir import Graph
from trainlet.runtime.trainer import Progress, TrainResult


def train_within(
    model: str | Path | Graph,
    data: str | Path | Dataset,
    settings: api.Settings,
    request: Request,
    analysis: str | Path,
    epochs: int,
    lr: float | None = None,
    *,
    augment: bool = False,
    checkpoint: Path | None = None,
    resume: bool = False,
    say: Say = lambda line: None,
    watch: Callable[[Progress], None] = lambda p: None,
) -> tuple[Chosen, TrainResult]:
    """The scheme that a budget allows, and the network trained by it on all training samples.

    settings.batch is that of the trained program and what the budget is for. lr: None takes the rate that
    did best in the comparing trainings, scaled to the batch. Raises what `search` and `train` raise.
    """
    graph = model if isinstance(model, Graph) else load(model)
    if isinstance(data, str | Path):
        data = api.load_dataset(graph, data)
    say("1/3 contributions: reused" if Path(analysis).exists() else "1/3 contributions: to be measured")
    started = time.perf_counter()
    chosen = search(graph, data, settings, request, analysis, lambda line: say(f"    {line}"))
    say(f"2/3 search: done, {time.perf_counter() - started:.0f} s with the analysis")
    rate = lr if lr is not None else chosen.lr * settings.batch / request.train_batch
    say(f"3/3 training: {epochs} epochs at rate {rate:g}{_expected(chosen, data, epochs)}")
    fitted = api.fit_settings(graph, data, replace(settings, scheme=chosen.scheme, budget_bytes=None))
    result = api.train(
        graph, data, fitted, epochs, rate, seed=settings.seed, augment=augment, checkpoint=checkpoint,
        resume=resume, watch=watch,
    )  # fmt: skip
    return chosen, result


def _expected(chosen: Chosen, data: Dataset, epochs: int) -> str:
    """How long the training will take, from the comparing run of the same scheme."""
    for c in chosen.confirmed:
        if chosen.space.choice(c.candidate.scheme) == chosen.found.choice:
            share = 1 - float(chosen.analysis.settings["validation_share"])
            fitted = max(1.0, share * min(len(data.x_train), chosen.analysis.settings["samples"] or 10**12))
            seconds = c.seconds / chosen.request.confirm_epochs / fitted * len(data.x_train) * epochs
            return f", about {seconds:.0f} s"
    return ""
