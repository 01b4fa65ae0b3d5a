"""Exporters of float arithmetic, pools, losses, and of what moves elements."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from trainlet.errors import ModelError
from trainlet.frontends.layout import channels_last
from trainlet.frontends.onnx_writer import Writer, channels_first, exporter, spatial_ones
from trainlet.ir.graph import Node, Value
from trainlet.ir.ops.convolution import overlay, round_master


def operand(node: Node, index: int) -> Value:
    """Operand `index`, which must be present."""
    value = node.input(index)
    assert value is not None
    return value


def overlaid(writer: Writer, node: Node, trained: int, integer: bool = False) -> np.ndarray:
    """The weight (O, *K, I), operand 1, that the node reads: overlay applied, master rounded."""
    base = round_master(_known(writer, node, operand(node, 1)), integer)
    patch, channels = node.input(trained), node.input(trained + 1)
    over = round_master(None if patch is None else _known(writer, node, patch), integer)
    which = None if channels is None else _known(writer, node, channels)
    assert base is not None
    return overlay(base, over, which, int(node.attrs.get("groups", 1)))  # type: ignore[arg-type]


def weight(writer: Writer, node: Node, trained: int) -> str:
    """The float weight, operand 1, as (O, I, *K)."""
    w = operand(node, 1)
    if node.input(trained) is None:
        return writer.first(w)
    full = overlaid(writer, node, trained).astype(np.float32)
    return writer.initializer(w.name, full.transpose(channels_first(full.ndim)))


def _known(writer: Writer, node: Node, value: Value) -> np.ndarray:
    if value.name not in writer.arrays:
        raise ModelError(f"{node.source or node.op}: {value.name} is computed; ONNX export wants a constant")
    return writer.arrays[value.name]


def conv_attrs(node: Node, rank: int) -> dict[str, Any]:
    """ONNX attributes of a convolution with `rank` spatial dimensions."""
    get = node.attrs.get
    return {
        "strides": get("strides") or (1,) * rank,
        "pads": get("pads") or (0,) * (2 * rank),
        "dilations": get("dilations") or (1,) * rank,
        "group": get("groups", 1),
    }


def _clipped(writer: Writer, node: Node, name: str) -> str:
    """Tensor `name` within the node's bounds lo and hi."""
    lo, hi, y = float(node.attrs["lo"]), float(node.attrs["hi"]), node.output.name  # type: ignore[arg-type]
    if (lo, hi) == (-math.inf, math.inf):
        return name
    if (lo, hi) == (0.0, math.inf):
        return writer.add("Relu", [name], y)
    low = "" if lo == -math.inf else writer.number("lo", lo)
    high = "" if hi == math.inf else writer.number("hi", hi)
    return writer.add("Clip", [name, low, high] if high else [name, low], y)


@exporter("Conv", "Gemm")
def conv(writer: Writer, node: Node) -> None:
    """Conv channels first, or Gemm, or MatMul and Add where the operand is not a matrix; then the clamp."""
    x, w, b = operand(node, 0), operand(node, 1), node.input(2)
    rank = len(w.shape) - 2
    inputs = [writer.first(x) if rank else writer.plain(x), weight(writer, node, 3)]
    bias = [] if b is None else [writer.plain(b)]
    clamped = (node.attrs["lo"], node.attrs["hi"]) != (-math.inf, math.inf)
    y = f"{node.output.name}/linear" if clamped else node.output.name
    if rank:
        name = writer.add("Conv", [*inputs, *bias], y, **conv_attrs(node, rank))
    elif len(x.shape) == 2:
        name = writer.add("Gemm", [*inputs, *bias], y, transB=1)
    else:
        inputs[1] = writer.add("Transpose", [inputs[1]], f"{w.name}/transpose", perm=(1, 0))
        name = writer.add("MatMul", inputs, f"{y}/product" if bias else y)
        name = writer.add("Add", [name, *bias], y) if bias else name
    writer.define(node.output, _clipped(writer, node, name), bool(rank))


@exporter("MatMul")
def matmul(writer: Writer, node: Node) -> None:
    """MatMul; a transposed operand gets a Transpose."""
    names = []
    for index, flag in ((0, "trans_a"), (1, "trans_b")):
        value = operand(node, index)
        name, rank = writer.plain(value), len(value.shape)
        if node.attrs[flag]:
            perm = (*range(rank - 2), rank - 1, rank - 2)
            name = writer.add("Transpose", [name], f"{value.name}/transpose", perm=perm)
        names.append(name)
    writer.define(node.output, writer.add("MatMul", names, node.output.name))


@exporter("Add", "Sub", "Mul")
def binary(writer: Writer, node: Node) -> None:
    """The operator of the same name, operands in one layout."""
    values = [operand(node, 0), operand(node, 1)]
    names, first = writer.together(values, len(node.output.shape))
    writer.define(node.output, writer.add(node.op, names, node.output.name), first)


@exporter("Sigmoid", "Tanh", "HardSwish", "HardSigmoid")
def unary(writer: Writer, node: Node) -> None:
    """The operator of the same name, in whichever layout the operand is."""
    name, first = writer.any(operand(node, 0))
    writer.define(node.output, writer.add(node.op, [name], node.output.name, **node.attrs), first)


@exporter("Clip")
def clip(writer: Writer, node: Node) -> None:
    """Relu, Clip, or nothing."""
    name, first = writer.any(operand(node, 0))
    writer.define(node.output, _clipped(writer, node, name), first)


@exporter("Scale")
def scale(writer: Writer, node: Node) -> None:
    """Mul by a scalar."""
    name, first = writer.any(operand(node, 0))
    factor = writer.number(f"{node.output.name}/factor", float(node.attrs["factor"]))  # type: ignore[arg-type]
    writer.define(node.output, writer.add("Mul", [name, factor], node.output.name), first)


@exporter("Softmax")
def softmax(writer: Writer, node: Node) -> None:
    """Over the channels."""
    name, first = writer.any(operand(node, 0))
    name = writer.add("Softmax", [name], node.output.name, axis=1 if first else -1)
    writer.define(node.output, name, first)


def pool_attrs(node: Node) -> dict[str, Any]:
    """ONNX attributes of a pool with a kernel."""
    kernel: tuple[int, ...] = node.attrs["kernel"]  # type: ignore[assignment]
    attrs = conv_attrs(node, len(kernel))
    return {"kernel_shape": kernel, "strides": attrs["strides"], "pads": attrs["pads"]}


@exporter("AveragePool")
def average_pool(writer: Writer, node: Node) -> None:
    """AveragePool or GlobalAveragePool; int8 has its own arithmetic."""
    x, y = operand(node, 0), node.output.name
    if x.dtype == "s8":
        from trainlet.frontends.onnx_export_int8 import average_pool_s8

        name = average_pool_s8(writer, node)
    elif node.attrs["kernel"]:
        include = int(bool(node.attrs["count_include_pad"]))
        name = writer.add("AveragePool", [writer.first(x)], y, count_include_pad=include, **pool_attrs(node))
    else:
        name = writer.add("GlobalAveragePool", [writer.first(x)], y)
    writer.define(node.output, name, True)


@exporter("MaxPool")
def max_pool(writer: Writer, node: Node) -> None:
    """MaxPool, float or int8; a global one is one window."""
    x = operand(node, 0)
    attrs = pool_attrs(node) if node.attrs["kernel"] else {"kernel_shape": x.shape[1:-1]}
    writer.define(node.output, writer.add("MaxPool", [writer.first(x)], node.output.name, **attrs), True)


@exporter("Reshape")
def reshape(writer: Writer, node: Node) -> None:
    """Of the plain form; where both forms store the same, of the one that is there."""
    x = operand(node, 0)
    name = writer.any(x)[0] if spatial_ones(x.shape) else writer.plain(x)
    target = writer.ints(f"{node.output.name}/shape", node.output.shape)
    writer.define(node.output, writer.add("Reshape", [name, target], node.output.name))


@exporter("Transpose")
def transpose(writer: Writer, node: Node) -> None:
    """One Transpose from the form that is there."""
    x = operand(node, 0)
    perm: tuple[int, ...] = node.attrs["perm"]  # type: ignore[assignment]
    name, first = writer.any(x)
    if first:
        perm = tuple(channels_last(len(perm))[p] for p in perm)
    if perm != tuple(range(len(perm))):
        name = writer.add("Transpose", [name], node.output.name, perm=perm)
    writer.define(node.output, name)


def _placed_axes(rank: int, first: bool) -> list[int]:
    """Where each of our dimensions is in the ONNX tensor."""
    return list(channels_last(rank)) if first else list(range(rank))


@exporter("Concat")
def concat(writer: Writer, node: Node) -> None:
    """Along the same dimension, in one layout."""
    rank = len(node.output.shape)
    names, first = writer.together(list(node.operands()), rank)
    axis = _placed_axes(rank, first)[int(node.attrs["axis"])]  # type: ignore[arg-type]
    writer.define(node.output, writer.add("Concat", names, node.output.name, axis=axis), first)


@exporter("Pad")
def pad(writer: Writer, node: Node) -> None:
    """With a constant of the operand's type."""
    x, y, rank = operand(node, 0), node.output.name, len(node.output.shape)
    name, first = writer.any(x)
    pads: tuple[int, ...] = node.attrs["pads"]  # type: ignore[assignment]
    order = channels_first(rank) if first else tuple(range(rank))
    widths = writer.ints(f"{y}/pads", [pads[i + side] for side in (0, rank) for i in order])
    kind = np.int8 if x.dtype == "s8" else np.float32
    value = writer.number(f"{y}/value", float(node.attrs["value"]), kind)  # type: ignore[arg-type]
    writer.define(node.output, writer.add("Pad", [name, widths, value], y), first)


@exporter("Slice")
def slice_(writer: Writer, node: Node) -> None:
    """The block from `starts` on."""
    x, y = operand(node, 0), node.output.name
    name, first = writer.any(x)
    starts: tuple[int, ...] = node.attrs["starts"]  # type: ignore[assignment]
    sizes: tuple[int, ...] = node.attrs["sizes"]  # type: ignore[assignment]
    ends = [a + b for a, b in zip(starts, sizes, strict=True)]
    axes = writer.ints(f"{y}/axes", _placed_axes(len(starts), first))
    bounds = [writer.ints(f"{y}/starts", starts), writer.ints(f"{y}/ends", ends), axes]
    writer.define(node.output, writer.add("Slice", [name, *bounds], y), first)


@exporter("ReduceSum")
def reduce_sum(writer: Writer, node: Node) -> None:
    """Over what the result's shape does not have, then to that shape."""
    x, y = operand(node, 0), node.output
    wide = (1,) * (len(x.shape) - len(y.shape)) + y.shape
    summed = [i for i, (a, b) in enumerate(zip(wide, x.shape, strict=True)) if a != b]
    axes = writer.ints(f"{y.name}/axes", summed)
    flag = {"keepdims": 1, "noop_with_empty_axes": 1}
    name = writer.add("ReduceSum", [writer.plain(x), axes], f"{y.name}/sum", **flag)
    shape = writer.ints(f"{y.name}/shape", y.shape)
    writer.define(y, writer.add("Reshape", [name, shape], y.name))


@exporter("TakeChannels")
def take_channels(writer: Writer, node: Node) -> None:
    """Gather along the channels."""
    x, channels = operand(node, 0), operand(node, 1)
    which = writer.ints(channels.name, _known(writer, node, channels).tolist())
    name = writer.add("Gather", [writer.plain(x), which], node.output.name, axis=len(x.shape) - 1)
    writer.define(node.output, name)


@exporter("SoftmaxCrossEntropy")
def softmax_cross_entropy(writer: Writer, node: Node) -> None:
    """-mean(log_softmax(z)[label])."""
    z, label, y = operand(node, 0), operand(node, 1), node.output.name
    log = writer.add("LogSoftmax", [writer.plain(z)], f"{y}/log", axis=1)
    index = writer.add("Unsqueeze", [writer.plain(label), writer.ints("axis_1", [1])], f"{y}/label")
    each = writer.add("GatherElements", [log, index], f"{y}/each", axis=1)
    _mean(writer, node, writer.add("Neg", [each], f"{y}/loss"))


def _mean(writer: Writer, node: Node, each: str) -> None:
    y = node.output.name
    mean = writer.add("ReduceMean", [each], f"{y}/mean", keepdims=0)
    writer.define(node.output, writer.add("Reshape", [mean, writer.ints("shape_1", [1])], y))


@exporter("SigmoidCrossEntropy")
def sigmoid_cross_entropy(writer: Writer, node: Node) -> None:
    """mean over N of sum over K of softplus(z) - z t."""
    z, t, y = operand(node, 0), operand(node, 1), node.output.name
    soft = writer.add("Softplus", [writer.plain(z)], f"{y}/softplus")
    product = writer.add("Mul", [writer.plain(z), writer.plain(t)], f"{y}/product")
    each = writer.add("Sub", [soft, product], f"{y}/each")
    wide = writer.add("Reshape", [each, writer.ints(f"{y}/rows", [z.shape[0], -1])], f"{y}/wide")
    _mean(writer, node, writer.add("ReduceSum", [wide, writer.ints("axis_1", [1])], f"{y}/sums"))


@exporter("MeanSquaredError")
def mean_squared_error(writer: Writer, node: Node) -> None:
    """mean of (y - target)^2."""
    y = node.output.name
    names = [writer.plain(operand(node, 0)), writer.plain(operand(node, 1))]
    difference = writer.add("Sub", names, f"{y}/difference")
    _mean(writer, node, writer.add("Mul", [difference, difference], f"{y}/square"))
