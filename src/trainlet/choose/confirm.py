"""Does training more really help? A handful of candidates, trained for real and compared on validation
samples.

Summed gains are a prediction; on a small or easy task everything they promise can be noise. So what the
solver proposes is trained beside the head alone, biases alone and smaller schemes, and the smallest of
those that no other beats beyond noise is taken. Test samples play no part.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from trainlet import api
from trainlet.choose.task import Task
from trainlet.data import Dataset, Samples
from trainlet.errors import TrainingError
from trainlet.ir import Graph
from trainlet.runtime.trainer import TrainConfig, Trainer
from trainlet.scheme import UpdateScheme

NOISE = 1.0  # standard errors of a paired difference within which two candidates count as equal
LEAST_RATES, MOST_RATES = 2, 5  # tried for each candidate: on while the smaller one is better


@dataclass(frozen=True)
class Candidate:
    """A scheme to compare, with the RAM that it is preferred by."""

    name: str
    scheme: UpdateScheme
    ram_bytes: int


@dataclass(frozen=True)
class Confirmed:
    """A candidate after training: validation accuracy, which samples were right, the rate that was best."""

    candidate: Candidate
    accuracy: float
    right: np.ndarray
    lr: float
    seconds: float


@dataclass(frozen=True)
class Training:
    """How candidates are trained. head_lr: of a candidate that trains the head alone."""

    epochs: int
    lr: float
    head_lr: float
    seed: int = 0


def confirm(
    graph: Graph,
    task: Task,
    settings: api.Settings,
    candidates: Sequence[Candidate],
    training: Training,
    watch: Callable[[Confirmed], None] = lambda c: None,
) -> list[Confirmed]:
    """Each candidate trained on the samples to fit, measured on those to validate; in the given order."""
    data, results = _split(task), []
    for candidate in candidates:
        found = _trained(graph, data, settings, candidate, training)
        results.append(found)
        watch(found)
    return results


def preferred(results: Sequence[Confirmed]) -> Confirmed:
    """The candidate of least RAM among those that the most accurate one does not beat beyond noise."""
    best = max(results, key=lambda r: (r.accuracy, -r.candidate.ram_bytes))
    equal = [r for r in results if best.accuracy - r.accuracy <= NOISE * paired_error(best, r)]
    return min(equal, key=lambda r: (r.candidate.ram_bytes, -r.accuracy))


def paired_error(a: Confirmed, b: Confirmed) -> float:
    """Standard error of the difference of two accuracies on the same samples (McNemar)."""
    apart = np.asarray(a.right, float) - np.asarray(b.right, float)
    return float(apart.std() / math.sqrt(len(apart)))


def _trained(
    graph: Graph, data: Dataset, settings: api.Settings, candidate: Candidate, training: Training
) -> Confirmed:
    """The best of a few rates, each half the one before, as long as smaller ones are better."""
    host = api.build(graph, replace(settings, scheme=candidate.scheme, budget_bytes=None))
    alone = not any(name for name in candidate.scheme.biases[:-1]) and len(candidate.scheme.weights) == 1
    lr, tried = training.head_lr if alone else training.lr, []
    trainer = Trainer(host, data, TrainConfig(training.epochs, lr, seed=training.seed))
    for i in range(MOST_RATES):
        right, seconds = _run(trainer, training, lr / 2**i)
        tried.append(Confirmed(candidate, float(right.mean()), right, lr / 2**i, seconds))
        if i + 1 >= LEAST_RATES and tried[-1].accuracy < tried[-2].accuracy:
            break
    return max(tried, key=lambda t: t.accuracy)


def _run(trainer: Trainer, training: Training, lr: float) -> tuple[np.ndarray, float]:
    """(validation samples,) which are right after training; none where it diverged. And its seconds."""
    import time

    started = time.perf_counter()
    trainer.host.init()
    trainer.epoch, trainer.config = 0, TrainConfig(training.epochs, lr, seed=training.seed)
    trainer.result.loss_per_epoch = []
    y = trainer.data.y_test
    try:
        trainer.run(measure=False)
    except TrainingError:
        return np.zeros(len(y), bool), time.perf_counter() - started
    right = trainer.predict_all(trainer.data.x_test).argmax(1) == y
    return right, time.perf_counter() - started


def _split(task: Task) -> Dataset:
    """Samples to fit as training part, samples to validate as test part."""
    x = task.data.x_train

    def part(rows: np.ndarray) -> Samples:
        return Samples(x.stored[rows], x.transform, x.image_size, x.resize_to)

    y, names = task.data.y_train, task.data.class_names
    return Dataset(
        part(task.fit), y[task.fit], part(task.validate), y[task.validate], names, "validation samples"
    )
