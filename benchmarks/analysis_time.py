"""What the contribution analysis costs, against the same trials run one by one on the whole network.

    python -m benchmarks.analysis_time                    # a subset of the trials, both ways, in one run

Naive: each trial is compiled from the whole network; every sample goes through the whole network each time,
for the epochs of the head and those of the last rung. All steps cost the same, so `--timed-steps` of each
kind are timed and multiplied (0: every one is run). The analysis: the same trials by successive halving
from cached cuts, cuts and head included. Both run in this process, one after the other, on the same rows.
Wall seconds, and processor seconds with those of the compiler.
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
from trainlet.choose.trials import HEAD_EPOCHS, Run, Trial, Trials, scheme_of
from trainlet.data import Samples
from trainlet.runtime.host import HostProgram
from trainlet.scheme import layers

SHARED = Path(__file__).resolve().parents[2] / "shared"


def subset(task: Task, step: int) -> list[Trial]:
    """Of the last half of the network every `step`-th bias count, and every `step`-th weight, whole and an
    eighth of it.
    """
    body = [x for x in layer_infos(task.graph) if x.conv_index is not None]
    half = len(body) // 2
    biases = [Trial(k) for k in range(2, half + 1, step)]
    weights = [
        Trial(0, x.weight, share)
        for x in body[len(body) - half :: step]
        for share in (1.0, 0.125)
        if x.channels >= 8
    ]
    return [*biases, *weights]


def naive(task: Task, trials: Sequence[Trial], lr: float, steps: int) -> tuple[float, float]:
    """Wall and processor seconds of all trials, one by one, the whole network, no cache."""
    x, y = task.data.x_train, task.labels
    fit, validate = (
        Samples(x.stored[rows], x.transform, x.image_size, x.resize_to) for rows in (task.fit, task.validate)
    )
    for samples in (fit, validate):
        samples.batch(np.arange(len(samples)))  # resized once, which both ways share
    network, total = task.network(0), np.zeros(2)

    def train(host: HostProgram, epochs: int) -> np.ndarray:
        starts = range(0, len(fit) - host.batch + 1, host.batch)
        wanted = epochs * len(starts)
        run = min(steps or wanted, wanted)

        def some() -> None:
            for i in range(run):
                part = np.arange(host.batch) + starts[i % len(starts)]
                host.step(fit.batch(part), y[part], lr)

        return wanted / run * timed(some)[0]

    head = Trial()
    for trial in trials:
        for what, count in ((head, HEAD_EPOCHS), (trial, task.settings.rungs[-1][0])):
            settings = api.Settings(
                scheme_of(what, layers(network)), task.settings.master, batch=task.settings.batch
            )
            seconds, host = timed(lambda s=settings: api.build(network, s))
            total += seconds + train(host, count)
        some = np.arange(min(len(validate), 2 * steps * host.batch or len(validate)))
        total += len(validate) / len(some) * timed(lambda h=host, r=some: h.predict(validate.batch(r)))[0]
    return float(total[0]), float(total[1])


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


def timed(what: Callable[[], Any]) -> tuple[np.ndarray, Any]:
    """(wall seconds, processor seconds with those of children), result."""
    before = _now()
    result = what()
    return _now() - before, result


def _now() -> np.ndarray:
    t = os.times()
    return np.array([time.perf_counter(), t.user + t.system + t.children_user + t.children_system])


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--model", default=str(SHARED / "reference/models/mcunet-5fps.json"))
    parser.add_argument("--data", default=str(SHARED / "data/cifar10/cifar10.npz"))
    parser.add_argument("--samples", type=int, default=3000)
    parser.add_argument("--epochs", type=int, default=4, help="of the last rung")
    parser.add_argument("--step", type=int, default=5, help="every n-th bias count and weight")
    parser.add_argument("--timed-steps", type=int, default=20, help="of the naive trials; 0: all")
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
        f"{graph.name}: {len(trials)} trials, {len(task.fit)} samples to fit, "
        f"{len(task.validate)} to validate",
        flush=True,
    )
    with tempfile.TemporaryDirectory() as folder:
        ours, runs = timed(lambda: halved(task, trials, Path(folder), args.lr))
    other = naive(task, trials, args.lr, args.timed_steps)
    rows = [
        ["one by one", len(trials), f"{other[0]:.0f}", f"{other[1]:.0f}"],
        ["analysis", runs, f"{ours[0]:.0f}", f"{ours[1]:.0f}"],
        ["times as fast", "", f"{other[0] / ours[0]:.1f}", f"{other[1] / ours[1]:.1f}"],
    ]
    print(markdown(("", "runs", "wall s", "processor s"), rows))


if __name__ == "__main__":
    main()
