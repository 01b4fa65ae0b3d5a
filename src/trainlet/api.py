"""The Python API, with the names of the command line: load, inspect, schemes, plan, compile, train, …"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np

from trainlet.adapt import adapted
from trainlet.errors import BudgetError, CheckpointError, DataError, ModelError, SchemeError
from trainlet.frontends import load, load_with_origin
from trainlet.ir import Graph
from trainlet.ir.graph import PLACES
from trainlet.output import check_writable, whole_files
from trainlet.scheme import Selection, UpdateScheme, layers, replace_head, resolve_scheme, select
from trainlet.train.autodiff import LOSSES, TrainingModule
from trainlet.train.parameters import INTEGER_MASTERS, SLOTS, Optimizer, parameters

if TYPE_CHECKING:
    from trainlet.choose.contribution import Contributions
    from trainlet.choose.task import AnalysisSettings
    from trainlet.data import Dataset
    from trainlet.plan.budget import MemoryChoice
    from trainlet.plan.program import Program, Watch
    from trainlet.runtime.host import HostProgram
    from trainlet.runtime.trainer import Progress, TrainResult

MASTERS = ("fp32", *INTEGER_MASTERS)
INPUTS = ("arena", *PLACES)


@dataclass(frozen=True)
class Settings:
    """How a program is built. `accumulate`: gradients of several calls make one update.

    `classes`: a new head for that many classes, drawn from `seed` (None: the network's own head).
    `budget_bytes`: RAM that must suffice. `arena_target_bytes`: cheap activations are computed twice until
    the arena is as small as this (`plan.budget.fit_budget` chooses it).
    `input`: where a sample is while the program runs. arena: copied into its memory. caller: read where the
    caller has it. rows: never whole, the program asks a function of the caller's for rows of an image.
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
    arena_target_bytes: int | None = None
    input: str = "arena"


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


def schemes(model: str | Path | Graph) -> list[dict[str, Any]]:
    """Schemes by name that fit a network: what each trains, and its analytic price (scheme/memory.py)."""
    from trainlet.passes.rebatch import rebatch
    from trainlet.scheme import analytic_bits, scheme_names

    graph = rebatch(_graph(model), 1)
    rows = []
    for name in scheme_names(graph):
        chosen = select(resolve_scheme(name, graph), graph)
        trained = parameters(graph, chosen, Optimizer())
        rows.append(
            {
                "name": name,
                "weights": len(chosen.weights),
                "biases": len(chosen.biases),
                "trained_elements": sum(p.tensors["w"].value.size for p in trained),
                "analytic_bytes": analytic_bits(graph, chosen) // 8,
            }
        )
    return rows


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
    if settings.loss not in LOSSES:
        raise SchemeError(f"loss {settings.loss!r} is none of {', '.join(LOSSES)}")
    if settings.batch < 1:
        raise SchemeError(f"batch {settings.batch} is not positive")
    if settings.master not in MASTERS:
        raise SchemeError(f"master {settings.master!r} is none of {', '.join(MASTERS)}")
    if settings.input not in INPUTS:
        raise SchemeError(f"input {settings.input!r} is none of {', '.join(INPUTS)}")
    if settings.optimizer not in SLOTS:
        raise SchemeError(f"optimizer {settings.optimizer!r} is none of {', '.join(SLOTS)}")


def plan(
    model: str | Path | Graph,
    settings: Settings,
    watch: Watch = lambda name, graph: None,
    for_board: bool = False,
) -> Program:
    """The planned Program of a network under a scheme. Raises BudgetError over settings.budget_bytes.

    watch(pass name, graph) is called after each pass over each function. for_board: with the smaller scratch
    of kernels built for a microcontroller (TL_LANES 4), not for this machine.
    """
    program = _plan_any(model, replace(settings, budget_bytes=None), watch, for_board)
    if settings.budget_bytes is not None and program.ram_bytes > settings.budget_bytes:
        from trainlet.plan.over_budget import over_budget

        words = over_budget(program, settings.budget_bytes)
        raise BudgetError(f"{words} {_nearest(model, settings, settings.budget_bytes, for_board)}")
    return program


def _plan_any(model: str | Path | Graph, settings: Settings, watch: Watch, for_board: bool) -> Program:
    """The plan, however large."""
    from trainlet.backends.c99 import BOARD_LANES, HOST_LANES, scratch_bytes
    from trainlet.plan.program import plan as plan_module

    lanes = BOARD_LANES if for_board else HOST_LANES
    return plan_module(
        derive(model, settings),
        partial(scratch_bytes, lanes=lanes),
        watch=watch,
        sample=settings.input,
        arena_target_bytes=settings.arena_target_bytes,
    )


def within_budget(
    model: str | Path | Graph, settings: Settings, for_board: bool = False
) -> tuple[Settings, MemoryChoice | None]:
    """Settings whose program fits settings.budget_bytes, and what that took; without a budget as they are.

    The planner computes cheap activations twice, or makes one update of several calls (`plan/budget.py`).
    Raises BudgetError, naming the nearest scheme that fits, where nothing does.
    """
    from trainlet.plan.budget import fit_budget

    if settings.budget_bytes is None:
        return settings, None
    graph = _graph(model)
    try:
        return fit_budget(settings, lambda s: plan(graph, s, for_board=for_board))
    except BudgetError as error:
        least = replace(settings, batch=1, accumulate=True, arena_target_bytes=0)
        raise BudgetError(f"{error} {_nearest(graph, least, settings.budget_bytes, for_board)}") from None


def _nearest(model: str | Path | Graph, settings: Settings, budget_bytes: int, for_board: bool) -> str:
    """A sentence: the nearest scheme that fits, or what the least one needs, and for what."""
    from trainlet.plan.over_budget import peak
    from trainlet.scheme.shrink import first_fitting, smaller_schemes

    graph, _ = prepare(model, settings)
    planned: dict[str, Program] = {}

    def ram_bytes(scheme: UpdateScheme) -> int:
        smaller = replace(settings, scheme=scheme, budget_bytes=None)
        planned[scheme.name] = _plan_any(model, smaller, lambda name, graph: None, for_board)
        return planned[scheme.name].ram_bytes

    smaller = smaller_schemes(resolve_scheme(settings.scheme, graph), graph)
    if not smaller:
        return "It trains the head alone: take a smaller network or input, or raise the budget."
    found, needed = first_fitting(smaller, ram_bytes, budget_bytes)
    if found is not None:
        return f"The nearest scheme that fits: --scheme {found.name} ({needed:,} bytes)."
    least = smaller[-1].name
    return (
        f"Not even --scheme {least} fits, it needs {needed:,} bytes. {peak(planned[least])} "
        "Take a smaller network or input, or raise the budget."
    )


def derive(model: str | Path | Graph, settings: Settings) -> TrainingModule:
    """The functions of the training program before any pass; predict takes one sample, training a batch."""
    from trainlet.passes.rebatch import rebatch
    from trainlet.train.autodiff import derive as derive_graph

    graph, selection = prepare(model, settings)
    optimizer = Optimizer(
        settings.optimizer,
        settings.master,
        momentum=settings.momentum,
        weight_decay=settings.weight_decay,
        seed=settings.seed,
    )
    single = derive_graph(graph, selection, optimizer, settings.loss, settings.accumulate)
    if settings.batch == 1:
        return single
    batch = rebatch(graph, settings.batch)
    module = derive_graph(batch, selection, optimizer, settings.loss, settings.accumulate)
    return replace(module, functions={**module.functions, "predict": single.functions["predict"]})


def plan_report(program: Program) -> dict[str, Any]:
    """`plan --json`: bytes by memory, the lower bound, what lowered it, work, what is alive at the peak."""
    main = program.main
    b = program.bytes
    return {
        "model": program.name,
        "scheme": program.module.selection.name,
        "master": program.module.optimizer.master,
        "batch": main.graph.inputs[0].shape[0],
        "ram_bytes": {k: b[k] for k in ("arena", "state", "scratch")} | {"total": program.ram_bytes},
        "input": {"where": program.sample, "caller_bytes": program.sample_bytes},
        "flash_bytes": b["flash"],
        "lower_bound_bytes": max(f.lower_bound_bytes for f in program.functions.values()),
        "saved_bytes": program.saved_bytes,
        "macs": main.macs(),
        "peak_live": [{"name": r.name, "bytes": r.bytes} for r in main.peak_live()],
        "functions": {
            name: {
                "arena_bytes": f.peak_bytes,
                "lower_bound_bytes": f.lower_bound_bytes,
                "steps": len(f.graph.nodes),
            }
            for name, f in program.functions.items()
        },
    }


def emit(
    model: str | Path | Graph,
    settings: Settings,
    output: str | Path,
    watch: Watch = lambda name, graph: None,
    board: str | Path | None = None,
    format: str = "c",  # noqa: A002  (the option's name)
) -> Path:
    """Write the C sources of a training program into the folder `output`.

    format: one of package.FORMATS. board: a name or a .toml file; then its faster kernels are taken, and a
    program that does not fit its memories raises BudgetError.
    """
    from trainlet.package import write_package

    program = plan(model, settings, watch, for_board=board is not None)
    origin = checkpoint_meta(program.name, settings, program.module.selection)
    try:
        return write_package(program, Path(output), format, board, origin)
    except BudgetError as error:
        from trainlet.device.board import board as find_board

        assert board is not None
        part = find_board(board)
        room = part.ram.budget_bytes - part.stack_bytes
        if program.ram_bytes <= room:
            raise
        raise BudgetError(f"{error} {_nearest(model, settings, room, for_board=True)}") from None


compile = emit  # noqa: A001  (its old name, for callers not yet moved)


def build(model: str | Path | Graph, settings: Settings) -> HostProgram:
    """Planned, emitted, compiled for this machine, loaded."""
    from trainlet.runtime.host import HostProgram
    from trainlet.runtime.toolchain import compiler

    compiler()  # without one, fail before planning
    with TemporaryDirectory(prefix="trainlet-") as folder:
        return HostProgram(emit(model, settings, folder))


def _graph(model: str | Path | Graph) -> Graph:
    return model if isinstance(model, Graph) else load(model)


def load_dataset(
    model: Graph, path: str | Path, loss: str | None = "softmax-cross-entropy", classes: int | None = None
) -> Dataset:
    """The data in `path`, checked against the network's input and the loss (None: whatever the labels are).

    Class labels define the number of classes where `classes` does not. Raises DataError.
    """
    from trainlet.data import load_data

    classify = loss == "softmax-cross-entropy"
    data = load_data(path, input=model.inputs[0], classes=classes if classify else None)
    return _check_targets(data, path, loss, model.outputs[0].shape[-1])


def _check_targets(data: Dataset, path: str | Path, loss: str | None, outputs: int) -> Dataset:
    """The data with its targets, if a regression, as (M, outputs)."""
    real = data.y_train.dtype.kind == "f"
    if loss is not None and real == (loss == "softmax-cross-entropy"):
        kind = "real-valued targets" if real else "class labels"
        raise DataError(f"{path} holds {kind}; they do not go with the loss {loss}")
    if not real:
        return data
    for part, y in (("y_train", data.y_train), ("y_test", data.y_test)):
        if y.size != len(y) * outputs:
            raise DataError(f"{part} in {path} has shape {y.shape}, the network gives {outputs} numbers each")
    train, test = (y.reshape(-1, outputs) for y in (data.y_train, data.y_test))
    return replace(data, y_train=train, y_test=test)


def classes_of(data: Dataset) -> int:
    """Number of classes of a data set."""
    return len(data.class_names) or int(max(data.y_train.max(), data.y_test.max())) + 1


def fit_settings(graph: Graph, data: Dataset, settings: Settings) -> Settings:
    """Settings with a new head where the data has another number of classes than the network."""
    if settings.classes is None and settings.loss == "softmax-cross-entropy":
        classes = classes_of(data)
        if classes != graph.outputs[0].shape[-1]:
            return replace(settings, classes=classes)
    return settings


def checkpoint_meta(model: str, settings: Settings, chosen: Selection) -> dict[str, Any]:
    """What is needed to build the same program again for the network named `model`, JSON-ready."""
    weights = {k: None if v is None else list(v) for k, v in chosen.weights.items()}
    values = {**asdict(replace(settings, scheme="")), "scheme": chosen.name}
    return {"model": model, "settings": values, "weights": weights, "biases": sorted(chosen.biases)}


def settings_of(meta: Mapping[str, Any]) -> Settings:
    """The settings a checkpoint was trained with, its scheme by explicit channels."""
    from trainlet.scheme import Channels

    weights = {
        k: Channels(share=1.0) if v is None else Channels(indices=tuple(v))
        for k, v in meta["weights"].items()
    }
    scheme = UpdateScheme(meta["settings"]["scheme"], weights, tuple(meta["biases"]))
    return Settings(**{**meta["settings"], "scheme": scheme})


def restore(
    model: str | Path | Graph, checkpoint: str | Path
) -> tuple[Graph, Settings, dict[str, np.ndarray]]:
    """Network, settings and state of a checkpoint. Raises CheckpointError for another network's."""
    from trainlet.runtime.checkpoint import load_checkpoint

    graph = _graph(model)
    tensors, meta = load_checkpoint(Path(checkpoint))
    if "model" not in meta:
        raise CheckpointError(f"{checkpoint} does not say which network it is of: it cannot be taken apart")
    if meta["model"] != graph.name:
        raise CheckpointError(f"{checkpoint} belongs to the network {meta['model']}, not to {graph.name}")
    return graph, settings_of(meta), tensors


def adapted_graph(model: str | Path | Graph, checkpoint: str | Path) -> Graph:
    """The network with what a checkpoint trained, as an inference graph of batch 1."""
    graph, settings, tensors = restore(model, checkpoint)
    graph, selection = prepare(graph, settings)
    optimizer = Optimizer(settings.optimizer, settings.master)
    return adapted(graph, tuple(parameters(graph, selection, optimizer)), tensors)


def export(
    model: str | Path | Graph, checkpoint: str | Path | None, output: str | Path, to: str = "onnx"
) -> Path:
    """The adapted network as ONNX, or its parameters as safetensors; without a checkpoint as it came."""
    origin = None
    if not isinstance(model, Graph):
        model, origin = load_with_origin(model)
    graph = model if checkpoint is None else adapted_graph(model, checkpoint)
    path = Path(output)
    if to not in ("onnx", "safetensors"):
        raise ModelError(f"cannot export to {to!r}: choose onnx or safetensors")
    with whole_files(path) as folder:
        if to == "onnx":
            from trainlet.frontends.onnx_export import export_onnx

            export_onnx(graph, folder / path.name, origin=origin)
        else:
            try:
                from safetensors.numpy import save_file
            except ImportError:
                raise ModelError("writing .safetensors needs a package: pip install safetensors") from None
            arrays = {k: np.ascontiguousarray(t.data) for k, t in graph.constants.items()}
            save_file(arrays, str(folder / path.name))
    return path


def quantize(
    model: str | Path | Graph,
    data: str | Path,
    output: str | Path | None = None,
    method: str = "minmax",
    head: str = "fp32",
    samples: int = 256,
) -> Graph:
    """The int8 form of a float network, calibrated on `samples` of the training part, evenly spaced.

    With `output` it is also saved there, as IR text (.tl) and its contents (.npz) beside it.
    """
    from trainlet.data import load_data
    from trainlet.ir.text import save_graph
    from trainlet.quantize import quantize as quantize_graph

    graph = _graph(model)
    x = load_data(data, input=graph.inputs[0], classes=None).x_train
    if samples < 1:
        raise DataError(f"{samples} calibration samples: give a positive number")
    rows = np.unique(np.linspace(0, len(x) - 1, min(samples, len(x))).astype(np.int64))
    result = quantize_graph(graph, x.batch(rows), method=method, head=head)  # type: ignore[arg-type]
    if output is not None:
        text = Path(str(output).removesuffix(".tl") + ".tl")
        with whole_files(text, text.with_suffix(".npz")) as folder:
            save_graph(result, folder / text.name)
    return result


def convert(model: str | Path, output: str | Path, norm: str = "folded") -> Graph:
    """A network as it is imported, saved as IR text `output` (.tl) and its contents (.npz) beside it.

    norm: what happens to its BatchNormalizations: "folded", or "batch": kept and trained as such.
    """
    from trainlet.ir.text import save_graph

    graph = load(model, norm=norm)
    text = Path(str(output).removesuffix(".tl") + ".tl")
    with whole_files(text, text.with_suffix(".npz")) as folder:
        save_graph(graph, folder / text.name)
    return graph


def evaluate(
    model: str | Path | Graph, data: str | Path, checkpoint: str | Path | None = None
) -> dict[str, Any]:
    """What the emitted program gets on the test part of a data set: its accuracy, or squared error."""
    from trainlet.runtime.trainer import TrainConfig, Trainer

    if checkpoint is None:
        graph, tensors, settings = _graph(model), None, Settings()
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
    graph = _graph(model)
    _check_values(settings)
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
        data = _check_targets(load_data(data, input=value, classes=classes), data, loss, host.classes)
    return host, data, dict(host.manifest.get("origin", {}))


__all__ = [
    "MASTERS", "Settings", "adapted_graph", "analyze", "build", "emit", "evaluate", "export", "inspect",
    "load", "plan", "plan_report", "quantize", "schemes", "train", "train_report", "within_budget",
]  # fmt: skip
