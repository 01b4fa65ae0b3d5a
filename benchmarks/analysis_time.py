"""What the contribution analysis costs, against the same trials run one by one on the whole network.

    python -m benchmarks.analysis_time                    # a subset of the trials, both ways, in one run

Naive: each trial is compiled from the whole network and trained for the epochs of the last rung, every sample through
the whole network each time, from a head that is trained already (its training is not counted). The analysis: the same
trials by successive halving from cached cuts; computing the cuts and training the head are counted. Both run in this
process, one after the other, on the same rows. Given are wall seconds, and processor seconds with those of the compiler.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.tables import markdown
from trainlet import api
from trainlet.choose.halving import Halving
from trainlet.choose.structure import layer_infos
from trainlet.choose.task import AnalysisSettings, Task, make_task
from trainlet.choose.trials import Run, Trial, Trials, scheme_of
from trainlet.data import Dataset, Samples
from trainlet.scheme import layers

SHARED = Path(__file__).resolve().parents[2] / "shared"


def subset(task: Task, step: int) -> list[Trial]:
    """Every `step`-th bias count, and every `step`-th weight, whole and one eighth of it, over its base."""
    body = [x for x in layer_infos(task.graph) if x.conv_index is not None]
    depth, base = len(body), len(body) // 2
    biases = [Trial(k) for k in range(2, base + 1, step)]
    weights = [
        Trial(base, x.weight, share)
        for x in body[depth - base :: step]
        for share in (1.0, 0.125)
        if x.channels >= 8
    ]
    return [*biases, Trial(base), *weights]


def naive(task: Task, trials: Sequence[Trial], epochs: int, lr: float, head: dict[str, np.ndarray]) -> None:
    """One by one, the whole network, no cache."""
    x, y = task.data.x_train, task.labels
    fit, validate = (
        Samples(x.stored[rows], x.transform, x.image_size, x.resize_to) for rows in (task.fit, task.validate)
    )
    data = Dataset(fit, y[: len(task.fit)], validate, y[len(task.fit) :], task.data.class_names, "")
    network = task.network(0)
    for trial in trials:
        settings = api.Settings(
            scheme_of(trial, layers(network)), task.settings.master, batch=task.settings.batch
        )
        host = api.build(network, settings)
        host.restore({**host.tensors(), **head})
        order = np.random.default_rng(0)
        for _ in range(epochs):
            rows = order.permutation(len(fit))
            for i in range(0, len(rows) - host.batch + 1, host.batch):
                part = rows[i : i + host.batch]
                host.step(fit.batch(part), data.y_train[part], lr)
        for i in range(len(validate)):
            host.predict(validate.batch(np.array([i])))


def halved(task: Task, trials: Sequence[Trial], folder: Path, lr: float) -> int:
    """By the rungs of the analysis; the number of runs."""
    do, records = Trials(task, folder), {}

    def measure(phase: str, runs: Sequence[Run]) -> dict[str, dict[str, Any]]:
        for run in runs:
            if run.key not in records:
                records[run.key] = do(run)
        return records

    halving = Halving(layer_infos(task.graph), task.settings, len(task.validate), task.classes, measure)
    halving.lr = halving.head_lr = lr
    weights = [t for t in trials if t.weight is not None]
    biases = [t for t in trials if t.weight is None]
    halving.go("biases", [Trial(), *biases], 0)
    halving.climb("biases", biases)
    halving.go("weights", weights, 0)
    halving.climb("weights", weights)
    return len(records)


def timed(what: Callable[[], Any]) -> tuple[float, float, Any]:
    """Wall seconds, processor seconds with those of children, result."""
    wall, cpu = time.perf_counter(), _cpu()
    result = what()
    return time.perf_counter() - wall, _cpu() - cpu, result


def _cpu() -> float:
    t = os.times()
    return t.user + t.system + t.children_user + t.children_system


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--model", default=str(SHARED / "reference/models/mcunet-5fps.json"))
    parser.add_argument("--data", default=str(SHARED / "data/cifar10/cifar10.npz"))
    parser.add_argument("--samples", type=int, default=3000)
    parser.add_argument("--epochs", type=int, default=4, help="of the last rung")
    parser.add_argument("--step", type=int, default=5, help="every n-th bias count and weight")
    parser.add_argument("--lr", type=float, default=0.0125)
    args = parser.parse_args()
    graph = api.load(args.model)
    rungs = ((1, 1), (args.epochs, 1))
    settings = AnalysisSettings(samples=args.samples, rungs=rungs)
    task = make_task(graph, api.load_dataset(graph, args.data), settings)
    trials = subset(task, args.step)
    warm = api.Settings("head", settings.master, batch=settings.batch)
    api.build(task.network(0), warm)  # kernels are compiled once a machine, for both
    print(
        f"{graph.name}: {len(trials)} trials, {len(task.fit)} samples to fit, {len(task.validate)} to validate"
    )
    with tempfile.TemporaryDirectory() as folder:
        ours = timed(lambda: halved(task, trials, Path(folder), args.lr))
    head = _head(task, args.lr)
    other = timed(lambda: naive(task, trials, args.epochs, args.lr, head))
    rows = [
        ["one by one", str(len(trials)), f"{other[0]:.0f}", f"{other[1]:.0f}", ""],
        [
            "analysis",
            str(ours[2]),
            f"{ours[0]:.0f}",
            f"{ours[1]:.0f}",
            f"{other[0] / ours[0]:.1f} ({other[1] / ours[1]:.1f})",
        ],
    ]
    print(markdown(("", "runs", "wall s", "processor s", "times as fast (by processor s)"), rows))


def _head(task: Task, lr: float) -> dict[str, np.ndarray]:
    """State of a trained head for the naive trials."""
    from trainlet.choose.fisher import _trained_head

    return _trained_head(task, lr)


if __name__ == "__main__":
    main()
