"""Int8 arithmetic beside convolutions: add, multiply, lookup tables, conversions (int8.md, Forward)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from trainlet.ir.graph import Attrs, Value
from trainlet.ir.ops.table import Call, Result, check, op, same, with_mask


def _saturate(v: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return np.clip(v, -128, 127).astype(np.int8), (v >= -128) & (v <= 127)


def _out(call: Call) -> tuple[np.float32, np.float32]:
    value = call.node.output
    check(value.quant is not None, f"result {value.name} needs quantization parameters")
    return np.float32(call.scales(value)), np.float32(value.quant.zero_point)  # type: ignore[union-attr]


@op("QLinearAdd", with_mask(same(0, 1)), 2, inplace={0: (0, 1)})
def qlinear_add(call: Call) -> tuple[np.ndarray, np.ndarray]:
    """a s8, b s8 -> rint(((a - za) sa + (b - zb) sb) / sy) + zy in fp32, clamped[, mask]."""
    (sy, zy), f = _out(call), np.float32
    a = (call[0].astype(f) - f(call.zero(0))) * call.scale(0)
    b = (call[1].astype(f) - f(call.zero(1))) * call.scale(1)
    return _saturate(np.rint((a + b) / sy) + zy)


def _gated(inputs: Sequence[Value | None], attrs: Attrs) -> list[Result]:
    a, b = inputs
    assert a is not None and b is not None
    gate = (a.shape[0], *(1,) * (len(a.shape) - 2), a.shape[-1])
    check(b.shape in (a.shape, gate), f"multiplies {a.shape} by {b.shape}")
    return [("s8", a.shape)]


@op("QLinearMul", with_mask(_gated), 2, inplace={0: (0,)})
def qlinear_mul(call: Call) -> tuple[np.ndarray, np.ndarray]:
    """a s8 (N, *S, C), b s8 of a's shape or (N, 1.., C) -> rint((a - za)(b - zb) sa sb / sy) + zy."""
    sy, zy = _out(call)
    scale = np.float32(np.float64(call.scale(0)) * np.float64(call.scale(1)) / np.float64(sy))
    product = (call[0].astype(np.int32) - call.zero(0)) * (call[1].astype(np.int32) - call.zero(1))
    return _saturate(np.rint(product.astype(np.float32) * scale) + zy)


@op("QLinearLookup", same(0), 2, inplace={0: (0,)})
def qlinear_lookup(call: Call) -> np.ndarray:
    """x s8, table s8 (256), indexed by x + 128: any function of one int8 value."""
    return call[1][call[0].astype(np.int32) + 128]


@op("LookupGrad", lambda i, attrs: [("f32", i[0].shape)], 3, inplace={0: (0,)})  # type: ignore[union-attr]
def lookup_grad(call: Call) -> np.ndarray:
    """dy f32, x s8, slopes f32 (256) -> dy * slopes[x + 128]."""
    return (call[0] * call[2][call[1].astype(np.int32) + 128]).astype(call.real)


@op("QuantizeLinear", with_mask(lambda i, attrs: [("s8", i[0].shape)]), 1)  # type: ignore[union-attr]
def quantize_linear(call: Call) -> tuple[np.ndarray, np.ndarray]:
    """x f32 -> rint(x / scale) + zero_point, clamped, s8[, mask]."""
    scale, zero = _out(call)
    return _saturate(np.rint(call[0].astype(np.float32) / scale) + zero)


@op("DequantizeLinear", lambda i, attrs: [("f32", i[0].shape)], 1)  # type: ignore[union-attr]
def dequantize_linear(call: Call) -> np.ndarray:
    """x s8 -> (x - zero_point) * scale, f32."""
    return ((call[0].astype(np.int32) - call.zero(0)) * call.real(call.scale(0))).astype(call.real)
