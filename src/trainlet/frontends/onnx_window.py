"""Importers of convolutions, pools and matrix products, and what is folded into their weights."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from trainlet.frontends.importing import Const, Import, Unsupported, importer
from trainlet.frontends.layout import (
    Placed,
    canonical,
    channels_last,
    flat_index,
    order_of,
    permutation,
    rows_and_columns,
)
from trainlet.frontends.network import Layer
from trainlet.frontends.stored import Norm, StoredLayer
from trainlet.ir.graph import Attr, Attrs, Shape, Value


@dataclass(frozen=True)
class Affine:
    """Weight (O, ...) and bias (O) of a layer, and the tensor it defines once later layers are folded in.

    weight_of, bias_of: the model's tensors behind them, None where there is none; norms: what was folded in.
    """

    weight: Const
    bias: Const | None
    output: str
    weight_of: str | None = None
    bias_of: str | None = None
    norms: tuple[Norm, ...] = ()


@importer("Conv")
def conv(ctx: Import, layer: Layer) -> None:
    """x (N, C, *S), w (O, C/groups, *K), b (O)? -> (N, O, *S')."""
    x, w = ctx.placed(layer, 0), ctx.array(layer, 1, "weight")
    rank = w.data.ndim - 2
    _check_rank(rank, "convolution")
    b = ctx.array(layer, 2, "bias") if layer.input(2) else None
    affine = absorb(ctx, Affine(w, b, layer.output, _given(ctx, w), _given(ctx, b)), rank + 2, 1)
    kernel = affine.weight.shape[2:]
    shape = geometry(layer, x.shape[2:], kernel)
    if outer := ctx.absorbed_pads.get(layer.inputs[0]):
        shape["pads"] = tuple(a + b for a, b in zip(shape["pads"], outer, strict=True))
    attrs: dict[str, Attr] = {**shape, "groups": int(layer.attrs.get("group", 1))}
    perm = channels_last(rank + 2)
    weight, bias = ctx.constant(w.name, affine.weight.data.transpose(perm)), _bias(ctx, affine)
    _note(ctx, affine, weight, bias, perm)
    operands = [ctx.arrange(x, perm), weight, bias]
    define_channels_last(ctx, affine.output, ctx.emit("Conv", operands, attrs, affine.output))


def define_channels_last(ctx: Import, name: str, value: Value) -> None:
    """ONNX tensor `name` (N, C, *S) is `value` (N, *S, C)."""
    n, *spatial, c = value.shape
    ctx.define(name, value, (n, c, *spatial), channels_last(len(value.shape)))


def _bias(ctx: Import, affine: Affine) -> Value | None:
    return None if affine.bias is None else ctx.constant(affine.bias.name, affine.bias.data)


def _given(ctx: Import, const: Const | None) -> str | None:
    return const.name if const is not None and ctx.is_given(const) else None


def _note(
    ctx: Import,
    affine: Affine,
    weight: Value,
    bias: Value | None,
    perm: tuple[int, ...],
    columns: np.ndarray | None = None,
) -> None:
    """Remember how the layer's constants came about (stored.py)."""
    name = bias.name if bias is not None else None
    ctx.stored.append(
        StoredLayer(weight.name, affine.weight_of, perm, columns, name, affine.bias_of, affine.norms)
    )


def _check_rank(rank: int, what: str) -> None:
    if rank not in (1, 2):
        raise Unsupported(f"is a {rank}-D {what}; trainlet has 1-D and 2-D ones")


def geometry(layer: Layer, spatial: Shape, kernel: Shape) -> dict[str, tuple[int, ...]]:
    """strides, pads (all begins, all ends) and dilations, with auto_pad resolved."""
    rank, attrs = len(kernel), layer.attrs
    stride = tuple(attrs.get("strides") or (1,) * rank)
    dilation = tuple(attrs.get("dilations") or (1,) * rank)
    mode = attrs.get("auto_pad", "NOTSET")
    if mode.startswith("SAME"):
        total = [
            max((math.ceil(n / s) - 1) * s + (k - 1) * d + 1 - n, 0)
            for n, k, s, d in zip(spatial, kernel, stride, dilation, strict=True)
        ]
        begin = tuple(t // 2 if mode == "SAME_UPPER" else t - t // 2 for t in total)
        pads = (*begin, *(t - b for t, b in zip(total, begin, strict=True)))
    else:
        pads = tuple(attrs.get("pads") or (0,) * (2 * rank)) if mode == "NOTSET" else (0,) * (2 * rank)
    if min(pads) < 0:
        raise Unsupported(f"has negative pads {pads}; crop with Slice instead")
    return {"strides": stride, "pads": pads, "dilations": dilation}


def absorb(ctx: Import, affine: Affine, rank: int, channel_axis: int) -> Affine:
    """The layer with the batch normalization and the bias that follow it folded in, while nothing else
    reads what is between. `rank` and `channel_axis` are those of the layer's result in the user's layout."""
    while (reader := ctx.only_reader(affine.output)) is not None:
        folded = None
        if reader.op == "BatchNormalization" and channel_axis == 1 and not reader.attrs.get("batch"):
            folded = _fold_batch_norm(ctx, affine, reader)
        elif reader.op == "Add" and affine.bias is None:
            folded = _fold_add(ctx, affine, reader, rank, channel_axis)
        if folded is None:
            break
        ctx.skipped.add(reader)
        affine = folded
    return affine


def batch_norm_affine(ctx: Import, layer: Layer) -> tuple[np.ndarray, np.ndarray, str, str]:
    """(factor, offset) float64 (C) of y = x * factor + offset, and the user's names for both.

    Raises Unsupported for batch statistics: an exported network should use its running ones.
    """
    if layer.attrs.get("training_mode", 0) or any(ctx.reads(name) for name in layer.outputs[1:]):
        raise Unsupported("normalizes with batch statistics; export the model in evaluation mode")
    what = ("", "scale", "bias", "mean", "variance")
    consts = [ctx.array(layer, i, what[i]) for i in range(1, 5)]
    gamma, beta, mean, var = (c.data.astype(np.float64) for c in consts)
    factor = gamma / np.sqrt(var + float(layer.attrs.get("epsilon", 1e-5)))
    return factor, beta - mean * factor, consts[0].name, consts[1].name


def _fold_batch_norm(ctx: Import, affine: Affine, layer: Layer) -> Affine | None:
    if any(not isinstance(ctx.known.get(name), Const) for name in layer.inputs[1:5]):
        return None
    factor, offset, _, beta = batch_norm_affine(ctx, layer)
    w = affine.weight.data * factor.reshape(-1, *(1,) * (affine.weight.data.ndim - 1))
    old = 0.0 if affine.bias is None else affine.bias.data.astype(np.float64)
    bias = Const(affine.bias.name if affine.bias else beta, (old * factor + offset).astype(np.float32))
    gamma, _, mean, variance = layer.inputs[1:5]
    norm = Norm(gamma, beta, mean, variance, float(layer.attrs.get("epsilon", 1e-5)))
    weight = replace(affine.weight, data=w.astype(np.float32))
    return replace(affine, weight=weight, bias=bias, output=layer.output, norms=(*affine.norms, norm))


def _fold_add(ctx: Import, affine: Affine, layer: Layer, rank: int, channel_axis: int) -> Affine | None:
    """y + b, where b has one element per channel, is a bias."""
    other = [name for name in layer.inputs if name != affine.output]
    b = ctx.known.get(other[0]) if len(other) == 1 else None
    channels = affine.weight.shape[0]
    wanted = tuple(channels if i == channel_axis else 1 for i in range(rank))
    if not isinstance(b, Const) or len(b.shape) > rank:
        return None
    if (1,) * (rank - len(b.shape)) + b.shape != wanted:
        return None
    bias = Const(b.name, b.data.reshape(channels))
    return replace(affine, bias=bias, output=layer.output, bias_of=_given(ctx, b))


@importer("Gemm")
def gemm(ctx: Import, layer: Layer) -> None:
    """alpha * a b + beta * c with a (M, K), b (K, O), each optionally transposed."""
    a, attrs = ctx.placed(layer, 0), layer.attrs
    weight = ctx.array(layer, 1, "weight")
    if attrs.get("transA", 0):
        value = ctx.arrange(a, (1, 0))
        a = Placed(value, value.shape, order_of(value.shape))
    w = weight.data if attrs.get("transB", 0) else weight.data.T
    w = w * np.float32(attrs.get("alpha", 1.0))
    bias = _gemm_bias(ctx, layer, a.shape[0], w.shape[0])
    plain = attrs.get("alpha", 1.0) == attrs.get("beta", 1.0) == 1.0
    weight_of = _given(ctx, weight) if plain else None
    bias_of = (
        layer.input(2) if plain and bias is not None and bias.shape == ctx.known[bias.name].shape else None
    )
    perm = (0, 1) if attrs.get("transB", 0) else (1, 0)
    linear(ctx, a, Affine(Const(weight.name, w), bias, layer.output, weight_of, bias_of), perm)


def _gemm_bias(ctx: Import, layer: Layer, rows: int, channels: int) -> Const | None:
    if not layer.input(2):
        return None
    c = ctx.array(layer, 2, "bias")
    if c.data.size not in (1, channels) or (c.data.ndim == 2 and c.shape[0] not in (1,)):
        raise Unsupported(f"adds a matrix {c.shape} to {rows} x {channels} outputs; use one bias an output")
    data = np.broadcast_to(c.data.reshape(-1), (channels,)) * np.float32(layer.attrs.get("beta", 1.0))
    return Const(c.name, data)


@importer("Linear")
def dense(ctx: Import, layer: Layer) -> None:
    """x (..., I) times w (O, I), plus b (O)?: PyTorch's, which ONNX says in several operators."""
    w = ctx.array(layer, 1, "weight")
    b = ctx.array(layer, 2, "bias") if layer.input(2) else None
    affine = Affine(w, b, layer.output, _given(ctx, w), _given(ctx, b))
    linear(ctx, ctx.placed(layer, 0), affine, (0, 1))


@importer("MatMul")
def matmul(ctx: Import, layer: Layer) -> None:
    """a (..., M, K) times b (..., K, N): a Gemm where b is a known matrix, else a MatMul."""
    a, b = ctx.operand(layer, 0), ctx.operand(layer, 1)
    if isinstance(a, Placed) and isinstance(b, Const) and b.data.ndim == 2 and len(a.shape) >= 2:
        return linear(ctx, a, Affine(Const(b.name, b.data.T), None, layer.output, _given(ctx, b)), (1, 0))
    a, b = ctx.placed(layer, 0), ctx.placed(layer, 1)
    if min(len(a.shape), len(b.shape)) < 2 or a.shape[:-2] != b.shape[:-2]:
        raise Unsupported(f"multiplies {a.shape} by {b.shape}; trainlet wants equal batch dimensions")
    (left, trans_a), (right, trans_b) = _matrix(ctx, a), _matrix(ctx, b)
    value = ctx.emit("MatMul", [left, right], {"trans_a": trans_a, "trans_b": trans_b}, layer.output)
    return ctx.define(layer.output, value, value.shape)


def _matrix(ctx: Import, x: Placed) -> tuple[Value, bool]:
    """x ready for MatMul, and whether it is stored transposed (which costs nothing): as it is where it lies
    right either way, else so that its fastest dimension stays the fastest."""
    plain = tuple(range(len(x.shape)))
    swapped = (*plain[:-2], plain[-1], plain[-2])
    if x.order == order_of(x.shape):
        return ctx.arrange(x, plain), False
    now = permutation(x.order, x.shape)
    turned = x.order == order_of(x.shape, swapped) or (now is not None and now[-1] == plain[-2])
    return ctx.arrange(x, swapped if turned else plain), turned


def linear(ctx: Import, x: Placed, affine: Affine, perm: tuple[int, ...]) -> None:
    """x (..., I) times weight (O, I). Where x's columns are stored in another order (a Flatten of
    channels-last activations), the weight's columns are reordered instead, once, here.

    perm: the weight is this transpose of the model's tensor.
    """
    rank, width = len(x.shape), x.shape[-1]
    if affine.weight.shape[1] != width:
        raise Unsupported(f"takes {affine.weight.shape[1]} inputs, it is given {width}")
    affine = absorb(ctx, affine, rank, rank - 1)
    parts = rows_and_columns(x.order, width)
    if parts is None:
        value = ctx.arrange(x, range(rank))
        x = Placed(value, x.shape, order_of(x.shape))
        parts = rows_and_columns(x.order, width)
        assert parts is not None
    rows = canonical((size, stride // width) for size, stride in parts[0])
    lead, outputs = x.shape[:-1], affine.weight.shape[0]
    value = ctx.reshaped(x.value, (*(lead if rows == order_of(lead) else (math.prod(lead),)), width))
    index = flat_index(parts[1])
    columns = None if np.array_equal(index, np.arange(width)) else index
    data = affine.weight.data if columns is None else affine.weight.data[:, columns]
    weight, bias = ctx.constant(affine.weight.name, data), _bias(ctx, affine)
    _note(ctx, affine, weight, bias, perm, columns)
    value = ctx.emit("Gemm", [value, weight, bias], name=affine.output)
    order = canonical([*((size, stride * outputs) for size, stride in rows), (outputs, 1)])
    ctx.known[affine.output] = Placed(value, (*lead, outputs), order)


def _pool(ctx: Import, layer: Layer, op: str, extra: Attrs) -> None:
    x, kernel = ctx.placed(layer, 0), tuple(layer.attrs["kernel_shape"])
    rank = len(kernel)
    _check_rank(rank, "pool")
    if any(ctx.reads(name) for name in layer.outputs[1:]):
        raise Unsupported("also returns the indices of its maxima; trainlet has no use for them")
    attrs = geometry(layer, x.shape[2:], kernel)
    if set(dilations := attrs.pop("dilations")) != {1}:
        raise Unsupported(f"is a pool with dilations {dilations}; use 1")
    if layer.attrs.get("ceil_mode", 0) and not _same_when_floored(x.shape[2:], kernel, attrs):
        raise Unsupported("rounds its output size up (ceil_mode=1); pad the input instead, with ceil_mode=0")
    value = ctx.arrange(x, channels_last(rank + 2))
    value = ctx.emit(op, [value], {"kernel": kernel, **attrs, **extra}, layer.output)
    define_channels_last(ctx, layer.output, value)


def _same_when_floored(spatial: Shape, kernel: Shape, attrs: dict[str, tuple[int, ...]]) -> bool:
    pads, strides, rank = attrs["pads"], attrs["strides"], len(kernel)
    return all((n + pads[i] + pads[rank + i] - kernel[i]) % strides[i] == 0 for i, n in enumerate(spatial))


@importer("MaxPool")
def max_pool(ctx: Import, layer: Layer) -> None:
    """x (N, C, *S) -> largest element of each window."""
    _pool(ctx, layer, "MaxPool", {})


@importer("AveragePool")
def average_pool(ctx: Import, layer: Layer) -> None:
    """x (N, C, *S) -> mean of each window."""
    _pool(ctx, layer, "AveragePool", {"count_include_pad": bool(layer.attrs.get("count_include_pad", 0))})


@importer("GlobalAveragePool", "GlobalMaxPool")
def global_pool(ctx: Import, layer: Layer) -> None:
    """x (N, C, *S) -> (N, C, 1..)."""
    x = ctx.placed(layer, 0)
    _check_rank(len(x.shape) - 2, "pool")
    value = ctx.arrange(x, channels_last(len(x.shape)))
    op = layer.op.removeprefix("Global")
    define_channels_last(ctx, layer.output, ctx.emit(op, [value], {"kernel": ()}, layer.output))
