"""ONNX file -> inference Graph: one input, one output, channels last, weights under the user's names."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from trainlet.frontends.build_graph import build_graph
from trainlet.frontends.network import Layer
from trainlet.frontends.onnx_model import read_model
from trainlet.ir.graph import Graph, Shape


@dataclass(frozen=True)
class OnnxOrigin:
    """How the graph's input and output look in the user's model: names, shapes, and which of the user's
    dimensions each of ours is (ours[i] = user's[perm[i]])."""

    file: str
    input: str
    input_shape: Shape
    input_perm: tuple[int, ...]
    output: str
    output_shape: Shape
    output_perm: tuple[int, ...]


def load_onnx(path: str | Path, *, batch: int = 1, output: str | None = None, norm: str = "folded") -> Graph:
    """The float network in an ONNX file (opset 11 and newer).

    The input (N, C, *S) of a convolutional network becomes (N, *S, C), weights (O, C, *K) become (O, *K, C);
    both keep their names. An open batch size becomes `batch`; `output` chooses among several outputs.
    norm: "folded", or "batch": BatchNormalization stays and is trained with batch statistics.
    Raises ModelError: damaged file, open sizes, NaN in weights, or all unsupported layers at once.
    """
    return load_onnx_with_origin(path, batch=batch, output=output, norm=norm)[0]


def load_onnx_with_origin(
    path: str | Path, *, batch: int = 1, output: str | None = None, norm: str = "folded"
) -> tuple[Graph, OnnxOrigin]:
    """`load_onnx`, and what `export_onnx` needs to give the network its own input and output back."""
    model = read_model(path, batch, output)
    if norm == "batch":
        model = replace(model, layers=tuple(map(_with_statistics, model.layers)))
    built = build_graph(model, Path(model.file).stem)
    origin = OnnxOrigin(
        model.file, model.input, model.input_shape, built.input_perm,
        model.output, built.output_shape, built.output_perm,
    )  # fmt: skip
    return built.graph, origin


def _with_statistics(layer: Layer) -> Layer:
    """A BatchNormalization that keeps its statistics; ONNX's momentum is the share of the old ones."""
    if layer.op != "BatchNormalization":
        return layer
    momentum = 1 - float(layer.attrs.get("momentum", 0.9))
    epsilon = float(layer.attrs.get("epsilon", 1e-5))
    return replace(layer, attrs={**layer.attrs, "batch": True, "momentum": momentum, "epsilon": epsilon})
