"""A compiled training program as a Python object: step, fit, predict, state_dict, save."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from trainlet.adapt import adapted
from trainlet.compiled.samples import LabelForm, SampleForm
from trainlet.compiled.sources import Batch, Source, source_of
from trainlet.errors import DataError, TrainingError
from trainlet.ir import Graph, Value
from trainlet.runtime.prefix_cache import CacheOptions, PrefixCache, prefix_cache
from trainlet.train.parameters import Parameter
from trainlet.train.schedule import learning_rate

if TYPE_CHECKING:
    from trainlet.api import Settings
    from trainlet.frontends.torch import TorchOrigin
    from trainlet.plan.budget import MemoryChoice
    from trainlet.runtime.host import HostProgram

# Safe starting points for a pretrained network; `lr=` overrides them.
DEFAULT_LR = {"sgd": 0.01, "momentum": 0.003, "adamw": 3e-4}


@dataclass
class FitResult:
    """What `fit` did, epoch by epoch. `accuracy`: of the outputs before each update; None for a regression.

    `cache`: what the frozen prefix's cache saved, or why there was none.
    """

    loss: list[float] = field(default_factory=list)
    accuracy: list[float | None] = field(default_factory=list)
    validation: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    steps: int = 0
    cache: str = "no cache"


class CompiledProgram:
    """A network that keeps learning, compiled for this machine. Made by `trainlet.compile`.

    Samples are (N, C, H, W) where the model came from PyTorch or ONNX (`layout`), float32 or uint8 pixels.
    `graph` is the network as it came; `memory` says how a budget was met. One call at a time.
    """

    def __init__(
        self,
        host: HostProgram,
        graph: Graph,
        parameters: tuple[Parameter, ...],
        settings: Settings,
        form: SampleForm,
        memory: MemoryChoice | None = None,
        origin: TorchOrigin | None = None,
    ) -> None:
        self.host, self.graph, self.parameters, self.settings = host, graph, parameters, settings
        self.form, self.memory = form, memory
        self.origin = origin
        label = host.manifest["label"]
        self.label_form = LabelForm(Value("label", label["dtype"], tuple(label["shape"])), host.classes)
        self.calls = 1 if memory is None else memory.calls
        self.batch = host.batch * self.calls

    @property
    def classes(self) -> int:
        """Outputs of the network."""
        return self.host.classes

    @property
    def classifies(self) -> bool:
        """Whether labels are class numbers."""
        return self.label_form.value.dtype == "s32"

    def step(self, x: Any, y: Any, lr: float | None = None) -> float:
        """One update by a batch of samples and labels: forward, backward, update. The loss before it.

        Raises DataError, with nothing changed, where samples, labels or lr do not fit or are not finite;
        TrainingError where the loss is not finite: lower lr, and start again from `reset` or a saved state.
        """
        samples, labels = self.form.batch(x, self.batch), self.label_form.batch(y, self.batch)
        loss, _ = self._update(Batch(labels, samples.__getitem__), self._rate(lr), None)
        if not math.isfinite(loss):
            raise TrainingError(f"the loss became {loss}: lower the learning rate")
        return loss

    def _rate(self, lr: float | None) -> float:
        if lr is None:
            return DEFAULT_LR[self.settings.optimizer]
        if not 0 <= lr < math.inf:
            raise DataError(f"learning rate {lr} is not a positive number")
        return float(lr)

    def _update(self, batch: Batch, lr: float, cache: PrefixCache | None) -> tuple[float, int]:
        """One update: mean loss, and how many outputs had their largest value at the label."""
        host, total, right = self.host, 0.0, 0
        one = host.training_function == "step"
        for i in range(0, self.batch, host.batch):
            part = slice(i, i + host.batch)
            labels, rate = batch.labels[part], lr if one else None
            if cache is not None and batch.indices is not None:
                rows = batch.indices[part]
                boundary = cache.get(rows, lambda _, part=part: batch.load(part))  # type: ignore[misc]
                total += host.train_resume(boundary, labels, rate)
            elif one:
                total += host.step(batch.load(part), labels, lr)
            else:
                total += host.accumulate(batch.load(part), labels)
            if self.classifies:
                right += int((host.logits().argmax(1) == labels).sum())
        if not one:
            host.apply(lr)
        return total / self.calls, right

    def fit(
        self,
        data: Any,
        epochs: int = 5,
        lr: float | None = None,
        *,
        validation: Any = None,
        warmup_epochs: float = 0.0,
        constant_lr: bool = False,
        shuffle: bool = True,
        augment: bool = False,
        seed: int = 0,
        cache: str | Path | CacheOptions | None = "auto",
        watch: Callable[[int, int, float], None] = lambda epoch, step, loss: None,
    ) -> FitResult:
        """Train for `epochs` passes over `data` (`compiled/sources.py` lists what it may be).

        The rate starts at `lr` and falls along half a cosine to zero, after `warmup_epochs` of rising
        (constant_lr: stays). validation: data measured after each epoch. watch(epoch, step, loss) is called
        after every update. cache: activations behind the frozen prefix are kept and later epochs start
        there, where samples repeat ("auto" in memory, None never, a path or CacheOptions as they say).
        Channels that a scheme redraws every epoch are those of this call's epochs, counted from 0.
        Raises TrainingError where the loss is not finite; the state is then that of the epoch's start.
        """
        if epochs < 1 or not 0 <= warmup_epochs < epochs:
            raise DataError(f"{epochs} epochs with {warmup_epochs:g} of warm-up: at least one has to remain")
        peak = self._rate(lr)
        source = source_of(data, self.form, self.label_form, self.batch, seed, shuffle, augment)
        result = FitResult()
        kept, result.cache = self._cache(source, cache)
        for epoch in range(epochs):
            before, started = self.host.region("state").copy(), time.perf_counter()
            self.host.redraw(epoch)
            total, right, steps = 0.0, 0, 0
            for batch in source.epoch(epoch):
                rate = peak
                if source.steps and not constant_lr:
                    at = epoch * source.steps + min(steps, source.steps - 1)
                    rate = learning_rate(at, source.steps, epochs, peak, warmup_epochs)
                loss, correct = self._update(batch, rate, kept)
                if not math.isfinite(loss):
                    self.host.region("state")[:] = before
                    raise TrainingError(
                        f"the loss became {loss} in epoch {epoch + 1}, step {steps + 1}: lower the learning "
                        f"rate (now {peak:g}); the state is that of the epoch's start"
                    )
                total, right, steps = total + loss, right + correct, steps + 1
                watch(epoch, steps, loss)
            if steps == 0:
                raise DataError(
                    f"the data gives no batch of {self.batch} samples: compile with a smaller one"
                )
            result.seconds.append(time.perf_counter() - started)
            result.loss.append(total / steps)
            result.accuracy.append(right / (steps * self.batch) if self.classifies else None)
            result.steps += steps
            if validation is not None:
                result.validation.append(self.score(validation))
        if kept is not None:
            result.cache = kept.text
        return result

    def _cache(
        self, source: Source, wanted: str | Path | CacheOptions | None
    ) -> tuple[PrefixCache | None, str]:
        if wanted is None or wanted == "off":
            return None, "no cache: none was asked for"
        if not source.samples:
            return None, "no cache: samples do not repeat (augmented, or from a torch data set)"
        options = CacheOptions()
        if isinstance(wanted, CacheOptions):
            options = wanted
        elif wanted not in ("auto", "memory"):
            options = CacheOptions(Path(wanted))
        return prefix_cache(self.host, self.host.training_function, source.samples, options)

    def predict(self, x: Any) -> np.ndarray:
        """Outputs (N, outputs), float32, of any number of samples."""
        return self.host.predict(self.form.batch(x))

    def score(self, data: Any) -> float:
        """Share of right answers on (x, y) or the test part of a data set; minus the mean squared error of a
        regression."""
        right, error, count = 0, 0.0, 0
        for x, y in self._labelled(data):
            outputs, labels = self.host.predict(x), self.label_form.batch(y)
            count += len(x)
            if self.classifies:
                right += int((outputs.argmax(1) == labels).sum())
            else:
                error += float(((outputs - labels) ** 2).mean(1).sum())
        if not count:
            raise DataError("there are no samples to measure on")
        return right / count if self.classifies else -error / count

    def _labelled(self, data: Any) -> Any:
        """(program inputs, labels) in blocks."""
        from trainlet.data import Dataset, load_data

        if isinstance(data, str | Path):
            classes = self.classes if self.classifies else None
            t = self.form.transform
            data = load_data(data, input=self.form.value, classes=classes, mean=t.mean, std=t.std)
        if isinstance(data, Dataset):
            blocks = range(0, len(data.x_test), 64)
            rows = (np.arange(i, min(i + 64, len(data.x_test))) for i in blocks)
            return ((data.x_test.batch(r), data.y_test[r]) for r in rows)
        if isinstance(data, tuple) and len(data) == 2:
            x, y = data
            return ((self.form.batch(x[i : i + 64]), y[i : i + 64]) for i in range(0, len(x), 64))
        if hasattr(data, "__getitem__") and not hasattr(data, "batch_size"):
            items = (data[i] for i in range(len(data)))
            return ((self.form.batch(np.asarray(x)[None]), np.asarray(y)[None]) for x, y in items)
        return ((self.form.batch(x), y) for x, y in data)

    def reset(self) -> None:
        """Back to the weights the network came with."""
        self.host.init()

    def trained_graph(self) -> Graph:
        """The network with what was trained, as an inference graph of batch 1."""
        return adapted(self.graph, self.parameters, self.host.tensors())

    def state_dict(self) -> dict[str, Any]:
        """All parameters with what was trained, under the model's names and in its layouts.

        For a PyTorch model these are tensors that `load_state_dict` takes, buffers included; for any other
        model numpy arrays.
        """
        graph = self.trained_graph()
        if self.origin is None:
            return {name: t.data.copy() for name, t in graph.constants.items()}
        from trainlet.frontends.torch import to_state_dict

        return to_state_dict(graph, self.origin)

    def save(self, path: str | Path) -> Path:
        """Write program and state to one file that `trainlet.load_program` opens without the model."""
        from trainlet.compiled.archive import save_program

        return save_program(self, Path(path))

    def report(self) -> dict[str, Any]:
        """Bytes by memory and what a budget made of the batch, JSON-ready."""
        return {
            "model": self.graph.name,
            "scheme": self.host.manifest["scheme"],
            "batch": self.batch,
            "calls": self.calls,
            "bytes": dict(self.host.manifest["bytes"]),
            "memory": None if self.memory is None else self.memory.text,
        }
