"""Int8 arithmetic beside convolutions: add, multiply, lookup tables, conversions (int8.md, Forward).

With the attribute `fixed`, sums and products follow TFLite's rules in integers instead of fp32.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from trainlet.ir.fixed_point import multiplier_and_shift, multiply
from trainlet.ir.graph import Attrs, Value
from trainlet.ir.ops.convolution import RANGE
from trainlet.ir.ops.table import Call, Infer, Result, check, op, same, with_mask

# Bits that TFLite adds below the operands of a sum before they are brought to one scale.
SUM_SHIFT = 20


def _saturate(v: np.ndarray, lo: int = -128, hi: int = 127) -> tuple[np.ndarray, np.ndarray]:
    return np.clip(v, lo, hi).astype(np.int8), (v >= lo) & (v <= hi)


def _out(call: Call) -> tuple[np.float32, np.float32]:
    value = call.node.output
    check(value.quant is not None, f"result {value.name} needs quantization parameters")
    return np.float32(call.scales(value)), np.float32(value.quant.zero_point)  # type: ignore[union-attr]


def sum_factors(
    sa: np.float32, sb: np.float32, sy: np.float32, subtract: bool
) -> tuple[tuple[int, int], ...]:
    """(multiplier, shift) of a, of b and of their sum in TFLite's addition."""
    twice = 2.0 * max(float(sa), float(sb))
    a, b = multiplier_and_shift(float(sa) / twice), multiplier_and_shift(float(sb) / twice)
    b = (-b[0] if subtract else b[0], b[1])
    return a, b, multiplier_and_shift(twice / (2**SUM_SHIFT * float(sy)))


def _fixed_sum(call: Call) -> np.ndarray:
    (sy, zy), subtract = _out(call), bool(call.attrs["subtract"])
    *sides, total = sum_factors(call.scale(0), call.scale(1), sy, subtract)
    centered = [(call[i].astype(np.int64) - call.zero(i)) << SUM_SHIFT for i in (0, 1)]
    a, b = (multiply(x, *side) for x, side in zip(centered, sides, strict=True))
    return multiply(a + b, *total) + int(zy)


def _checked(infer: Infer) -> Infer:
    """`infer`, where only fixed-point arithmetic may subtract or clamp to less than int8."""

    def checked(inputs: Sequence[Value | None], attrs: Attrs) -> Sequence[Result]:
        plain = (attrs["lo"], attrs["hi"]) == (-128, 127) and not attrs.get("subtract")
        check(bool(attrs["fixed"]) or plain, "lo, hi and subtract need fixed-point arithmetic")
        return infer(inputs, attrs)

    return checked


SUM: Attrs = {"fixed": False, "subtract": False, **RANGE}


@op("QLinearAdd", with_mask(_checked(same(0, 1))), 2, SUM, inplace={0: (0, 1)})
def qlinear_add(call: Call) -> tuple[np.ndarray, np.ndarray]:
    """a s8, b s8 -> rint(((a - za) sa + (b - zb) sb) / sy) + zy in fp32, clamped[, mask].

    `fixed`: in TFLite's integers, with any clamp; `subtract` (of these only): a - b.
    """
    if call.attrs["fixed"]:
        return _saturate(_fixed_sum(call), call.attrs["lo"], call.attrs["hi"])
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


def product_factor(sa: np.float32, sb: np.float32, sy: np.float32) -> tuple[int, int]:
    """(multiplier, shift) of TFLite's product; it computes the factor in float32."""
    return multiplier_and_shift(float(np.float32(sa) * np.float32(sb) / np.float32(sy)))


@op("QLinearMul", with_mask(_checked(_gated)), 2, {"fixed": False, **RANGE}, inplace={0: (0,)})
def qlinear_mul(call: Call) -> tuple[np.ndarray, np.ndarray]:
    """a s8 (N, *S, C), b s8 of a's shape or (N, 1.., C) -> rint((a - za)(b - zb) sa sb / sy) + zy.

    `fixed`: in TFLite's integers, with any clamp.
    """
    sy, zy = _out(call)
    scale = np.float32(np.float64(call.scale(0)) * np.float64(call.scale(1)) / np.float64(sy))
    product = (call[0].astype(np.int32) - call.zero(0)) * (call[1].astype(np.int32) - call.zero(1))
    if call.attrs["fixed"]:
        factor = product_factor(call.scale(0), call.scale(1), sy)
        return _saturate(multiply(product, *factor) + int(zy), call.attrs["lo"], call.attrs["hi"])
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
