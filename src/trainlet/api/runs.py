"""Running a program: training, and measuring what it gets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainlet.api.networks import restore
from trainlet.api.programs import build, graph_of, prepare, within_budget
from trainlet.api.samples import check_targets, fit_settings, load_dataset
from trainlet.api.settings import Settings, check_values, checkpoint_meta
from trainlet.errors import DataError
from trainlet.ir import Graph
from trainlet.output import check_writable

if TYPE_CHECKING:
    from trainlet.choose.contribution import Contributions
    from trainlet.choose.task import AnalysisSettings
    from trainlet.data import Dataset
    from trainlet.runtime.host import HostProgram
    from trainlet.runtime.trainer import Progress, TrainResult


def evaluate(
    model: str | Path | Graph, data: str | Path, checkpoint: str | Path | None = None
) -> dict[str, Any]:
    """What the emitted program gets on the test part of a data set: its accuracy, or squared error."""
    from trainlet.runtime.trainer import TrainConfig, Trainer

    if checkpoint is None:
        graph, tensors, settings = graph_of(model), None, Settings()
        samples = load_dataset(graph, data, None)
        if samples.y_train.dtype.kind == "f":
            settings = replace(settings, loss="mean-squared-error")
    else:
        graph, settings, tensors = restore(model, checkpoint)
        samples = load_dataset(graph, data, settings.loss, settings.classes)
    fitted = fit_settings(graph, samples, settings)
    if fitted.classes != settings.classes:
        raise DataError(
            f"the data has {fitted.classes} classes, {graph.name} has {graph.outputs[0].shape[-1]} outputs: "
            "train it first, and give the checkpoint"
        )
    host = build(graph, replace(settings, batch=1, budget_bytes=None))
    if tensors is not None:
        host.restore(tensors)
    trainer = Trainer(host, samples, TrainConfig(1, 1.0))
    found = {"metric": trainer.result.metric, "accuracy": trainer.evaluate()}
    return {"model": graph.name, **found, "samples": len(samples.x_test)}


def analyze(
    model: str | Path | Graph,
    data: str | Path | Dataset,
    output: str | Path,
    settings: AnalysisSettings | None = None,
    *,
    jobs: int = 1,
    on: str = "local",
) -> Contributions:
    """What training each bias and each share of a weight's channels gains on a task (choose/analyze.py).

    Written to `output`; runs that were finished before are not made again.
    """
    from trainlet.choose.analyze import analyze as measure

    return measure(model, data, output, settings, jobs=jobs, on=on)


def train(
    model: str | Path | Graph,
    data: str | Path | Dataset,
    settings: Settings,
    epochs: int,
    lr: float,
    *,
    seed: int = 0,
    accumulate: int = 1,
    warmup_epochs: float | None = None,
    augment: bool = False,
    checkpoint: str | Path | None = None,
    resume: bool = False,
    watch: Callable[[Progress], None] = lambda p: None,
) -> TrainResult:
    """Adapt a network to a data set and return what came of it.

    `model` may be a folder of emitted sources: then the program is taken as it is, and of `settings`
    nothing counts. With `resume`, the run goes on from `checkpoint` as if it had never stopped.
    """
    from trainlet.runtime.trainer import TrainConfig, Trainer

    if resume and checkpoint is None:
        raise DataError("nothing to resume: name the checkpoint")
    if is_program(model):
        host, samples, meta = _open_program(Path(model), data)  # type: ignore[arg-type]
    else:
        settings = replace(settings, accumulate=accumulate > 1)
        host, samples, meta = _build_program(model, data, settings)
        accumulate *= settings.batch // host.batch  # a budget may have split the batch
    config = TrainConfig(epochs, lr, warmup_epochs, seed, accumulate, augment)
    trainer, path = Trainer(host, samples, config), None if checkpoint is None else Path(checkpoint)
    meta["data"] = samples.digest()
    trainer.result.new_head = meta.get("settings", {}).get("classes")
    if path is not None:
        if resume:
            trainer.resume(path, meta)
        check_writable(path)
    return trainer.run(watch, path, meta)


def train_report(result: TrainResult) -> dict[str, Any]:
    """`train --json`: accuracy (or what `metric` says) before and after, loss by epoch, peak, time."""
    return {
        "metric": result.metric,
        "accuracy": {"before": result.accuracy_before, "after": result.accuracy_after},
        "accuracy_per_epoch": result.accuracy_per_epoch,
        "loss_per_epoch": result.loss_per_epoch,
        "peak_bytes": result.peak_bytes,
        "ram_bytes": {**result.ram_bytes, "total": sum(result.ram_bytes.values())},
        "seconds": result.seconds,
        "samples_per_second": result.samples_per_second,
        "new_head": result.new_head,
    }


def is_program(model: str | Path | Graph) -> bool:
    """Whether `model` is a folder that `compile` wrote."""
    return not isinstance(model, Graph) and (Path(model) / "program.json").is_file()


def _build_program(
    model: str | Path | Graph, data: str | Path | Dataset, settings: Settings
) -> tuple[HostProgram, Dataset, dict[str, Any]]:
    graph = graph_of(model)
    check_values(settings)
    if isinstance(data, str | Path):
        data = load_dataset(graph, data, settings.loss, settings.classes)
    settings, _ = within_budget(graph, fit_settings(graph, data, settings))
    graph_with_head, chosen = prepare(graph, settings)
    return build(graph, settings), data, checkpoint_meta(graph_with_head.name, settings, chosen)


def _open_program(folder: Path, data: str | Path | Dataset) -> tuple[HostProgram, Dataset, dict[str, Any]]:
    """An emitted program, and its data: the folder says what its input and its labels are."""
    from trainlet.data import load_data
    from trainlet.ir import Quant, Value
    from trainlet.runtime.host import HostProgram

    host = HostProgram(folder)
    x, loss = host.manifest["input"], host.manifest["loss"]
    if isinstance(data, str | Path):
        quant = None if x["quant"] is None else Quant(x["quant"]["scale"], x["quant"]["zero_point"])
        value = Value(x["name"], x["dtype"], tuple(x["shape"]), quant)
        classes = host.classes if loss == "softmax-cross-entropy" else None
        data = check_targets(load_data(data, input=value, classes=classes), data, loss, host.classes)
    return host, data, dict(host.manifest.get("origin", {}))
