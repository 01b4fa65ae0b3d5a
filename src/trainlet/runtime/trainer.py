"""The training loop on this machine: epochs, learning rate, evaluation, checkpoints, resume."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from trainlet.data import Augment, Dataset, Samples
from trainlet.errors import CheckpointError, DataError, TrainingError
from trainlet.runtime.checkpoint import load_checkpoint, save_checkpoint
from trainlet.runtime.host import HostProgram
from trainlet.runtime.measure import peak_arena_bytes
from trainlet.runtime.prefix_cache import PrefixCache
from trainlet.train.schedule import learning_rate

CACHE_LIMIT_BYTES = 2 * 2**30


@dataclass(frozen=True)
class TrainConfig:
    """One run. `accumulate`: calls summed into one update (programs compiled for it)."""

    epochs: int
    lr: float
    warmup_epochs: float | None = None  # None: a tenth of the run
    seed: int = 0
    accumulate: int = 1
    augment: bool = False
    evaluate_every: int = 1


@dataclass
class TrainResult:
    """What a run did. `peak_bytes` is the arena as measured by painting it."""

    accuracy_before: float = math.nan
    accuracy_after: float = math.nan
    loss_per_epoch: list[float] = field(default_factory=list)
    accuracy_per_epoch: list[float] = field(default_factory=list)
    seconds: float = 0.0
    samples_per_second: float = 0.0
    peak_bytes: int = 0
    ram_bytes: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Progress:
    """One report to whoever watches: after every update and every epoch."""

    epoch: int
    step: int
    steps: int
    loss: float
    accuracy: float
    samples_per_second: float
    test_accuracy: float | None = None


Watch = Callable[[Progress], None]


class Trainer:
    """Trains a loaded program on a data set. Same seed, same data: same bits."""

    def __init__(self, host: HostProgram, data: Dataset, config: TrainConfig) -> None:
        self.host, self.data, self.config = host, data, config
        self.result = TrainResult()
        self.epoch = 0
        self.classify = host.manifest["label"]["dtype"] == "s32"
        self.batch = host.batch * config.accumulate
        if len(data.x_train) < self.batch:
            raise DataError(f"{len(data.x_train)} training samples do not fill one update of {self.batch}")
        if config.epochs < 1 or not config.lr > 0:
            raise DataError(f"epochs {config.epochs} and learning rate {config.lr} must be positive")
        self._augment = Augment(config.seed) if config.augment else None
        self._caches: dict[str, PrefixCache | None] = {}

    @property
    def steps_per_epoch(self) -> int:
        return len(self.data.x_train) // self.batch

    def evaluate(self) -> float:
        """Accuracy on the test samples, or minus the mean squared error of a regression."""
        outputs = self._predict_all(self.data.x_test)
        if self.classify:
            return float((outputs.argmax(1) == self.data.y_test).mean())
        return -float(((outputs - self.data.y_test.reshape(outputs.shape)) ** 2).mean())

    def _predict_all(self, samples: Samples) -> np.ndarray:
        cache = self._cache("predict", len(samples))
        if cache is None:
            blocks = [np.arange(i, min(i + 64, len(samples))) for i in range(0, len(samples), 64)]
            return np.concatenate([self.host.predict(samples.batch(b)) for b in blocks])
        rows = [self.host.predict_resume(cache.get(np.array([i]), samples.batch)) for i in range(len(samples))]
        return np.stack(rows)

    def _cache(self, function: str, samples: int) -> PrefixCache | None:
        if function not in self._caches:
            needed = PrefixCache.bytes_needed(self.host, function, samples)
            fits = needed is not None and needed <= CACHE_LIMIT_BYTES
            wanted = fits and (function == "predict" or self._augment is None)
            self._caches[function] = PrefixCache(self.host, function, samples) if wanted else None
        return self._caches[function]

    def run(self, watch: Watch = lambda p: None, checkpoint: Path | None = None, meta: dict[str, Any] | None = None) -> TrainResult:
        """Train from the current epoch to the last.

        After each epoch the state goes to `checkpoint`. A loss that is not finite stops the run:
        TrainingError names the step, and the last good checkpoint stays.
        """
        started = time.perf_counter()
        if self.epoch == 0:
            self.result.accuracy_before = self.evaluate()
        while self.epoch < self.config.epochs:
            self._epoch(watch, checkpoint)
            self.epoch += 1
            last = self.epoch == self.config.epochs
            if last or self.epoch % self.config.evaluate_every == 0:
                self.result.accuracy_per_epoch.append(self.evaluate())
                watch(self._progress(self.steps_per_epoch, 0.0, self.result.accuracy_per_epoch[-1]))
            if checkpoint is not None:
                self.save(checkpoint, meta or {})
        self.result.accuracy_after = self.evaluate()
        self.result.seconds += time.perf_counter() - started
        self._measure()
        return self.result

    def _progress(self, step: int, accuracy: float, test: float | None = None) -> Progress:
        loss = self.result.loss_per_epoch[-1] if self.result.loss_per_epoch else math.nan
        return Progress(self.epoch, step, self.steps_per_epoch, loss, accuracy, self.result.samples_per_second, test)

    def _epoch(self, watch: Watch, checkpoint: Path | None) -> None:
        order = np.random.default_rng([self.config.seed, self.epoch]).permutation(len(self.data.x_train))
        started, total, correct = time.perf_counter(), 0.0, 0
        for step in range(self.steps_per_epoch):
            indices = order[step * self.batch : (step + 1) * self.batch]
            loss, right = self._update(indices, self._rate(step))
            if not math.isfinite(loss):
                kept = f"the last good state is in {checkpoint}" if checkpoint and self.epoch else "nothing was saved yet"
                raise TrainingError(
                    f"the loss became {loss} at epoch {self.epoch + 1}, step {step + 1}: lower the learning rate "
                    f"(now {self.config.lr:g}); {kept}"
                )
            total, correct = total + loss, correct + right
            done = (step + 1) * self.batch
            speed = done / (time.perf_counter() - started)
            watch(Progress(self.epoch, step + 1, self.steps_per_epoch, total / (step + 1), correct / done, speed))
        self.result.loss_per_epoch.append(total / self.steps_per_epoch)
        self.result.samples_per_second = speed

    def _rate(self, step: int) -> float:
        warmup = self.config.epochs / 10 if self.config.warmup_epochs is None else self.config.warmup_epochs
        at = self.epoch * self.steps_per_epoch + step
        return learning_rate(at, self.steps_per_epoch, self.config.epochs, self.config.lr, warmup)

    def _update(self, indices: np.ndarray, lr: float) -> tuple[float, int]:
        """One update by the samples at `indices`: mean loss and number of right answers."""
        loss, right = 0.0, 0
        step = self.host.training_function == "step"
        for i in range(0, len(indices), self.host.batch):
            part = indices[i : i + self.host.batch]
            loss += self._call(part, lr if step else None)
            if self.classify:
                right += int((self.host.logits().argmax(1) == self.data.y_train[part]).sum())
        if not step:
            self.host.apply(lr)
        return loss * self.host.batch / len(indices), right

    def _call(self, indices: np.ndarray, lr: float | None) -> float:
        labels, cache = self.data.y_train[indices], self._cache(self.host.training_function, len(self.data.x_train))
        if cache is not None:
            return self.host.train_resume(cache.get(indices, self.data.x_train.batch), labels, lr)
        x = self.data.x_train.batch(indices, self._augment, self.epoch)
        return self.host.accumulate(x, labels) if lr is None else self.host.step(x, labels, lr)

    def _measure(self) -> None:
        rows = np.arange(self.host.batch)
        x, y = self.data.x_train.batch(rows), self.data.y_train[rows]
        self.result.peak_bytes = peak_arena_bytes(self.host, x, y)
        self.result.ram_bytes = {m: self.host.manifest["bytes"][m] for m in ("arena", "state", "scratch")}

    def save(self, path: Path, meta: dict[str, Any]) -> None:
        """Checkpoint after a whole epoch."""
        run = {"epoch": self.epoch, "config": asdict(self.config), "result": asdict(self.result)}
        save_checkpoint(path, self.host.tensors(), {**meta, "run": run})

    def resume(self, path: Path) -> None:
        """Go on where a checkpoint stopped. Raises CheckpointError when its settings differ."""
        tensors, meta = load_checkpoint(path)
        run = meta["run"]
        if run["config"] != asdict(self.config):
            changed = [k for k, v in asdict(self.config).items() if run["config"].get(k) != v]
            raise CheckpointError(f"{path} is of a run with other {', '.join(changed)}: resume with the same settings")
        self.host.restore(tensors)
        self.epoch, self.result = run["epoch"], TrainResult(**run["result"])
