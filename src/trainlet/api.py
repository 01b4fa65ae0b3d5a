"""The Python API, with the names of the command line: load, inspect, plan, compile, train, evaluate, export."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from trainlet.adapt import adapted
from trainlet.errors import DataError, ModelError, SchemeError
from trainlet.frontends import load
from trainlet.ir import Graph
from trainlet.scheme import Selection, UpdateScheme, layers, replace_head, resolve_scheme, select
from trainlet.train.parameters import INTEGER_MASTERS, SLOTS, Optimizer

MASTERS = ("fp32", *INTEGER_MASTERS)


@dataclass(frozen=True)
class Settings:
    """How a program is built. `accumulate`: gradients of several calls make one update.

    `classes`: a new head for that many classes, drawn from `seed` (None: the network's own head).
    """

    scheme: str | UpdateScheme = "head"
    master: str = "fp32"
    optimizer: str = "sgd"
    batch: int = 1
    accumulate: bool = False
    loss: str = "softmax-cross-entropy"
    classes: int | None = None
    momentum: float = 0.9
    weight_decay: float = 0.0
    seed: int = 0
    budget_bytes: int | None = None


def inspect(model: str | Path | Graph) -> dict[str, Any]:
    """Name, input, output and trainable layers of a network, each layer with its index and cost."""
    from trainlet.ir.ops.convolution import node_window

    graph = _graph(model)
    rows = []
    for layer in layers(graph):
        s = node_window(layer.node)
        rows.append(
            {
                "index": layer.index,
                "op": layer.node.op,
                "weight": layer.weight.name,
                "bias": layer.bias.name if layer.bias is not None else None,
                "shape": list(layer.weight.shape),
                "dtype": layer.weight.dtype,
                "channels": layer.channels,
                "depthwise": layer.depthwise,
                "head": layer.is_head,
                "input_bytes": layer.node.inputs[0].bytes,  # type: ignore[union-attr]
                "macs": s.macs,
            }
        )
    x, y = graph.inputs[0], graph.outputs[0]
    return {
        "model": graph.name,
        "input": {"name": x.name, "dtype": x.dtype, "shape": list(x.shape)},
        "output": {"name": y.name, "dtype": y.dtype, "shape": list(y.shape)},
        "parameters": sum(t.value.size for t in graph.constants.values()),
        "layers": rows,
    }


def prepare(model: str | Path | Graph, settings: Settings) -> tuple[Graph, Selection]:
    """The network with its new head and batch size, and what the scheme trains of it."""
    from trainlet.passes.rebatch import rebatch

    graph = _graph(model)
    _check_values(settings)
    if settings.classes is not None:
        graph = replace_head(graph, settings.classes, settings.seed)
    graph = rebatch(graph, 1)
    return graph, select(resolve_scheme(settings.scheme, graph), graph)


def _check_values(settings: Settings) -> None:
    if settings.batch < 1:
        raise SchemeError(f"batch {settings.batch} is not positive")
    if settings.master not in MASTERS:
        raise SchemeError(f"master {settings.master!r} is none of {', '.join(MASTERS)}")
    if settings.optimizer not in SLOTS:
        raise SchemeError(f"optimizer {settings.optimizer!r} is none of {', '.join(SLOTS)}")


def plan(model: str | Path | Graph, settings: Settings, watch: Any = lambda name, graph: None) -> Any:
    """The planned Program of a network under a scheme. Raises BudgetError over settings.budget_bytes."""
    from trainlet.backends.c99 import scratch_bytes
    from trainlet.passes.rebatch import rebatch
    from trainlet.plan.program import plan as plan_module
    from trainlet.train.autodiff import derive

    graph, selection = prepare(model, settings)
    optimizer = Optimizer(
        settings.optimizer,
        settings.master,
        momentum=settings.momentum,
        weight_decay=settings.weight_decay,
        seed=settings.seed,
    )
    module = derive(rebatch(graph, settings.batch), selection, optimizer, settings.loss, settings.accumulate)
    single = derive(graph, selection, optimizer, settings.loss, settings.accumulate)
    functions = {**module.functions, "predict": single.functions["predict"]}
    return plan_module(replace(module, functions=functions), scratch_bytes, settings.budget_bytes, watch)


def plan_report(program: Any) -> dict[str, Any]:
    """`plan --json`: bytes by memory, the lower bound, work, and what is alive at the peak."""
    main = program.main
    b = program.bytes
    return {
        "model": program.name,
        "scheme": program.module.selection.name,
        "master": program.module.optimizer.master,
        "batch": main.graph.inputs[0].shape[0],
        "ram_bytes": {k: b[k] for k in ("arena", "state", "scratch")} | {"total": program.ram_bytes},
        "flash_bytes": b["flash"],
        "lower_bound_bytes": max(f.lower_bound_bytes for f in program.functions.values()),
        "macs": main.macs(),
        "peak_live": [{"name": r.name, "bytes": r.bytes} for r in main.peak_live()],
        "functions": {
            name: {"arena_bytes": f.peak_bytes, "lower_bound_bytes": f.lower_bound_bytes, "steps": len(f.graph.nodes)}
            for name, f in program.functions.items()
        },
    }


def compile(model: str | Path | Graph, settings: Settings, output: str | Path, watch: Any = lambda n, g: None) -> Path:  # noqa: A001
    """Write the C sources of a training program into the folder `output`."""
    from trainlet.backends.c99 import write_sources

    return write_sources(plan(model, settings, watch), Path(output))


def build(model: str | Path | Graph, settings: Settings) -> Any:
    """A HostProgram: planned, emitted, compiled for this machine, loaded."""
    from trainlet.runtime.host import HostProgram

    with TemporaryDirectory(prefix="trainlet-") as folder:
        return HostProgram(compile(model, settings, folder))


def _graph(model: str | Path | Graph) -> Graph:
    return model if isinstance(model, Graph) else load(model)


def load_dataset(model: Graph, path: str | Path, loss: str = "softmax-cross-entropy", classes: int | None = None) -> Any:
    """The data in `path`, checked against the network's input; labels define the classes."""
    from trainlet.data import load_data

    data = load_data(path, input=model.inputs[0], classes=classes)
    if (data.y_train.dtype.kind == "f") == (loss == "softmax-cross-entropy"):
        kind = "targets of a regression" if data.y_train.dtype.kind == "f" else "class labels"
        raise DataError(f"{path} holds {kind}; they do not go with the loss {loss}")
    return data


def classes_of(data: Any) -> int:
    """Number of classes of a data set."""
    return len(data.class_names) or int(max(data.y_train.max(), data.y_test.max())) + 1


def fit_settings(graph: Graph, data: Any, settings: Settings) -> Settings:
    """Settings with a new head where the data has another number of classes than the network."""
    if settings.classes is None and settings.loss == "softmax-cross-entropy":
        classes = classes_of(data)
        if classes != graph.outputs[0].shape[-1]:
            return replace(settings, classes=classes)
    return settings


def checkpoint_meta(graph: Graph, settings: Settings, program_scheme: Selection) -> dict[str, Any]:
    """What is needed to build the same program again, JSON-ready."""
    weights = {k: None if v is None else list(v) for k, v in program_scheme.weights.items()}
    values = {**asdict(replace(settings, scheme="")), "scheme": program_scheme.name}
    return {"model": graph.name, "settings": values, "weights": weights, "biases": sorted(program_scheme.biases)}


def settings_of(meta: Mapping[str, Any]) -> Settings:
    """The settings a checkpoint was trained with, its scheme by explicit channels."""
    from trainlet.scheme import Channels

    weights = {
        k: Channels(share=1.0) if v is None else Channels(indices=tuple(v)) for k, v in meta["weights"].items()
    }
    scheme = UpdateScheme(meta["settings"]["scheme"], weights, tuple(meta["biases"]))
    return Settings(**{**meta["settings"], "scheme": scheme})


def restore(model: str | Path | Graph, checkpoint: str | Path) -> tuple[Graph, Settings, dict[str, np.ndarray]]:
    """Network, settings and state of a checkpoint. Raises CheckpointError for another network's."""
    from trainlet.errors import CheckpointError
    from trainlet.runtime.checkpoint import load_checkpoint

    graph = _graph(model)
    tensors, meta = load_checkpoint(Path(checkpoint))
    if meta["model"] != graph.name:
        raise CheckpointError(f"{checkpoint} belongs to the network {meta['model']}, not to {graph.name}")
    return graph, settings_of(meta), tensors


def adapted_graph(model: str | Path | Graph, checkpoint: str | Path) -> Graph:
    """The network with what a checkpoint trained, as an inference graph of batch 1."""
    from trainlet.train.parameters import parameters

    graph, settings, tensors = restore(model, checkpoint)
    graph, selection = prepare(graph, settings)
    optimizer = Optimizer(settings.optimizer, settings.master)
    return adapted(graph, tuple(parameters(graph, selection, optimizer)), tensors)


def export(model: str | Path | Graph, checkpoint: str | Path, output: str | Path, to: str = "onnx") -> Path:
    """The adapted network as ONNX, or its parameters as safetensors."""
    graph, path = adapted_graph(model, checkpoint), Path(output)
    if to == "onnx":
        from trainlet.frontends.onnx_export import export_onnx

        export_onnx(graph, path)
    elif to == "safetensors":
        from safetensors.numpy import save_file

        save_file({k: np.ascontiguousarray(t.data) for k, t in graph.constants.items()}, str(path))
    else:
        raise ModelError(f"cannot export to {to!r}: choose onnx or safetensors")
    return path


def evaluate(model: str | Path | Graph, data: str | Path, checkpoint: str | Path | None = None) -> dict[str, Any]:
    """Accuracy on the test part of a data set, by the emitted program."""
    from trainlet.runtime.trainer import TrainConfig, Trainer

    if checkpoint is None:
        graph = _graph(model)
        settings, tensors = Settings(scheme="head"), None
    else:
        graph, settings, tensors = restore(model, checkpoint)
    samples = load_dataset(graph, data, settings.loss)
    fitted = fit_settings(graph, samples, settings)
    if checkpoint is None and fitted.classes is not None:
        raise DataError(
            f"the data has {fitted.classes} classes, {graph.name} has {graph.outputs[0].shape[-1]} outputs: "
            "train it first, and give the checkpoint"
        )
    host = build(graph, replace(settings, batch=1))
    if tensors is not None:
        host.restore(tensors)
    accuracy = Trainer(host, samples, TrainConfig(1, 1.0)).evaluate()
    return {"model": graph.name, "accuracy": accuracy, "samples": len(samples.x_test)}


def train(
    model: str | Path | Graph,
    data: Any,
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
    watch: Any = lambda p: None,
) -> Any:
    """Adapt a network to a data set (a path, or a Dataset) and return the TrainResult.

    `model` may be a folder of emitted sources; then the program is taken as it is. With `resume`,
    the run goes on from `checkpoint`, exactly as if it had never stopped.
    """
    from trainlet.runtime.host import HostProgram
    from trainlet.runtime.trainer import TrainConfig, Trainer

    config = TrainConfig(epochs, lr, warmup_epochs, seed, accumulate, augment)
    if isinstance(model, str | Path) and (Path(model) / "program.json").is_file():
        host, meta = HostProgram(Path(model)), {}
        samples = _folder_data(host, data)
    else:
        graph = _graph(model)
        samples = data if hasattr(data, "x_train") else load_dataset(graph, data, settings.loss)
        settings = replace(fit_settings(graph, samples, settings), accumulate=accumulate > 1)
        prepared, selection = prepare(graph, settings)
        host, meta = build(graph, settings), checkpoint_meta(graph, settings, selection)
    trainer = Trainer(host, samples, config)
    if resume:
        if checkpoint is None:
            raise DataError("nothing to resume: name the checkpoint")
        trainer.resume(Path(checkpoint))
    return trainer.run(watch, Path(checkpoint) if checkpoint is not None else None, meta)


def _folder_data(host: Any, data: Any) -> Any:
    """A data set for an emitted program, whose folder says what its input is."""
    from trainlet.data import load_data
    from trainlet.ir import Quant, Value

    if hasattr(data, "x_train"):
        return data
    x = host.manifest["input"]
    quant = None if x["quant"] is None else Quant(x["quant"]["scale"], x["quant"]["zero_point"])
    regression = host.manifest["label"]["dtype"] != "s32"
    return load_data(
        data, input=Value(x["name"], x["dtype"], tuple(x["shape"]), quant), classes=None if regression else host.classes
    )


__all__ = [
    "MASTERS", "Settings", "adapted_graph", "build", "compile", "evaluate", "export", "inspect", "load",
    "plan", "plan_report", "train", "Sequence",
]
