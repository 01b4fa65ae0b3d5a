"""compile, export, quantize: commands that write programs and networks."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from trainlet import api
from trainlet.cli import options as o
from trainlet.errors import GraphError
from trainlet.ir import Graph
from trainlet.package import FORMATS
from trainlet.passes import PASSES
from trainlet.standalone.build import TARGETS

Package = StrEnum("Package", {name: name for name in FORMATS})  # type: ignore[misc]
PLAIN = Package("c")
Goal = StrEnum("Goal", {name: name for name in TARGETS})  # type: ignore[misc]


def compile_(
    model: o.Model,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the C sources.")],
    scheme: o.Scheme = "head",
    batch: o.Batch = 1,
    accumulate: o.Accumulate = 1,
    master: o.MasterOption = o.MASTER,
    optimizer: o.RuleOption = o.RULE,
    loss: o.LossOption = o.LOSS,
    classes: o.Classes = None,
    budget: o.Budget = None,
    seed: o.Seed = 0,
    input: o.InputOption = o.INPUT,  # noqa: A002  (the option's name)
    board: Annotated[
        str | None, typer.Option(help="Its kernels, and its memories as the budget: a name, or a .toml file.")
    ] = None,
    form: Annotated[
        Package, typer.Option("--format", help="What the folder drops into: plain C, or a build system.")
    ] = PLAIN,
    target: Annotated[
        Goal | None,
        typer.Option(help="Also build a library and a command line program, for this machine or another."),
    ] = None,
    threads: Annotated[int, typer.Option(min=1, max=64, help="Of a program built with --target.")] = 1,
    portable: Annotated[
        bool, typer.Option("--portable", help="With --target: kernels with the same bits on all processors.")
    ] = False,
    emit_after: Annotated[
        str | None, typer.Option(metavar="PASS", help="Print the IR of every function after this pass.")
    ] = None,
) -> None:
    """Compile a network and a scheme to a training program in C."""
    if emit_after is not None and emit_after not in PASSES:
        raise GraphError(f"no pass {emit_after!r}: there are {', '.join(PASSES)}")
    settings = api.Settings(
        scheme=scheme, master=master, optimizer=optimizer, batch=batch, accumulate=accumulate > 1, loss=loss,
        classes=classes, seed=seed, budget_bytes=budget, input=input.value,
    )  # fmt: skip

    if target is not None:
        _standalone(model, settings, output, target, threads, portable)
        return
    settings, choice = api.within_budget(model, settings, for_board=board is not None)
    if choice is not None:
        print(f"within the budget: {choice.text}", file=sys.stderr)

    def watch(name: str, graph: Graph) -> None:
        if name == emit_after:
            from trainlet.ir.text import print_graph

            print(print_graph(graph))

    folder = api.emit(model, settings, output, watch, board, form)
    # With --emit-after stdout is IR text that `trainlet opt` reads.
    print(f"wrote {folder}", file=sys.stdout if emit_after is None else sys.stderr)


def _standalone(
    model: str, settings: api.Settings, output: Path, target: str, threads: int, portable: bool
) -> None:
    from trainlet.standalone import compile_standalone

    program, choice = compile_standalone(
        model, settings, output, target, threads, backend="c99" if portable else None
    )
    if choice is not None:
        print(f"within the budget: {choice.text}")
    print(f"wrote {program}, {program.parent / f'lib{program.stem}.a'} and {program.stem}.h beside it")


def pack(
    model: o.Model,
    data: o.Data,
    output: Annotated[Path, typer.Option("--output", "-o", help="The file to write.")],
    classes: o.Classes = None,
) -> None:
    """Write a data set as the file that a program of `compile --target` reads."""
    from trainlet.standalone import write_dataset

    samples = api.load_dataset(api.load(model), data, None, classes)
    print(f"wrote {write_dataset(samples, output)}: {len(samples.x_train)} + {len(samples.x_test)} samples")


class Form(StrEnum):
    """What `export` writes."""

    onnx = "onnx"
    safetensors = "safetensors"


def export(
    model: o.Model,
    output: Annotated[Path, typer.Option("--output", "-o", help="The file to write.")],
    checkpoint: Annotated[
        Path | None, typer.Option(help="What `train` saved; without it the network is written as it came.")
    ] = None,
    to: Annotated[Form, typer.Option(help="The adapted network, or its parameters.")] = Form.onnx,
) -> None:
    """Write the adapted network as ONNX, or its parameters as safetensors."""
    print(f"wrote {api.export(model, checkpoint, output, to)}")


class Method(StrEnum):
    """How `quantize` finds the range of an activation."""

    minmax = "minmax"
    percentile = "percentile"


class Head(StrEnum):
    """What `quantize` makes of the last layer."""

    fp32 = "fp32"
    int8 = "int8"


class Norm(StrEnum):
    """What happens to BatchNormalization."""

    folded = "folded"
    batch = "batch"


def convert(
    model: o.Model,
    output: Annotated[Path, typer.Option("--output", "-o", help="FILE.tl; FILE.npz goes beside it.")],
    norm: Annotated[
        Norm, typer.Option(help="BatchNormalization: folded and frozen, or trained on batches.")
    ] = Norm.folded,
) -> None:
    """Write a network as it is imported, as IR text."""
    graph = api.convert(model, output, norm.value)
    text = str(output).removesuffix(".tl")
    print(f"wrote {text}.tl and {text}.npz: {graph.name}, {len(graph.nodes)} nodes")


def quantize(
    model: o.Model,
    data: o.Data,
    output: Annotated[Path, typer.Option("--output", "-o", help="FILE.tl; FILE.npz goes beside it.")],
    method: Annotated[
        Method, typer.Option(help="Range of an activation: its extremes, or 99.99%.")
    ] = Method.minmax,
    head: Annotated[Head, typer.Option(help="The last layer in float, or int8 too.")] = Head.fp32,
    samples: Annotated[int, typer.Option(min=4, help="Training samples to calibrate with.")] = 256,
) -> None:
    """Turn a float network into an int8 one, calibrated on training samples."""
    graph = api.quantize(model, data, output, method, head, samples)
    text = str(output).removesuffix(".tl")
    print(f"wrote {text}.tl and {text}.npz: {graph.name}, {len(graph.nodes)} nodes")
