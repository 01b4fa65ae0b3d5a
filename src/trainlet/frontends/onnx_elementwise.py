"""Importers of arithmetic, activations, normalization and reductions."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from itertools import pairwise

import numpy as np

from trainlet.frontends.importing import Const, Import, Operand, Unsupported, importer
from trainlet.frontends.layout import (
    Placed,
    channels_last,
    finest,
    order_of,
    permutation,
    rows_and_columns,
    split,
    strides,
)
from trainlet.frontends.network import Layer
from trainlet.frontends.onnx_window import batch_norm_affine
from trainlet.ir.graph import Attrs, Shape, Value


def _unary(ctx: Import, layer: Layer, op: str, attrs: Attrs | None = None) -> None:
    """One element at a time: any layout will do, and stays."""
    x = ctx.placed(layer, 0)
    ctx.known[layer.output] = Placed(ctx.emit(op, [x.value], attrs, layer.output), x.shape, x.order)


@importer("Sigmoid", "Tanh", "HardSwish", "Erf", "Silu")
def same_name(ctx: Import, layer: Layer) -> None:
    """Operators that are ours under the same name."""
    _unary(ctx, layer, layer.op)


@importer("Gelu")
def gelu(ctx: Import, layer: Layer) -> None:
    """x times the normal distribution function, or its approximation by tanh."""
    _unary(ctx, layer, "GeluTanh" if layer.attrs.get("approximate", "none") == "tanh" else "Gelu")


@importer("HardSigmoid")
def hard_sigmoid(ctx: Import, layer: Layer) -> None:
    """clip(alpha x + beta, 0, 1)."""
    attrs = {"alpha": float(layer.attrs.get("alpha", 0.2)), "beta": float(layer.attrs.get("beta", 0.5))}
    _unary(ctx, layer, "HardSigmoid", attrs)


@importer("Relu")
def relu(ctx: Import, layer: Layer) -> None:
    """max(x, 0)."""
    _unary(ctx, layer, "Clip", {"lo": 0.0})


@importer("Clip")
def clip(ctx: Import, layer: Layer) -> None:
    """min(max(x, lo), hi); either bound may be absent."""
    bounds = {"lo": -math.inf, "hi": math.inf}
    for index, name in ((1, "lo"), (2, "hi")):
        if layer.input(index):
            bounds[name] = float(ctx.array(layer, index, "bound").data.reshape(-1)[0])
    _unary(ctx, layer, "Clip", bounds)


@importer("Neg")
def negate(ctx: Import, layer: Layer) -> None:
    """-x."""
    _unary(ctx, layer, "Scale", {"factor": -1.0})


@importer("Identity", "Dropout")
def alias(ctx: Import, layer: Layer) -> None:
    """The operand under another name."""
    if any(ctx.reads(name) for name in layer.outputs[1:]):
        raise Unsupported("returns its mask; export the model in evaluation mode")
    ctx.known[layer.output] = ctx.operand(layer, 0)


@importer("Cast")
def cast(ctx: Import, layer: Layer) -> None:
    """Between floating-point types: nothing happens, all arithmetic is float32."""
    from onnx import TensorProto as T

    if layer.attrs["to"] not in (T.FLOAT, T.FLOAT16, T.DOUBLE, T.BFLOAT16):
        raise Unsupported(f"casts to {T.DataType.Name(layer.attrs['to']).lower()}; keep activations in float")
    alias(ctx, layer)


@importer("Add", "Sub", "Mul")
def arithmetic(ctx: Import, layer: Layer) -> None:
    """a (op) b with broadcasting."""
    binary(ctx, layer.op, ctx.operand(layer, 0), ctx.operand(layer, 1), layer.output)


@importer("Div")
def divide(ctx: Import, layer: Layer) -> None:
    """a / b with a known b: a product."""
    b = ctx.array(layer, 1, "divisor")
    with np.errstate(divide="ignore"):
        inverse = Const(b.name, (1.0 / b.data.astype(np.float64)).astype(np.float32))
    binary(ctx, "Mul", ctx.operand(layer, 0), inverse, layer.output)


def binary(ctx: Import, op: str, a: Operand, b: Operand, output: str) -> None:
    """Emit `op` on two operands, at least one of which is computed, moving as few elements as possible."""
    if isinstance(a, Placed) and isinstance(b, Placed) and (a.shape, a.order) == (b.shape, b.order):
        value = ctx.emit(op, [a.value, ctx.reshaped(b.value, a.value.shape)], name=output)
        ctx.known[output] = Placed(value, a.shape, a.order)
        return
    for x, c, swap in ((a, b, False), (b, a, True)):
        known = isinstance(x, Placed) and isinstance(c, Const)
        if known and _with_constant(ctx, op, x, c, swap, output):  # type: ignore[arg-type]
            return
    shape = np.broadcast_shapes(a.shape, b.shape)
    operands = [_padded(x, len(shape)) for x in (a, b)]
    perm = common_permutation(operands, len(shape))
    left, right = (ctx.arrange(x, perm) for x in operands)
    ctx.define(output, ctx.emit(op, [left, right], name=output), shape, perm)


def _padded(x: Operand, rank: int) -> Operand:
    """x with sizes of 1 in front of its shape."""
    shape = (1,) * (rank - len(x.shape)) + x.shape
    return Const(x.name, x.data.reshape(shape)) if isinstance(x, Const) else Placed(x.value, shape, x.order)


def _with_constant(ctx: Import, op: str, x: Placed, c: Const, swap: bool, output: str) -> bool:
    """Emit x (op) c, or c (op) x where `swap`, if c does not widen x: c moves to x's layout."""
    digits = finest(x.order, x.shape)
    if np.broadcast_shapes(x.shape, c.shape) != x.shape or digits is None:
        return False
    if op == "Mul" and c.data.size == 1:
        value = ctx.emit("Scale", [x.value], {"factor": float(c.data.reshape(-1)[0])}, output)
        ctx.known[output] = Placed(value, x.shape, x.order)
        return True
    wide = c.data.reshape((1,) * (len(x.shape) - c.data.ndim) + c.shape)
    perm = permutation(x.order, x.shape)
    if perm is not None:
        value, data = ctx.arrange(x, perm), wide.transpose(perm)
    else:
        value, data = _by_digits(ctx, x, wide, digits)
    constant = ctx.constant(c.name, data)
    value = ctx.emit(op, [constant, value] if swap else [value, constant], name=output)
    ctx.known[output] = Placed(value, x.shape, x.order)
    return True


def _by_digits(
    ctx: Import, x: Placed, wide: np.ndarray, digits: tuple[tuple[tuple[int, int], ...], ...]
) -> tuple[Value, np.ndarray]:
    """x and the constant under a shape with one dimension a digit, where x's layout splits a dimension."""
    memory = split(x.order, strides(x.shape)) or ()
    by_stride = sorted(memory, key=lambda digit: -digit[1])
    perm = [by_stride.index(digit) for digit in memory]
    factors = [size if n > 1 else 1 for n, group in zip(wide.shape, digits, strict=True) for size, _ in group]
    return ctx.reshaped(x.value, tuple(size for size, _ in memory)), wide.reshape(factors).transpose(perm)


def common_permutation(operands: Iterable[Operand], rank: int) -> tuple[int, ...]:
    """The permutation of the dimensions that leaves most elements of the operands where they are."""
    tensors = [x for x in operands if isinstance(x, Placed)]
    found = [permutation(x.order, x.shape) for x in tensors]
    candidates = [channels_last(rank), tuple(range(rank)), *(p for p in found if p is not None)]

    def moved(perm: tuple[int, ...]) -> int:
        return sum(x.value.size for x in tensors if x.order != order_of(x.shape, perm))

    return min(candidates, key=moved)


def batch_norm_layer(ctx: Import, layer: Layer) -> None:
    """x * factor + offset by channel, where it could not be folded into the layer before."""
    x = ctx.placed(layer, 0)
    factor, offset, gamma, beta = batch_norm_affine(ctx, layer)
    wide = (-1, *(1,) * (len(x.shape) - 2))
    scaled = f"{layer.output}/scaled"
    binary(ctx, "Mul", x, Const(gamma, factor.reshape(wide)), scaled)
    binary(ctx, "Add", ctx.known[scaled], Const(beta, offset.reshape(wide)), layer.output)


@importer("Softmax")
def softmax(ctx: Import, layer: Layer) -> None:
    """exp(x) / sum exp(x) over one dimension; before opset 13 over `axis` and all that follow."""
    x, old = ctx.placed(layer, 0), ctx.model.opset < 13
    rank = len(x.shape)
    axis = int(layer.attrs.get("axis", 1 if old else -1)) % rank
    group = tuple(range(axis, rank)) if old else (axis,)
    width = math.prod(x.shape[i] for i in group)
    if group[-1] == rank - 1 and rows_and_columns(x.order, width) is not None:
        value, order = x.value, x.order
    else:
        now = permutation(x.order, x.shape) or tuple(range(rank))
        perm = (*(p for p in now if p not in group), *group)
        value, order = ctx.arrange(x, perm), order_of(x.shape, perm)
    if value.shape[-1] != width:
        value = ctx.reshaped(value, (value.size // width, width))
    ctx.known[layer.output] = Placed(ctx.emit("Softmax", [value], name=layer.output), x.shape, order)


def _axes(ctx: Import, layer: Layer, rank: int) -> set[int]:
    axes = ctx.integers(layer, 1, "axes")
    if axes is None and layer.attrs.get("noop_with_empty_axes", 0):
        return set()
    return {a % rank for a in axes} if axes else set(range(rank))


def _reduced(shape: Shape, axes: set[int], keep: bool) -> Shape:
    """`shape` with these axes of size 1, or gone."""
    return tuple(1 if i in axes else d for i, d in enumerate(shape) if keep or i not in axes)


Reduction = Callable[[Placed, set[int]], tuple[Value, tuple[int, ...]]]


def _reduce(ctx: Import, layer: Layer, run: Reduction) -> None:
    """Define the layer's result, which `run` returns with the permutation of its dimensions."""
    x = ctx.placed(layer, 0)
    axes = _axes(ctx, layer, len(x.shape))
    value, perm = run(x, axes)
    order = order_of(_reduced(x.shape, axes, True), perm)
    keep = bool(layer.attrs.get("keepdims", 1))
    ctx.known[layer.output] = Placed(value, _reduced(x.shape, axes, keep), order)


@importer("ReduceMean")
def reduce_mean(ctx: Import, layer: Layer) -> None:
    """Mean over some dimensions: a global AveragePool, of (N, R, C) where they are not the spatial ones."""

    def mean(x: Placed, axes: set[int]) -> tuple[Value, tuple[int, ...]]:
        rank = len(x.shape)
        perm = _together(x, axes)
        value = ctx.arrange(x, perm)
        if not (perm == channels_last(rank) and axes == set(range(2, rank)) and rank in (3, 4)):
            first = min((perm.index(a) for a in axes), default=rank)
            ends = (0, first, first + len(axes), rank)
            sizes = [math.prod(x.shape[d] for d in perm[a:b]) for a, b in pairwise(ends)]
            value = ctx.reshaped(value, tuple(sizes))
        return ctx.emit("AveragePool", [value], {"kernel": ()}, layer.output), perm

    _reduce(ctx, layer, mean)


def _together(x: Placed, axes: set[int]) -> tuple[int, ...]:
    """A permutation of x's dimensions in which `axes` are neighbours, x's own one if possible."""
    rank, group = len(x.shape), tuple(sorted(axes))
    now = permutation(x.order, x.shape)
    rest = [d for d in range(rank) if d not in axes]
    options = [(*rest[:1], *group, *rest[1:])]
    if now is not None:
        found = [i for i, d in enumerate(now) if d in axes and x.shape[d] > 1]
        kept = [d for d in now if d not in axes]
        before = len([d for d in now[: found[0]] if d not in axes]) if found else 1
        inside = tuple(d for d in now if d in axes)
        options.insert(0, (*kept[:before], *inside, *kept[before:]))
        options.insert(0, channels_last(rank) if axes == set(range(2, rank)) else options[0])
    return next((p for p in options if order_of(x.shape, p) == x.order), options[-1])


@importer("ReduceSum")
def reduce_sum(ctx: Import, layer: Layer) -> None:
    """Sum over some dimensions."""

    def total(x: Placed, axes: set[int]) -> tuple[Value, tuple[int, ...]]:
        perm = permutation(x.order, x.shape) or tuple(range(len(x.shape)))
        shape = _reduced(x.shape, axes, True)
        attrs = {"shape": tuple(shape[p] for p in perm)}
        return ctx.emit("ReduceSum", [ctx.arrange(x, perm)], attrs, layer.output), perm

    _reduce(ctx, layer, total)
