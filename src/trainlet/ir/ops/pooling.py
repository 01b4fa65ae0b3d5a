"""Pools, float and int8. Integer means keep the operand's scale: rint of the fp32 mean.

`rounding` says how an integer mean is rounded: half to "even", "away" from zero, or "up"; the latter two are
TFLite's, of int8 and of (shifted) uint8. "rescaled" is its MEAN: the sum goes straight to the result's scale.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from trainlet.ir.fixed_point import multiplier_and_shift, multiply
from trainlet.ir.graph import Attrs, Node, Shape, Value
from trainlet.ir.ops.table import REQUIRED, Call, Result, check, op, same
from trainlet.ir.ops.window import Window, out_shape, patches, unpatch, window

POOL: Attrs = {"kernel": REQUIRED, "strides": (), "pads": (), "count_include_pad": False}
GRAD: Attrs = {**POOL, "x_shape": REQUIRED}
ROUNDINGS = ("even", "away", "up", "rescaled")


def pool_window(x: Shape, attrs: Attrs) -> Window:
    """Window of a pool over x (N, *S, C); an empty kernel covers all of S."""
    kernel = tuple(attrs["kernel"]) or x[1:-1]  # type: ignore[arg-type]
    s = window(x, x[-1], kernel, attrs)
    check(max(s.pt, s.pb) < s.kh and max(s.pl, s.pr) < s.kw, "padding as large as the window")
    return s


def node_pool(node: Node) -> Window:
    """Window of a pool node, forward (operand x) or backward (attribute x_shape)."""
    x = node.attrs.get("x_shape") or node.inputs[0].shape  # type: ignore[union-attr]
    return pool_window(x, node.attrs)  # type: ignore[arg-type]


def _pooled(inputs: Sequence[Value | None], attrs: Attrs) -> list[Result]:
    x = inputs[0]
    assert x is not None
    check(len(x.shape) in (3, 4), f"pools an operand of shape {x.shape}")
    return [(x.dtype, out_shape(x.shape, pool_window(x.shape, attrs), len(x.shape) - 2))]


def _like_x(inputs: Sequence[Value | None], attrs: Attrs) -> list[Result]:
    return [("f32", tuple(attrs["x_shape"]))]  # type: ignore[arg-type]


def _counts(s: Window, include_pad: bool) -> np.ndarray:
    """Number of elements each window averages, (1, oh, ow, 1)."""
    if include_pad:
        return np.full((1, s.oh, s.ow, 1), s.kh * s.kw)
    one = Window(1, s.h, s.w, 1, s.oh, s.ow, 1, s.kh, s.kw, s.sh, s.sw, s.pt, s.pl, s.pb, s.pr, s.dh, s.dw)
    return patches(np.ones((1, s.h, s.w, 1)), one).sum((3, 4))


def _averaged(inputs: Sequence[Value | None], attrs: Attrs) -> list[Result]:
    check(attrs["rounding"] in ROUNDINGS, f"rounding {attrs['rounding']!r} is none of {', '.join(ROUNDINGS)}")
    exact = attrs["rounding"] == "even" or not attrs["count_include_pad"]
    check(exact, "TFLite's means leave the padding out")
    return _pooled(inputs, attrs)


def mean_factor(sx: float, sy: float, count: int) -> tuple[int, int]:
    """(multiplier, shift) from a sum of `count` integers to their mean in another scale (TFLite's MEAN)."""
    multiplier, shift = multiplier_and_shift(float(sx) / float(sy))
    extra = min(count.bit_length() - 1, 32, 31 + shift)
    return (multiplier << extra) // count, shift - extra


def _integer_mean(call: Call, total: np.ndarray, counts: np.ndarray) -> np.ndarray:
    rounding, sums, n = call.attrs["rounding"], total.astype(np.int64), counts.astype(np.int64)
    if rounding == "up":
        return (sums + n // 2) // n
    if rounding == "away":
        return np.sign(sums) * ((np.abs(sums) + n // 2) // n)
    s, y = node_pool(call.node), call.node.output
    check(y.quant is not None, f"result {y.name} needs quantization parameters")
    factor = mean_factor(float(call.scale(0)), float(call.scales(y)), s.kh * s.kw)
    return multiply(sums - n * call.zero(0), *factor) + y.quant.zero_point  # type: ignore[union-attr]


@op("AveragePool", _averaged, 1, {**POOL, "rounding": "even"})
def average_pool(call: Call) -> np.ndarray:
    """x f32 or s8 (N, *S, C) -> mean over each window; padding counts only if count_include_pad."""
    s, x = node_pool(call.node), call[0]
    integer = x.dtype == np.int8
    include_pad = bool(call.attrs["count_include_pad"])
    total = patches(x.astype(np.float64), s, call.zero(0) if include_pad else 0).sum((3, 4))
    counts = _counts(s, include_pad)
    shape = call.node.output.shape
    if not integer:
        return (total / counts).astype(call.real).reshape(shape)
    if call.attrs["rounding"] != "even":
        return np.clip(_integer_mean(call, total, counts), -128, 127).astype(np.int8).reshape(shape)
    mean = total.astype(np.float32) / counts.astype(np.float32)
    return np.clip(np.rint(mean), -128, 127).astype(np.int8).reshape(shape)


@op("AveragePoolGrad", _like_x, 1, GRAD)
def average_pool_grad(call: Call) -> np.ndarray:
    """dy f32 -> dx f32 (x_shape): each window's elements share its gradient equally."""
    s = node_pool(call.node)
    d = call[0].reshape(s.n, s.oh, s.ow, s.o) / _counts(s, bool(call.attrs["count_include_pad"]))
    spread = np.broadcast_to(d[:, :, :, None, None], (s.n, s.oh, s.ow, s.kh, s.kw, s.c))
    return unpatch(spread, s).astype(call.real).reshape(call.node.output.shape)


@op("MaxPool", _pooled, 1, POOL)
def max_pool(call: Call) -> np.ndarray:
    """x f32 or s8 (N, *S, C) -> largest element of each window."""
    s, x = node_pool(call.node), call[0]
    low = -128 if x.dtype == np.int8 else -np.inf
    return patches(x, s, low).max((3, 4)).reshape(call.node.output.shape)


@op("MaxPoolGrad", _like_x, 2, GRAD)
def max_pool_grad(call: Call) -> np.ndarray:
    """dy f32, x -> dx f32: the first largest element of each window gets its gradient."""
    s, x = node_pool(call.node), call[1]
    windows = patches(x.astype(np.float64), s, -np.inf).reshape(s.n, s.oh, s.ow, -1, s.c)
    first = windows.argmax(3)[:, :, :, None] == np.arange(s.kh * s.kw)[:, None]
    d = first * call[0].reshape(s.n, s.oh, s.ow, 1, s.c)
    dx = unpatch(d.reshape(s.n, s.oh, s.ow, s.kh, s.kw, s.c), s)
    return dx.astype(call.real).reshape(call.node.output.shape)


__all__ = ["node_pool", "pool_window", "same"]
