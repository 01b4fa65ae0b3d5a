"""Calls of elementwise kernels, float and int8, of losses and of softmax."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

from trainlet.backends.c99.writer import Writer, braces, dims4, kernel, mask, number
from trainlet.ir import Node, Value
from trainlet.ir.ops.elementwise import UNARY
from trainlet.ir.ops.integer import product_factor, sum_factors


def _strides(v: Value, out: tuple[int, ...], n: Node) -> list[int]:
    """Element strides of an operand over the result's dimensions, 0 where it is broadcast."""
    dims, full = dims4(v.shape, n), dims4(out, n)
    strides, step = [0] * 4, 1
    for i in reversed(range(4)):
        strides[i] = step if dims[i] == full[i] and dims[i] > 1 else 0
        step *= dims[i]
    return strides


@kernel("Add", "Sub", "Mul")
def binary(c: Writer, n: Node) -> Iterable[str]:
    a, b = n.inputs
    assert a is not None and b is not None
    y = n.output
    yield f"static const int32_t dims[4] = {braces(dims4(y.shape, n))};"
    yield f"static const int32_t sa[4] = {braces(_strides(a, y.shape, n))};"
    yield f"static const int32_t sb[4] = {braces(_strides(b, y.shape, n))};"
    yield f"tl_binary_f32(TL_{n.op.upper()}, dims, {c.ptr(a)}, sa, {c.ptr(b)}, sb, {c.ptr(y)});"


@kernel("Expand")
def expand(c: Writer, n: Node) -> Iterable[str]:
    x, y = n.inputs[0], n.output
    assert x is not None
    yield f"static const int32_t dims[4] = {braces(dims4(y.shape, n))};"
    yield f"static const int32_t sx[4] = {braces(_strides(x, y.shape, n))};"
    yield f"tl_expand_f32(dims, {c.ptr(x)}, sx, {c.ptr(y)});"


@kernel("ReduceSum")
def reduce_sum(c: Writer, n: Node) -> Iterable[str]:
    x = n.inputs[0]
    assert x is not None
    dims, out = dims4(x.shape, n), dims4(n.output.shape, n)
    keep = [int(a == b) for a, b in zip(dims, out, strict=True)]
    yield f"static const int32_t dims[4] = {braces(dims)}, keep[4] = {braces(keep)};"
    yield f"tl_reduce_sum_f32(dims, keep, {c.ptr(x)}, {c.ptr(n.output)});"


def _parameters(n: Node) -> str:
    if n.op == "Clip":
        return f"{number(float(n.attrs['lo']))}, {number(float(n.attrs['hi']))}"  # type: ignore[arg-type]
    a, b = n.attrs.get("alpha", 0.0), n.attrs.get("beta", 0.0)
    return f"{number(float(a))}, {number(float(b))}"  # type: ignore[arg-type]


@kernel("Clip", *UNARY)
def unary(c: Writer, n: Node) -> Iterable[str]:
    kind = f"TL_{n.op.upper()}"
    yield (
        f"tl_unary_f32({kind}, {_parameters(n)}, {c.ptr(n.inputs[0])}, {c.ptr(n.output)}, "
        f"{c.ptr(mask(n))}, {n.output.size});"
    )


@kernel(*(f"{op}Grad" for op in UNARY))
def unary_grad(c: Writer, n: Node) -> Iterable[str]:
    dy, saved = n.inputs
    kind = f"TL_{n.op.removesuffix('Grad').upper()}"
    yield (
        f"tl_unary_grad_f32({kind}, {_parameters(n)}, {c.ptr(saved)}, {c.ptr(dy)}, {c.ptr(n.output)}, "
        f"{n.output.size});"
    )


@kernel("Scale")
def scale(c: Writer, n: Node) -> Iterable[str]:
    factor = number(float(n.attrs["factor"]))  # type: ignore[arg-type]
    yield f"tl_scale_f32({c.ptr(n.output)}, {c.ptr(n.inputs[0])}, {factor}, {n.output.size});"


@kernel("Softmax", "SoftmaxGrad")
def softmax(c: Writer, n: Node) -> Iterable[str]:
    cols = n.output.shape[-1]
    sizes = f"{n.output.size // cols}, {cols}, {c.ptr(n.output)}"
    if n.op == "Softmax":
        yield f"tl_softmax_f32({c.ptr(n.inputs[0])}, {sizes});"
    else:
        yield f"tl_softmax_grad_f32({c.ptr(n.inputs[1])}, {c.ptr(n.inputs[0])}, {sizes});"


LOSS_KERNELS = {
    "SoftmaxCrossEntropy": "softmax_cross_entropy",
    "SigmoidCrossEntropy": "sigmoid_cross_entropy",
    "MeanSquaredError": "mse",
}


@kernel(*LOSS_KERNELS, *(f"{op}Grad" for op in LOSS_KERNELS))
def loss(c: Writer, n: Node) -> Iterable[str]:
    z, target = n.inputs
    assert z is not None
    grad = "_grad" if n.op.endswith("Grad") else ""
    base = n.op.removesuffix("Grad")
    sizes = str(z.size) if base == "MeanSquaredError" else f"{z.shape[0]}, {math.prod(z.shape[1:])}"
    yield f"tl_{LOSS_KERNELS[base]}{grad}({c.ptr(z)}, {c.ptr(target)}, {sizes}, {c.ptr(n.output)});"


def _side(c: Writer, v: Value, factor: tuple[int, int]) -> str:
    """Initializer of a tl_fixed_side: zero point, multiplier, shift."""
    return braces((c.zero(v), *factor))


def sum_sides(c: Writer, n: Node) -> list[str]:
    """Initializers of the tl_fixed_side of a fixed-point sum's operands and of its result."""
    a, b = n.inputs
    assert a is not None and b is not None
    sides = (a, b, n.output)
    sa, sb, sy = (np.float32(c.scale(v)) for v in sides)
    factors = sum_factors(sa, sb, sy, bool(n.attrs["subtract"]))
    return [_side(c, v, f) for v, f in zip(sides, factors, strict=True)]


@kernel("QLinearAdd")
def qlinear_add(c: Writer, n: Node) -> Iterable[str]:
    a, b = n.inputs
    assert a is not None and b is not None
    y = n.output
    if n.attrs["fixed"]:
        of = (f"of_{name} = {side}" for name, side in zip("aby", sum_sides(c, n), strict=True))
        yield f"const tl_fixed_side {', '.join(of)};"
        yield (
            f"tl_add_s8_fixed({c.ptr(a)}, &of_a, {c.ptr(b)}, &of_b, &of_y, {n.attrs['lo']}, {n.attrs['hi']}, "
            f"{c.ptr(y)}, {c.ptr(mask(n))}, {y.size});"
        )
        return
    sides = ", ".join(f"{c.ptr(v)}, {c.zero(v)}, {number(c.scale(v))}" for v in (a, b))
    yield (f"tl_add_s8({sides}, {number(c.scale(y))}, {c.zero(y)}, {c.ptr(y)}, {c.ptr(mask(n))}, {y.size});")


@kernel("QLinearMul")
def qlinear_mul(c: Writer, n: Node) -> Iterable[str]:
    a, b = n.inputs
    assert a is not None and b is not None
    y = n.output
    channels = y.shape[-1]
    positions = y.size // (y.shape[0] * channels)
    sizes = f"{y.shape[0]}, {positions}, {channels}"
    operands = f"{c.ptr(a)}, {c.zero(a)}, {c.ptr(b)}, {c.zero(b)}, {int(a.shape != b.shape)}"
    if n.attrs["fixed"]:
        rescale = product_factor(*(np.float32(c.scale(v)) for v in (a, b, y)))
        yield f"const tl_fixed_side of_y = {_side(c, y, rescale)};"
        yield (
            f"tl_mul_s8_fixed({operands}, &of_y, {n.attrs['lo']}, {n.attrs['hi']}, "
            f"{c.ptr(y)}, {c.ptr(mask(n))}, {sizes});"
        )
        return
    factor = np.float32(np.float64(c.scale(a)) * np.float64(c.scale(b)) / np.float64(c.scale(y)))
    yield (
        f"tl_mul_s8({operands}, {number(float(factor))}, {c.zero(y)}, {c.ptr(y)}, {c.ptr(mask(n))}, {sizes});"
    )


@kernel("QLinearLookup")
def qlinear_lookup(c: Writer, n: Node) -> Iterable[str]:
    x, table = n.inputs
    yield f"tl_lookup_s8({c.ptr(x)}, {c.ptr(table)}, {c.ptr(n.output)}, {n.output.size});"


@kernel("LookupGrad")
def lookup_grad(c: Writer, n: Node) -> Iterable[str]:
    dy, x, slopes = n.inputs
    yield f"tl_lookup_grad({c.ptr(n.output)}, {c.ptr(dy)}, {c.ptr(x)}, {c.ptr(slopes)}, {n.output.size});"


@kernel("QuantizeLinear")
def quantize_linear(c: Writer, n: Node) -> Iterable[str]:
    y = n.output
    yield (
        f"tl_quantize({c.ptr(n.inputs[0])}, {number(c.scale(y))}, {c.zero(y)}, {c.ptr(y)}, "
        f"{c.ptr(mask(n))}, {y.size});"
    )


@kernel("DequantizeLinear")
def dequantize_linear(c: Writer, n: Node) -> Iterable[str]:
    x = n.inputs[0]
    assert x is not None
    yield f"tl_dequantize({c.ptr(x)}, {number(c.scale(x))}, {c.zero(x)}, {c.ptr(n.output)}, {x.size});"
