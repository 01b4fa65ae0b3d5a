"""Time of a training step from its work: calibrated on a few schemes, on an emulated board or on this
machine.

A step is a constant (the forward pass does not change), and so much for each multiply-accumulate of an input
gradient (dense, depthwise), of a weight gradient, and for each element that anything else computes. The costs
come from measured steps by non-negative least squares; `error` says how far each measured step lies off.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from trainlet.choose.limits import BIASES, Taken
from trainlet.choose.memory import REACH, MemoryModel
from trainlet.choose.space import Choice, Space
from trainlet.errors import BudgetError

if TYPE_CHECKING:
    from trainlet.choose.search import Searcher

CALLS = 7  # of a step that is timed on this machine


@dataclass
class StepTime:
    """A limit on the time of a step, in ms. `coefficients` belong to `features`."""

    memory: MemoryModel
    coefficients: np.ndarray
    bound_ms: float
    error: float  # largest relative error over the calibrating schemes
    measured: tuple[tuple[Choice, float], ...]

    @classmethod
    def calibrated(cls, finder: Searcher, board: str | None, bound_ms: float) -> StepTime:
        """Measured on a handful of schemes. Raises BudgetError where not even the head is fast enough."""
        measure = _on_board(finder, board) if board is not None else _here(finder)
        choices = calibrating_choices(finder.space)
        measured = [(c, ms) for c in choices if (ms := measure(c)) is not None]
        matrix = np.array([features(finder.memory, c) for c, _ in measured])
        times = np.array([ms for _, ms in measured])
        found = non_negative(matrix, times)
        error = float(np.max(np.abs(matrix @ found - times) / times))
        if times[0] > bound_ms:
            where = board or "this machine"
            raise BudgetError(
                f"a step that trains the head of {finder.space.graph.name} alone takes {times[0]:,.1f} ms on "
                f"{where}, the limit is {bound_ms:,.1f}: the forward pass dominates it, so raise the limit "
                "or take a smaller network"
            )
        return cls(finder.memory, found, bound_ms, error, tuple(measured))

    def milliseconds(self, choice: Choice) -> float:
        return float(features(self.memory, choice) @ self.coefficients)

    def system(self, first: int, options: Taken) -> tuple[np.ndarray, np.ndarray]:
        depth = len(self.memory.space.body) - first
        base = self.milliseconds(Choice(depth, self.memory.space.nothing.counts))
        added = [
            0.0 if i == BIASES else _weight_features(self.memory, i, c, first) @ self.coefficients
            for i, c in options
        ]
        return np.array(added).reshape(1, len(options)), np.array([self.bound_ms - base])

    def used(self, choice: Choice) -> float:
        return self.milliseconds(choice) / self.bound_ms

    def allows(self, choice: Choice) -> bool:
        return self.milliseconds(choice) <= self.bound_ms * (1 + 1e-9)


def features(memory: MemoryModel, choice: Choice) -> np.ndarray:
    """(5): 1, MACs of dense and of depthwise input gradients, of weight gradients, other elements."""
    first = choice.first()
    total = _of(memory.base(first).work, memory.base(first).elements)
    for i, count in enumerate(choice.counts):
        if count:
            total = total + _weight_features(memory, i, count, first)
    return total


def _of(work: np.ndarray, elements: float) -> np.ndarray:
    return np.array([1.0, work[1, 0], work[1, 1], work[2].sum(), elements])


def _weight_features(memory: MemoryModel, layer: int, count: int, first: int) -> np.ndarray:
    """What training some channels of a weight adds, in proportion to the whole weight."""
    total = memory.space.body[layer].channels
    with_, without = memory.with_weight(layer, total, max(first, layer - REACH))
    added = _of(with_.work - without.work, with_.elements - without.elements)
    added[0] = 0.0
    return added * (count / total)


def calibrating_choices(places: Space) -> list[Choice]:
    """The head, biases to several depths, and weights at the end and in the middle."""
    n = len(places.body)
    found = [places.nothing, *(Choice(k, places.nothing.counts) for k in (n // 4, n // 2) if k)]
    for k, step in ((n // 4, 1), (n // 2, 2), (n // 2, 3)):
        if k:
            counts = [0] * n
            for i in range(n - k, n, step):
                counts[i] = places.count(i, 0.25)
            found.append(Choice(k, tuple(counts)))
    return list(dict.fromkeys(found))


def non_negative(matrix: np.ndarray, target: np.ndarray, rounds: int = 20_000) -> np.ndarray:
    """argmin |matrix x - target| over x >= 0, by coordinate descent on relative errors."""
    a = matrix / target[:, None]
    scale = np.maximum(np.abs(a).max(0), 1e-30)
    a, b = a / scale, np.ones(len(target))
    x, norms = np.zeros(a.shape[1]), np.maximum((a * a).sum(0), 1e-30)
    residual = b.copy()
    for _ in range(rounds):
        before = x.copy()
        for j in range(len(x)):
            new = max(0.0, x[j] + a[:, j] @ residual / norms[j])
            residual += a[:, j] * (x[j] - new)
            x[j] = new
        if np.abs(x - before).max() < 1e-12:
            break
    return np.asarray(x / scale)


def _here(finder: Searcher) -> Callable[[Choice], float | None]:
    """Median ms of a whole step, compiled for this machine."""
    from dataclasses import replace

    from trainlet import api

    def measure(choice: Choice) -> float:
        host = api.build(finder.space.graph, replace(finder.memory.settings, scheme=finder.scheme(choice)))
        x, y = _samples(host.manifest, host.batch)
        seconds = []
        for _ in range(CALLS):
            started = time.perf_counter()
            host.step(x, y, 1e-6) if host.training_function == "step" else host.accumulate(x, y)
            seconds.append(time.perf_counter() - started)
        return 1e3 * statistics.median(seconds)

    return measure


def _on_board(finder: Searcher, name: str) -> Callable[[Choice], float | None]:
    """Projected ms of the instructions that an emulated step takes; None where it does not fit the board."""
    from dataclasses import replace
    from tempfile import TemporaryDirectory

    from trainlet import api
    from trainlet.device import board, emulate
    from trainlet.device.build import read_manifest

    part = board(name)

    def measure(choice: Choice) -> float | None:
        settings = replace(finder.memory.settings, scheme=finder.scheme(choice))
        with TemporaryDirectory(prefix="trainlet-") as folder:
            try:
                api.emit(finder.space.graph, settings, folder, board=name)
            except BudgetError:
                return None
            manifest = read_manifest(Path(folder))
            x, y = _samples(manifest, int(manifest["batch"]))
            report = emulate(folder, name, (x, y), 1)
        return part.milliseconds(report.step_instructions)

    return measure


def _samples(manifest: dict, batch: int) -> tuple[np.ndarray, np.ndarray]:
    """Noise as samples, and labels: how long a step takes does not depend on them."""
    rng, entry = np.random.default_rng(0), manifest["input"]
    shape: Sequence[int] = (batch, *entry["shape"][1:])
    x = rng.integers(-128, 128, shape).astype(np.int8)
    samples = x if entry["dtype"] == "s8" else (x / 64).astype(np.float32)
    kind = np.int32 if manifest["label"]["dtype"] == "s32" else np.float32
    return samples, np.zeros(manifest["label"]["shape"], kind)


__all__ = ["StepTime", "calibrating_choices", "features", "non_negative"]
