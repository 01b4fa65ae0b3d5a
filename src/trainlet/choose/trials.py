"""One trial: a short fine-tuning by the emitted program, measured on the validation rows."""

from __future__ import annotations

import base64
import math
import os
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from trainlet.api import Settings, build
from trainlet.choose.boundary import LIMIT_BYTES, Boundaries
from trainlet.choose.structure import tail
from trainlet.choose.task import Task
from trainlet.data import Dataset
from trainlet.errors import TrainingError
from trainlet.runtime.trainer import TrainConfig, Trainer
from trainlet.scheme import Layer, UpdateScheme, layers
from trainlet.scheme.scheme import Channels

HEAD_EPOCHS = 8  # of the head alone, before every trial
HALVINGS = 3  # of the rate of a trial that diverges


@dataclass(frozen=True)
class Trial:
    """What is trained beside the head: the last `biases` biases, and `share` of the channels of `weight`."""

    biases: int = 0
    weight: str | None = None
    share: float = 1.0

    def __str__(self) -> str:
        if not self.biases and self.weight is None:
            return "head"
        extra = "" if self.weight is None else f" + {self.weight}@{self.share:g}"
        return f"bias-only:{self.biases}{extra}"


@dataclass(frozen=True)
class Run:
    """One run of a trial: HEAD_EPOCHS of the head alone at `head_lr`, then `epochs` of the trial at `lr`.

    The head comes first because a short training from a random head measures how fast the head learns, and
    little of what else is trained (linear probing, then fine-tuning: Kumar et al., arXiv:2202.10054). Equal
    runs give equal bits, on whatever machine and in whatever order.
    """

    trial: Trial
    epochs: int
    seed: int
    lr: float
    head_lr: float

    @property
    def key(self) -> str:
        return (
            f"{self.trial} epochs={self.epochs} seed={self.seed} lr={self.lr:.6g} head_lr={self.head_lr:.6g}"
        )


def scheme_of(trial: Trial, found: list[Layer]) -> UpdateScheme:
    """The trial's update scheme: the head is always trained."""
    body, head = [x for x in found if not x.is_head], [x for x in found if x.is_head]
    weights = {x.weight.name: Channels(share=1.0) for x in head}
    if trial.weight is not None:
        weights = {trial.weight: Channels(share=trial.share), **weights}
    with_bias = [*(body[-trial.biases :] if trial.biases else []), *head]
    return UpdateScheme(str(trial), weights, tuple(x.bias.name for x in with_bias if x.bias is not None))


class Trials:
    """Runs trials of one task; keeps the activations at cuts in a folder and trained heads in memory."""

    def __init__(self, task: Task, folder: Path, limit_bytes: int = LIMIT_BYTES) -> None:
        self.task, self.boundaries = task, Boundaries(task, folder, limit_bytes)
        self._heads: dict[tuple[int, float], tuple[dict[str, np.ndarray], float]] = {}

    def __call__(self, run: Run) -> dict[str, Any]:
        """The record of a run, JSON-ready. `lr` is the rate that did not diverge: half the asked one where
        that did.

        Diverged: a value that is not finite, or in the last epoch a training loss above the middle between
        that of the head alone and that of guessing.
        """
        started, cpu = time.perf_counter(), processor_seconds()
        trainer, lr = _trainer(self.task, self.boundaries, run), run.lr
        head, head_loss = self.head(run.seed, run.head_lr)
        limit = max(head_loss, (head_loss + math.log(self.task.classes)) / 2)
        loss: float | None = head_loss
        for attempt in range(HALVINGS + 1):
            lr = run.lr / 2**attempt
            _begin(trainer, head)
            if run.epochs:
                loss = _fit(trainer, run.epochs, lr, run.seed)
            if loss is not None and loss <= limit:
                break
        return {
            "run": run.key,
            "asked_lr": run.lr,
            "lr": lr,
            "diverged": loss is None or loss > limit,
            "train_loss": loss,
            **_measure(trainer),
            "seconds": round(time.perf_counter() - started, 3),
            "cpu_seconds": round(processor_seconds() - cpu, 3),
            **_what(run),
        }

    def head(self, seed: int, lr: float) -> tuple[dict[str, np.ndarray], float]:
        """State of the head trained alone, and its loss in the last epoch."""
        key = (seed, lr)
        if key not in self._heads:
            trainer = _trainer(self.task, self.boundaries, Run(Trial(), 1, seed, lr, lr))
            loss = _fit(trainer, HEAD_EPOCHS, lr, seed)
            if loss is None:
                loss = math.inf
                trainer.host.init()
            self._heads[key] = trainer.host.tensors(), loss
        return self._heads[key]


def _what(run: Run) -> dict[str, Any]:
    return {"trial": asdict(run.trial), "epochs": run.epochs, "seed": run.seed}


def _trainer(task: Task, boundaries: Boundaries, run: Run) -> Trainer:
    """The trial's program on the part of the network behind its cut, and the activations there as its
    data."""
    network = task.network(run.seed)
    scheme = scheme_of(run.trial, layers(network))
    index = boundaries.cut_for({*scheme.weights, *scheme.biases})
    settings = Settings(scheme, task.settings.master, batch=task.settings.batch, seed=run.seed)
    host = build(tail(network, boundaries.used[index]), settings, thorough=False)
    x_fit, x_validate = boundaries.samples(index)
    n, labels = len(task.fit), task.labels
    data = Dataset(x_fit, labels[:n], x_validate, labels[n:], task.data.class_names, "validation rows")
    return Trainer(host, data, TrainConfig(max(1, run.epochs), run.lr, seed=run.seed))


def _begin(trainer: Trainer, head: Mapping[str, np.ndarray]) -> None:
    """Factory state, but for the head."""
    trainer.host.init()
    trainer.host.restore({**trainer.host.tensors(), **head})


def _fit(trainer: Trainer, epochs: int, lr: float, seed: int) -> float | None:
    """Train; the mean loss of the last epoch, None where something is not finite."""
    trainer.epoch, trainer.config = 0, TrainConfig(epochs, lr, seed=seed)
    trainer.result.loss_per_epoch = []
    try:
        return trainer.run(measure=False).loss_per_epoch[-1]
    except TrainingError:
        return None


def _measure(trainer: Trainer) -> dict[str, Any]:
    """Accuracy and loss on the validation rows; for each row whether it was right, and the probability of its
    label."""
    y = trainer.data.y_test
    logits = trainer.predict_all(trainer.data.x_test).astype(np.float64)
    logits -= logits.max(1, keepdims=True)
    log_p = (logits - np.log(np.exp(logits).sum(1, keepdims=True)))[np.arange(len(y)), y]
    right = logits.argmax(1) == y
    probability = np.rint(np.exp(log_p) * 65535).astype("<u2")
    return {
        "accuracy": float(right.mean()),
        "loss": float(-log_p.mean()) if np.isfinite(log_p).all() else None,
        "right": base64.b64encode(np.packbits(right).tobytes()).decode(),
        "probability": base64.b64encode(probability.tobytes()).decode(),
    }


def processor_seconds() -> float:
    """Of this process and of the compilers it has started, so far."""
    t = os.times()
    return t.user + t.system + t.children_user + t.children_system


def right_of(record: Mapping[str, Any], count: int) -> np.ndarray:
    """(count,) bool: which validation rows a run got right."""
    packed = np.frombuffer(base64.b64decode(record["right"]), np.uint8)
    return np.unpackbits(packed, count=count).astype(bool)


def probability_of(record: Mapping[str, Any]) -> np.ndarray:
    """(validation rows,) probability that a run gives the true class."""
    return np.frombuffer(base64.b64decode(record["probability"]), "<u2") / 65535
