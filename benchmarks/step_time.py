"""Time of one training step on one thread of this machine: the emitted C program and PyTorch eager.

    python -m benchmarks.step_time [--models DIR] [--data FILE] [--rounds N] [--markdown FILE]

Both run the whole step on real images, prefix included, with rate 0 so that every step does the same work.
Before anything is timed, both train a few steps from the same state and their losses have to agree. They are
timed in turn, so that what else the machine does hits both.
"""

from __future__ import annotations

import argparse
import importlib.util
import platform
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.tables import MODELS, NETWORKS, ROOT, find_model, markdown
from trainlet import api
from trainlet.ir import Graph

DATA = ROOT.parent / "shared" / "data" / "cifar10" / "cifar10.npz"
SCHEMES = dict(zip(NETWORKS, ("99kb", "99kb", "98kb"), strict=True))
BATCHES = (1, 8)
WARM_UP, GOAL = 10, 4
BUSY = 1.5  # upper quartile over the fastest call: above it, something else was running
CHECKED_STEPS, CHECKED_LR, TOLERANCE = 5, 0.0125 / 32, 1e-2
NO_TORCH = "PyTorch is NOT installed: the comparison is left out (pip install 'trainlet[torch]')"
DISTURBED = "The machine was busy: trust the fastest calls, or measure again"
MISSING = "NOT COMPARED: the model file is missing"

Step = Callable[[], object]


def images(graph: Graph, data: Path, count: int) -> tuple[np.ndarray, np.ndarray, str]:
    """Network inputs, labels below ten, and their source: pixels are random where `data` is missing."""
    if data.is_file():
        samples = api.load_dataset(graph, data)
        return samples.x_train[np.arange(count)], samples.y_train[:count], data.name
    rng = np.random.default_rng(0)
    x = rng.integers(-128, 128, (count, *graph.inputs[0].shape[1:])).astype(np.int8)
    return x, rng.integers(0, 10, count).astype(np.int32), "random pixels"


def settings_for(network: str, master: str, batch: int) -> api.Settings:
    return api.Settings(SCHEMES[network], master, batch=batch, classes=10)


def interleaved(steps: dict[str, Step], rounds: int) -> dict[str, dict[str, float]]:
    """Milliseconds of each, one call of each in turn: median, the quartiles around it, the fastest."""
    times: dict[str, list[float]] = {name: [] for name in steps}
    for i in range(WARM_UP + rounds):
        for name, step in steps.items():
            started = time.perf_counter()
            step()
            if i >= WARM_UP:
                times[name].append(1e3 * (time.perf_counter() - started))
    return {name: _quartiles(t) for name, t in times.items()}


def _quartiles(times: list[float]) -> dict[str, float]:
    best, low, median, high = (float(q) for q in np.percentile(times, (0, 25, 50, 75)))
    return {"median_ms": median, "low_ms": low, "high_ms": high, "best_ms": best}


def against_torch(graph: Graph, data: Path, rounds: int) -> dict[str, Any]:
    """Losses of a few steps side by side, then the times; raises AssertionError where losses differ."""
    import torch

    from benchmarks.torch_step import TorchStep

    torch.set_num_threads(1)
    settings = settings_for(graph.name, "fp32", 1)
    x, y, source = images(graph, data, CHECKED_STEPS)
    host = api.build(graph, settings)
    eager = {last: TorchStep(graph, settings, last) for last in (False, True)}
    worst = 0.0
    for i in range(CHECKED_STEPS):
        ours = host.step(x[i : i + 1], y[i : i + 1], CHECKED_LR)
        theirs = [step.step(x[i : i + 1], y[i : i + 1], CHECKED_LR) for step in eager.values()]
        worst = max(worst, *(abs(ours - loss) for loss in theirs))
    assert worst <= TOLERANCE, f"losses differ by {worst:g} within {CHECKED_STEPS} steps: not the same step"
    steps: dict[str, Step] = {
        "trainlet": partial(host.step, x[:1], y[:1], 0.0),
        "PyTorch eager": partial(eager[False].step, x[:1], y[:1], 0.0),
        "PyTorch eager, channels last": partial(eager[True].step, x[:1], y[:1], 0.0),
    }
    times = interleaved(steps, rounds)
    return {
        "network": graph.name,
        "scheme": settings.scheme,
        "images": source,
        "torch": torch.__version__,
        "loss_difference": worst,
        "times": times,
        "ratio": {n: _ratio(t, times["trainlet"]) for n, t in times.items() if n != "trainlet"},
        "busy": any(t["high_ms"] > BUSY * t["best_ms"] for t in times.values()),
    }


def _ratio(theirs: dict[str, float], own: dict[str, float]) -> dict[str, float]:
    return {k: theirs[f"{k}_ms"] / own[f"{k}_ms"] for k in ("median", "best")}


def ours(graph: Graph, data: Path, rounds: int) -> list[dict[str, Any]]:
    """Times of the emitted program, by batch and master."""
    rows = []
    for batch in BATCHES:
        x, y, _ = images(graph, data, batch)
        hosts = {m: api.build(graph, settings_for(graph.name, m, batch)) for m in api.MASTERS}
        steps: dict[str, Step] = {m: partial(h.step, x, y, 0.0) for m, h in hosts.items()}
        for master, times in interleaved(steps, max(50, rounds // batch)).items():
            row = {"network": graph.name, "scheme": SCHEMES[graph.name], "batch": batch, "master": master}
            rows.append({**row, **times})
    return rows


def measure(models: Path, data: Path, rounds: int) -> dict[str, Any]:
    """All of it, JSON-ready; "torch" is a sentence where there is nothing to compare with."""
    found = {name: api.load(path) for name in NETWORKS if (path := find_model(models, name)) is not None}
    comparison: dict[str, Any] | str = NO_TORCH if importlib.util.find_spec("torch") is None else MISSING
    if comparison is MISSING and NETWORKS[0] in found:
        comparison = against_torch(found[NETWORKS[0]], data, rounds)
    return {
        "machine": f"{_processor()}, Python {platform.python_version()}",
        "rounds": rounds,
        "torch": comparison,
        "ours": [row for graph in found.values() for row in ours(graph, data, rounds)],
        "missing": [n for n in NETWORKS if n not in found],
    }


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _spread(t: dict[str, float]) -> str:
    return f"{t['low_ms']:.2f} to {t['high_ms']:.2f}"


def text(result: dict[str, Any]) -> str:
    """The tables in Markdown."""
    parts = [f"One thread of {result['machine']}.", ""]
    versus = result["torch"]
    if isinstance(versus, str):
        parts += [f"**{versus}**", ""]
    else:
        rows = [
            (name, f"{t['median_ms']:.2f}", _spread(t), f"{t['best_ms']:.2f}")
            for name, t in versus["times"].items()
        ]
        parts += [
            f"{versus['network']}, scheme {versus['scheme']}, fp32 master, batch 1, "
            f"image of {versus['images']}, PyTorch {versus['torch']}, {result['rounds']} rounds.",
            f"The losses of {CHECKED_STEPS} steps agree within {versus['loss_difference']:.1e}.",
            "",
            markdown(("one step", "median ms", "quartiles ms", "fastest ms"), rows),
            "",
            *(
                f"- **{r['median']:.1f} times as fast** as {name}, by the fastest calls {r['best']:.1f}"
                for name, r in versus["ratio"].items()
            ),
            f"- goal: {GOAL} times",
            *(["", f"**{DISTURBED}**"] if versus["busy"] else []),
            "",
        ]
    if result["missing"]:
        parts += [f"NOT MEASURED, the model files are missing: {', '.join(result['missing'])}", ""]
    header = ("network", "scheme", "batch", "master", "step, ms", "quartiles ms", "an image, ms")
    cells = [
        (r["network"], r["scheme"], r["batch"], r["master"], f"{r['median_ms']:.2f}", _spread(r),
         f"{r['median_ms'] / r['batch']:.2f}")
        for r in result["ours"]
    ]  # fmt: skip
    return "\n".join([*parts, markdown(header, cells), ""])


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--models", type=Path, default=MODELS, help="folder of the reference networks")
    parser.add_argument("--data", type=Path, default=DATA, help="images: an .npz as trainlet reads it")
    parser.add_argument("--rounds", type=int, default=100, help="timed steps of each (at least 50)")
    parser.add_argument("--markdown", type=Path, help="also write the tables to this file")
    args = parser.parse_args(arguments)
    report = text(measure(args.models, args.data, max(50, args.rounds)))
    print(report)
    if args.markdown:
        args.markdown.write_text(report)


if __name__ == "__main__":
    main()
