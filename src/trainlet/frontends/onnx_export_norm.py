"""Exporters of normalizations, of functions that opset 17 lacks, and of repetition."""

from __future__ import annotations

import math

import numpy as np

from trainlet.frontends.onnx_export_float import operand
from trainlet.frontends.onnx_writer import Writer, channels_first, exporter
from trainlet.ir.graph import Node, Value
from trainlet.ir.ops.elementwise import TANH_FACTOR


def _by_channel(writer: Writer, node: Node, value: Value | None, wanted: str, fill: float) -> str:
    """One number a channel: the operand, or `fill` where it is absent."""
    if value is not None:
        return writer.plain(value)
    channels = operand(node, 0).shape[-1]
    return writer.initializer(f"{node.output.name}/{wanted}", np.full(channels, fill, np.float32))


@exporter("LayerNormalization")
def layer_norm(writer: Writer, node: Node) -> None:
    """Over the last dimension."""
    gamma = _by_channel(writer, node, node.input(1), "scale", 1.0)
    beta = _by_channel(writer, node, node.input(2), "bias", 0.0)
    operands, eps = [writer.plain(operand(node, 0)), gamma, beta], float(node.attrs["eps"])  # type: ignore[arg-type]
    name = writer.add("LayerNormalization", operands, node.output.name, axis=-1, epsilon=eps)
    writer.define(node.output, name)


@exporter("BatchNormalization")
def batch_norm(writer: Writer, node: Node) -> None:
    """With running statistics. ONNX's momentum is the share of the old ones."""
    gamma = _by_channel(writer, node, node.input(1), "scale", 1.0)
    beta = _by_channel(writer, node, node.input(2), "bias", 0.0)
    statistics = [writer.plain(operand(node, i)) for i in (3, 4)]
    operands = [writer.first(operand(node, 0)), gamma, beta, *statistics]
    attrs = {"epsilon": float(node.attrs["eps"]), "momentum": 1 - float(node.attrs["momentum"])}  # type: ignore[arg-type]
    name = writer.add("BatchNormalization", operands, node.output.name, **attrs)
    writer.define(node.output, name, len(node.output.shape) > 2)


@exporter("Erf")
def erf(writer: Writer, node: Node) -> None:
    """The operator of the same name."""
    name, first = writer.any(operand(node, 0))
    writer.define(node.output, writer.add("Erf", [name], node.output.name), first)


@exporter("Silu")
def silu(writer: Writer, node: Node) -> None:
    """x sigmoid(x)."""
    x, first = writer.any(operand(node, 0))
    gate = writer.add("Sigmoid", [x], f"{node.output.name}/sigmoid")
    writer.define(node.output, writer.add("Mul", [x, gate], node.output.name), first)


@exporter("Gelu", "GeluTanh")
def gelu(writer: Writer, node: Node) -> None:
    """x / 2 (1 + erf(x / sqrt 2)), or with tanh(sqrt(2 / pi) (x + 0.044715 x^3)) for erf."""
    y = node.output.name
    x, first = writer.any(operand(node, 0))

    def times(a: str, factor: float, what: str) -> str:
        return writer.add("Mul", [a, writer.number(f"{y}/{what}/factor", factor)], f"{y}/{what}")

    if node.op == "Gelu":
        t = writer.add("Erf", [times(x, 1 / math.sqrt(2), "inner")], f"{y}/erf")
    else:
        cube = writer.add("Mul", [x, writer.add("Mul", [x, x], f"{y}/square")], f"{y}/cube")
        inner = writer.add("Add", [x, times(cube, 0.044715, "small")], f"{y}/sum")
        t = writer.add("Tanh", [times(inner, TANH_FACTOR, "inner")], f"{y}/tanh")
    gate = writer.add("Add", [t, writer.number(f"{y}/one", 1.0)], f"{y}/gate")
    writer.define(node.output, writer.add("Mul", [times(x, 0.5, "half"), gate], y), first)


@exporter("Expand")
def expand(writer: Writer, node: Node) -> None:
    """To the result's shape, in whichever layout the operand is."""
    x, y = operand(node, 0), node.output
    name, first = (writer.plain(x), False) if len(x.shape) != len(y.shape) else writer.any(x)
    order = channels_first(len(y.shape)) if first else range(len(y.shape))
    shape = writer.ints(f"{y.name}/shape", [y.shape[i] for i in order])
    writer.define(y, writer.add("Expand", [name, shape], y.name), first)
