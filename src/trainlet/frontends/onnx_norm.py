"""Importers of normalizations that stay what they are: layers, and batches whose statistics are trained."""

from __future__ import annotations

import math

from trainlet.frontends.importing import Const, Import, Unsupported, importer
from trainlet.frontends.layout import Placed, channels_last, order_of, permutation, rows_and_columns
from trainlet.frontends.network import Layer
from trainlet.frontends.onnx_elementwise import batch_norm_layer
from trainlet.frontends.onnx_window import define_channels_last
from trainlet.frontends.stored import StoredLayer
from trainlet.ir.graph import Value


@importer("LayerNormalization")
def layer_norm(ctx: Import, layer: Layer) -> None:
    """x normalized over `axis` and all that follow it, times scale, plus bias."""
    x = ctx.placed(layer, 0)
    rank = len(x.shape)
    axis = int(layer.attrs.get("axis", -1)) % rank
    if any(ctx.reads(name) for name in layer.outputs[1:]):
        raise Unsupported("also returns its statistics; trainlet has no use for them")
    width = math.prod(x.shape[axis:])
    value, order = _with_columns(ctx, x, axis, width)
    if value.shape[-1] != width:
        value = ctx.reshaped(value, (value.size // width, width))
    gamma, beta = (_flat(ctx, layer, i) for i in (1, 2))
    _note(ctx, layer, gamma, beta)
    attrs = {"eps": float(layer.attrs.get("epsilon", 1e-5))}
    y = ctx.emit("LayerNormalization", [value, gamma, beta], attrs, layer.output)
    ctx.known[layer.output] = Placed(y, x.shape, order)


def _with_columns(ctx: Import, x: Placed, axis: int, width: int) -> tuple[Value, tuple[tuple[int, int], ...]]:
    """x with the dimensions from `axis` on last in memory, in the user's order; the order it is stored in."""
    parts, plain = rows_and_columns(x.order, width), order_of(x.shape[axis:])
    if parts is not None and order_of((width,)) == plain and _same(parts[1], width):
        return x.value, x.order
    now = permutation(x.order, x.shape) or tuple(range(len(x.shape)))
    perm = (*(p for p in now if p < axis), *range(axis, len(x.shape)))
    return ctx.arrange(x, perm), order_of(x.shape, perm)


def _same(columns: tuple[tuple[int, int], ...], width: int) -> bool:
    return columns in (((width, 1),), ()) or width == 1


def _flat(ctx: Import, layer: Layer, index: int) -> Value | None:
    """Operand `index` as a constant vector, None where it is absent."""
    if not layer.input(index):
        return None
    const = ctx.array(layer, index, "scale" if index == 1 else "bias")
    return ctx.constant(const.name, const.data.reshape(-1))


def _note(ctx: Import, layer: Layer, gamma: Value | None, beta: Value | None) -> None:
    if gamma is not None:
        names = [_given(ctx, layer, i) for i in (1, 2)]
        perm = tuple(range(ctx.array(layer, 1, "scale").data.ndim))
        beta_name = beta.name if beta is not None else None
        ctx.stored.append(StoredLayer(gamma.name, names[0], perm, None, beta_name, names[1]))


def _given(ctx: Import, layer: Layer, index: int) -> str | None:
    const = ctx.known.get(layer.input(index))
    return const.name if isinstance(const, Const) and ctx.is_given(const) else None


@importer("BatchNormalization")
def batch_norm(ctx: Import, layer: Layer) -> None:
    """By channel. With `batch` (a frontend's, not ONNX's) its statistics stay tensors of their own."""
    if not layer.attrs.get("batch"):
        return batch_norm_layer(ctx, layer)
    x = ctx.placed(layer, 0)
    rank = len(x.shape)
    gamma, beta, mean, variance = (_flat(ctx, layer, i) for i in (1, 2, 3, 4))
    assert mean is not None and variance is not None
    _note(ctx, layer, gamma, beta)
    ctx.stored.append(StoredLayer(mean.name, mean.name, (0,), None, variance.name, variance.name))
    attrs = {"eps": float(layer.attrs["epsilon"]), "momentum": float(layer.attrs["momentum"])}
    operands = [ctx.arrange(x, channels_last(rank)), gamma, beta, mean, variance]
    define_channels_last(ctx, layer.output, ctx.emit("BatchNormalization", operands, attrs, layer.output))
    return None
