"""The training loop on this machine: epochs, learning rate, evaluation, checkpoints, resume."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
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
    """What a run did. `peak_bytes` is the arena as measured by painting it; `metric` what accuracy means."""

    metric: str = "accuracy"
    accuracy_before: float = math.nan
    accuracy_after: float = math.nan
    loss_per_epoch: list[float] = field(default_factory=list)
    accuracy_per_epoch: list[float] = field(default_factory=list)
    seconds: float = 0.0
    samples_per_second: float = 0.0
    peak_bytes: int = 0
    ram_bytes: dict[str, int] = field(default_factory=dict)
    new_head: int | None = None  # classes of the head that was drawn anew for this run


@dataclass(frozen=True)
class Progress:
    """One report to whoever watches, after every update; after an epoch, once its checkpoint is saved, with
    `test_accuracy` where it was measured. `epoch`: epochs completed. Loss and accuracy: of this epoch."""

    epoch: int
    step: int
    steps: int
    loss: float
    accuracy: float
    samples_per_second: float
    peak_bytes: int
    epoch_ended: bool = False
    test_accuracy: float | None = None


Watch = Callable[[Progress], None]


class Trainer:
    """Trains a loaded program on a data set. Same seed, same data: same bits."""

    def __init__(self, host: HostProgram, data: Dataset, config: TrainConfig) -> None:
        self.host, self.data, self.config = host, data, config
        regression = host.manifest["loss"] == "mean-squared-error"
        self.result = TrainResult(metric="negative mean squared error" if regression else "accuracy")
        self.epoch = 0
        self.classify = host.manifest["label"]["dtype"] == "s32"
        self.batch = host.batch * config.accumulate
        self._check()
        self._augment = Augment(config.seed) if config.augment else None
        self._caches: dict[str, PrefixCache | None] = {}

    def _check(self) -> None:
        config = self.config
        if config.epochs < 1 or not 0 < config.lr < math.inf:
            raise DataError(f"epochs {config.epochs} and learning rate {config.lr} must be positive")
        if config.warmup_epochs is not None and not 0 <= config.warmup_epochs < config.epochs:
            raise DataError(
                f"warm-up of {config.warmup_epochs:g} epochs is not shorter than {config.epochs} epochs"
            )
        if config.accumulate < 1:
            raise DataError(f"accumulate {config.accumulate} is not positive")
        if config.accumulate > 1 and self.host.training_function == "step":
            raise DataError("the program updates after every call: compile it with --accumulate")
        if len(self.data.x_train) < self.batch:
            count = len(self.data.x_train)
            raise DataError(f"{count} training samples do not fill one update of {self.batch}: lower batch")
        if len(self.data.x_test) == 0:
            raise DataError("there are no test samples to measure the accuracy on")
        if config.augment and len(self.host.sample_shape) != 3:
            shape = self.host.sample_shape
            raise DataError(f"augment flips and shifts images, the network takes samples of shape {shape}")

    @property
    def steps_per_epoch(self) -> int:
        return len(self.data.x_train) // self.batch

    def evaluate(self) -> float:
        """Share of right answers on the test samples, or minus the mean squared error of a regression."""
        outputs = self.predict_all(self.data.x_test)
        if self.classify:
            return float((outputs.argmax(1) == self.data.y_test).mean())
        targets = self.data.y_test.reshape(outputs.shape)
        if self.result.metric == "accuracy":  # several yes-or-no answers a sample
            return float(((outputs > 0) == (targets > 0.5)).mean())
        return -float(((outputs - targets) ** 2).mean())

    def predict_all(self, samples: Samples) -> np.ndarray:
        """Outputs (M, outputs) of the test samples, or of others as many."""
        cache = self._cache("predict", len(samples))
        if cache is None:
            blocks = [np.arange(i, min(i + 64, len(samples))) for i in range(0, len(samples), 64)]
            return np.concatenate([self.host.predict(samples.batch(b)) for b in blocks])
        rows = (cache.get(np.array([i]), samples.batch) for i in range(len(samples)))
        return np.stack([self.host.predict_resume(row) for row in rows])

    def _cache(self, function: str, samples: int) -> PrefixCache | None:
        if function not in self._caches:
            needed = PrefixCache.bytes_needed(self.host, function, samples)
            fits = needed is not None and needed <= CACHE_LIMIT_BYTES
            wanted = fits and (function == "predict" or self._augment is None)
            self._caches[function] = PrefixCache(self.host, function, samples) if wanted else None
        return self._caches[function]

    def run(
        self,
        watch: Watch = lambda p: None,
        checkpoint: Path | None = None,
        meta: Mapping[str, Any] | None = None,
        measure: bool = True,
    ) -> TrainResult:
        """Train from the current epoch to the last.

        After each epoch the state goes to `checkpoint`. A loss that is not finite stops the run:
        TrainingError names the step, and the last good checkpoint stays. Without `measure` it trains and
        nothing else: no painting of memory, no test samples.
        """
        if measure:
            self._measure()
        if self.epoch == 0 and measure:
            self.result.accuracy_before = self.evaluate()
        while self.epoch < self.config.epochs:
            started = time.perf_counter()
            progress = self._epoch(watch, checkpoint)
            self.epoch += 1
            test = None
            if measure and (self.epoch == self.config.epochs or self.epoch % self.config.evaluate_every == 0):
                test = self.evaluate()
                self.result.accuracy_per_epoch.append(test)
                self.result.accuracy_after = test
            self.result.seconds += time.perf_counter() - started
            if checkpoint is not None:
                self.save(checkpoint, meta or {})
            watch(replace(progress, epoch=self.epoch, epoch_ended=True, test_accuracy=test))
        return self.result

    def _epoch(self, watch: Watch, checkpoint: Path | None) -> Progress:
        """One pass over the training samples in an order drawn from (seed, epoch); the last report of it."""
        self.host.redraw(self.epoch)
        order = np.random.default_rng([self.config.seed, self.epoch]).permutation(len(self.data.x_train))
        started, total, correct = time.perf_counter(), 0.0, 0
        for step in range(self.steps_per_epoch):
            indices = order[step * self.batch : (step + 1) * self.batch]
            loss, right = self._update(indices, self._rate(step))
            if not math.isfinite(loss):
                raise self._diverged(f"the loss became {loss}", step, checkpoint)
            total, correct = total + loss, correct + right
            done = (step + 1) * self.batch
            speed = done / (time.perf_counter() - started)
            progress = Progress(
                self.epoch, step + 1, self.steps_per_epoch, total / (step + 1), correct / done, speed,
                self.result.peak_bytes,
            )  # fmt: skip
            watch(progress)
        for name, tensor in self.host.tensors().items():
            if tensor.dtype.kind == "f" and not np.isfinite(tensor).all():
                raise self._diverged(f"{name} holds NaN or infinity", step, checkpoint)
        self.result.loss_per_epoch.append(progress.loss)
        self.result.samples_per_second = progress.samples_per_second
        return progress

    def _diverged(self, what: str, step: int, checkpoint: Path | None) -> TrainingError:
        kept = f"the last good state is in {checkpoint}" if checkpoint and self.epoch else "nothing was saved"
        return TrainingError(
            f"{what} at epoch {self.epoch + 1}, step {step + 1}: lower the learning rate "
            f"(now {self.config.lr:g}); {kept}"
        )

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
        labels = self.data.y_train[indices]
        cache = self._cache(self.host.training_function, len(self.data.x_train))
        if cache is not None:
            return self.host.train_resume(cache.get(indices, self.data.x_train.batch), labels, lr)
        x = self.data.x_train.batch(indices, self._augment, self.epoch)
        return self.host.accumulate(x, labels) if lr is None else self.host.step(x, labels, lr)

    def _measure(self) -> None:
        rows = np.arange(self.host.batch)
        x, y = self.data.x_train.batch(rows), self.data.y_train[rows]
        self.result.peak_bytes = peak_arena_bytes(self.host, x, y)
        self.result.ram_bytes = {m: self.host.manifest["bytes"][m] for m in ("arena", "state", "scratch")}

    def save(self, path: Path, meta: Mapping[str, Any]) -> None:
        """Checkpoint after a whole epoch."""
        run = {"epoch": self.epoch, "config": asdict(self.config), "result": asdict(self.result)}
        save_checkpoint(path, self.host.tensors(), {**meta, "run": run})

    def resume(self, path: Path, meta: Mapping[str, Any] | None = None) -> None:
        """Go on where a checkpoint stopped. Raises CheckpointError when it is of another run.

        `meta` is what `run` will be given: model, settings, trained channels, data.
        """
        tensors, saved = load_checkpoint(path)
        if "run" not in saved:
            raise CheckpointError(f"{path} holds no unfinished run")
        ours = json.loads(json.dumps({**(meta or {}), "config": asdict(self.config)}))
        if changed := _differences({**saved, "config": saved["run"]["config"]}, ours):
            raise CheckpointError(f"{path} is of a run with other {', '.join(changed)}: resume with the same")
        self.host.restore(tensors)
        self.epoch, self.result = saved["run"]["epoch"], TrainResult(**saved["run"]["result"])


def _differences(saved: Mapping[str, Any], ours: Mapping[str, Any]) -> list[str]:
    """Names of what differs, those of settings instead of the word "settings"."""
    found: list[str] = []
    for name, value in ours.items():
        if name in ("settings", "config") and isinstance(saved.get(name), dict):
            found += [k for k in value if saved[name].get(k) != value[k]]
        elif saved.get(name) != value:
            found.append(name)
    return list(dict.fromkeys(found))
