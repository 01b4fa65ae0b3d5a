"""From a model to a program that runs here: read, fit to a budget, plan, emit, build, load."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainlet.compiled.cache import entry, program_key
from trainlet.compiled.program import CompiledProgram
from trainlet.compiled.samples import SampleForm, as_array
from trainlet.errors import BackendError, ModelError
from trainlet.ir import Graph
from trainlet.plan.budget import MemoryChoice
from trainlet.scheme import UpdateScheme
from trainlet.train.parameters import parameters

if TYPE_CHECKING:
    from trainlet.api import Settings
    from trainlet.backends.cpu.choices import Choices
    from trainlet.frontends.torch import TorchOrigin
    from trainlet.plan.program import Program

BACKENDS = ("cpu", "c99")  # fast float kernels of this processor; the portable kernels of every device


def compile_model(
    model: Any,
    example_inputs: Any = None,
    *,
    scheme: str | Path | UpdateScheme | Callable[[Graph], UpdateScheme] = "full",
    batch: int | None = None,
    threads: int = 1,
    target: str = "native",
    classes: int | None = None,
    loss: str = "softmax-cross-entropy",
    optimizer: str = "sgd",
    momentum: float = 0.9,
    weight_decay: float = 0.0,
    master: str = "fp32",
    norm: str = "folded",
    budget: int | str | None = None,
    layout: str | None = None,
    mean: float | Sequence[float] | None = None,
    std: float | Sequence[float] | None = None,
    seed: int = 0,
    backend: str | None = None,
    keep_head: bool = False,
    cache: bool = True,
) -> CompiledProgram:
    """Compile a model into a program that trains on this machine, and load it.

    model: a torch.nn.Module (then example_inputs is a tensor, or a tuple of tensors, of its input), a file
    (ONNX, TFLite, int8 archive, IR text) or a Graph. scheme: what is trained (head, last:K, bias-only:K,
    full, a .json file, an UpdateScheme with the model's parameter names, or a function from the Graph to
    one). batch: samples of one update (default: as many as example_inputs holds, else 1). classes: a new head
    for so many classes, drawn from `seed`; keep_head: not where the network has as many outputs already.

    norm: "folded" freezes normalisation and folds it into the convolution before it, "batch" trains it.
    budget: RAM beside the weights, in bytes or as "40MB"; the planner then recomputes activations or splits
    the batch, with the same result. layout: "NCHW" (models of PyTorch and ONNX) or "NHWC" (others) samples.
    mean, std: of pixels / 255, for uint8 samples. threads: the most that work on one layer. backend: "cpu"
    (float networks) or "c99", the portable kernels (others; the same bits on every machine).

    The result is cached in TRAINLET_CACHE, or XDG_CACHE_HOME, or ~/.cache, by the content of everything that
    matters (`cache=False`: built anew). Raises TrainletError: ModelError, SchemeError, BudgetError,
    UnsupportedGradient or BackendError, each saying where and what to do.
    """
    from trainlet import api

    if target != "native":
        raise BackendError(
            f"target {target!r} does not run here: `trainlet compile --target {target}` builds it"
        )
    graph, origin, own_layout = read_model(model, example_inputs, norm, cache)
    backend = choose_backend(backend, graph)
    if batch is None:
        batch = 1 if example_inputs is None else len(as_array(_first(example_inputs)))
    if keep_head and classes == graph.outputs[0].shape[-1]:
        classes = None
    settings = api.Settings(
        scheme_for(scheme, graph), master, optimizer, batch, loss=loss,
        classes=classes, momentum=momentum,
        weight_decay=weight_decay, seed=seed, budget_bytes=_bytes(budget),
    )  # fmt: skip
    form = SampleForm.of(graph.inputs[0], layout or own_layout, mean, std)
    prepared, selection = api.prepare(graph, settings)
    about = {
        "settings": api.checkpoint_meta(graph.name, settings, selection),
        "backend": backend, "threads": threads, "classes": classes, "tuned": tuned_digest(backend),
    }  # fmt: skip
    make = _maker(graph, settings, backend, threads)
    folder, made = entry(program_key(graph, about), make, cache)
    chosen = MemoryChoice.of(made["memory"])
    trained = tuple(parameters(prepared, selection, settings.update_rule()))
    return CompiledProgram(_load(folder), prepared, trained, settings, form, chosen, origin)


def choose_backend(name: str | None, graph: Graph) -> str:
    """The name, or the one of BACKENDS that suits the graph. Raises BackendError for an unknown one."""
    real = all(v.dtype == "f32" for v in (*graph.inputs, *(n.output for n in graph.nodes)))
    name = name or BACKENDS[0 if real else 1]
    if name not in BACKENDS:
        raise BackendError(f"backend {name!r} is none of {', '.join(BACKENDS)}")
    return name


def read_model(
    model: Any, example_inputs: Any, norm: str, cache: bool = True
) -> tuple[Graph, TorchOrigin | None, str | tuple[int, ...]]:
    """Graph, where its weights are in a PyTorch module, layout of samples."""
    from trainlet.frontends import load

    if isinstance(model, Graph):
        return model, None, "NHWC"
    if isinstance(model, str | Path):
        return load(model), None, "NCHW" if str(model).endswith(".onnx") else "NHWC"
    torch = sys.modules.get("torch")  # without it loaded, this is no module of it
    if torch is None or not isinstance(model, torch.nn.Module):
        raise ModelError(
            f"no model in a {type(model).__name__}: give a torch.nn.Module, the path of a file, or a Graph"
        )
    if example_inputs is None:
        raise ModelError("give example_inputs: a tensor like those the model is called with")
    from trainlet.compiled.read_module import read_module

    graph, origin = read_module(model, example_inputs, norm, cache)
    return graph, origin, origin.input_perm


def scheme_for(
    scheme: str | Path | UpdateScheme | Callable[[Graph], UpdateScheme], graph: Graph
) -> str | UpdateScheme:
    """What Settings take, from what `compile` takes."""
    if isinstance(scheme, str | Path):
        return str(scheme)
    return scheme if isinstance(scheme, UpdateScheme) else scheme(graph)


def _first(inputs: Any) -> Any:
    return inputs[0] if isinstance(inputs, tuple | list) else inputs


def _bytes(budget: int | str | None) -> int | None:
    from trainlet.byte_count import byte_count

    return byte_count(budget) if isinstance(budget, str) else budget


def _maker(graph: Graph, settings: Settings, backend: str, threads: int) -> Callable[[Path], dict[str, Any]]:
    def make(folder: Path) -> dict[str, Any]:
        from trainlet.backends.c99 import write_host_sources
        from trainlet.plan.budget import fit_budget

        def planned(s: Settings) -> Program:
            return plan_for(graph, s, backend, threads)

        chosen: MemoryChoice | None = None
        fitted = settings
        if settings.budget_bytes is not None:
            fitted, chosen = fit_budget(settings, planned)
        program = planned(fitted)
        if backend == "c99":
            write_host_sources(program, folder)
        else:
            write_for(program, folder, backend, threads)
        return {"memory": None if chosen is None else asdict(chosen)}

    return make


def _tuned(backend: str, isa: str) -> Choices | None:
    """What `trainlet tune` measured on this machine, for programs that are to run on it."""
    if backend != "cpu" or isa != "native":
        return None
    from trainlet.backends.cpu import native_isa
    from trainlet.backends.cpu.choices import machine_choices

    return machine_choices(native_isa())


def tuned_digest(backend: str, isa: str = "native") -> str:
    """Hash of the measurements that a program's kernels are chosen by; "" for none."""
    choices = _tuned(backend, isa)
    return choices.digest if choices is not None and choices.table else ""


def plan_for(
    graph: Graph, settings: Settings, backend: str, threads: int = 1, isa: str = "native"
) -> Program:
    """The planned program of a network for one of BACKENDS."""
    from trainlet import api

    if backend == "c99":
        return api.plan(graph, settings)
    from trainlet.backends.cpu import plan_program

    module = api.derive(graph, settings)
    return plan_program(
        module, threads, isa, settings.budget_bytes, arena_target_bytes=settings.arena_target_bytes,
        choices=_tuned(backend, isa),
    )  # fmt: skip


def write_for(
    program: Program,
    folder: Path,
    backend: str,
    threads: int = 1,
    isa: str = "native",
    origin: dict[str, Any] | None = None,
) -> Path:
    """Its C sources in `folder`."""
    if backend == "c99":
        from trainlet.backends.c99 import write_sources

        return write_sources(program, folder, origin)
    from trainlet.backends.cpu import write_program

    return write_program(program, folder, threads, isa, origin, _tuned(backend, isa))


def _load(folder: Path) -> Any:
    from trainlet.runtime.host import HostProgram

    return HostProgram(folder)
